"""``lungseg`` and ``python -m lungseg``: the command line."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

INTERRUPTED = 130
"""As ``lungseg.cli.errors`` has it, which may not be loaded yet."""


def command() -> NoReturn:
    """The process; Ctrl-C ends it in the same way while its modules are still being loaded."""
    try:
        from lungseg.cli import command
    except KeyboardInterrupt:
        sys.stderr.write("lungseg: interrupted\n")
        os._exit(INTERRUPTED)
    command()


if __name__ == "__main__":
    command()
