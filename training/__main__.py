"""``python -m training``: the training subproject's command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from training import data_commands, release_commands
from training.config import add_flags, given_flags, read_config
from training.errors import DataError
from training.release_commands import add_release_flags, make_release


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 for input that can't be used."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no hints about GPUs and compilers
    try:
        return arguments.command(arguments) or 0
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last whole epoch", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="from a folder of slices and masks to a model version")
    data_commands.add_source_flags(run)
    run.add_argument("--out", type=Path, required=True, help="folder of the run, to resume too")
    run.add_argument("--config", type=Path, help="TOML file of recipe settings")
    add_release_flags(run)
    add_flags(run)
    run.set_defaults(command=_run)
    data_commands.register(commands)
    release_commands.register(commands)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from training.run import run

    run(
        data_commands.given_sources(arguments),
        arguments.out,
        read_config(arguments.config, given_flags(arguments)),
        make_release(arguments, arguments.out),
    )


if __name__ == "__main__":
    sys.exit(main())
