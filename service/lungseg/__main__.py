"""``python -m lungseg``: the command line."""

from __future__ import annotations

import sys

from lungseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
