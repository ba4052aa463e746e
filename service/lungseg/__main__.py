"""``python -m lungseg``: the command line."""

from __future__ import annotations

from lungseg.cli import command

if __name__ == "__main__":
    command()
