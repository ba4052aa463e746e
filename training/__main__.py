"""``python -m training``: the training subproject's command line."""

from __future__ import annotations

import argparse
import errno
import os
import sys

from training.commands import data, label, models, run
from training.errors import DataError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a full disk, a used-up quota and a limit of a file's size."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for a verdict against the input, or 2 where it can't be used.

    130 says that ctrl-C stopped it.
    """
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no hints about GPUs and compilers
    try:
        return arguments.command(arguments) or 0
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {_trouble(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = arguments.command in (run.run, run.finetune)
        after = "goes on from the last whole epoch" if resumes else "starts anew"
        print(f"stopped; the same command {after}", file=sys.stderr)
        return 130


def _trouble(error: OSError) -> str:
    remedy = "make room" if error.errno in NO_ROOM else "see to it"
    what = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{what}; {remedy} and start the same command again"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (run, data, models, label):
        module.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
