"""The command line: each module adds its commands and runs them.

Exit codes: 0 = every file was segmented, 1 = some were refused (standard error says which and
why), 2 = nothing could be done: wrong usage, no files, no model, no server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import lungseg
from lungseg.cli import segment, serve
from lungseg.cli.errors import UNUSABLE, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (UsageError, OSError) as error:
        print(f"lungseg: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        os._exit(UNUSABLE)  # at once: threads may still wait for a silent server
    return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lungseg",
        description="Lung segmentation of chest CT slices. Research use only.",
        epilog=(__doc__ or "").partition("\n\n")[2],
    )
    parser.add_argument("--version", action="version", version=f"lungseg {lungseg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (segment, serve):
        command.add_to(commands)
    return parser
