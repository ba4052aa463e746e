"""``python -m training``: the training subproject's command line."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

from training import data_commands, release_commands
from training.config import add_flags, given_flags, read_config
from training.errors import DataError
from training.labelling.command import add_label_command
from training.release_commands import add_release_flags, make_release

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
        resumes = arguments.command is _run
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
    run = commands.add_parser("run", help="from a folder of slices and masks to a model version")
    data_commands.add_source_flags(run)
    run.add_argument("--out", type=Path, required=True, help="folder of the run, to resume too")
    run.add_argument("--resume", action="store_true", help="refuse to begin a new run in --out")
    run.add_argument("--config", type=Path, help="TOML file of recipe settings")
    add_release_flags(run)
    add_flags(run)
    run.set_defaults(command=_run)
    data_commands.register(commands)
    release_commands.register(commands)
    add_label_command(commands)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from training.run import expect_begun, run

    if arguments.resume:
        expect_begun(arguments.out)
    run(
        data_commands.given_sources(arguments),
        arguments.out,
        read_config(arguments.config, given_flags(arguments)),
        make_release(arguments, arguments.out),
    )


if __name__ == "__main__":
    sys.exit(main())
