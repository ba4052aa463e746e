"""The command line: each module adds its commands and runs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import NoReturn

import lungseg
from lungseg.cli import compare, segment, serve, volume
from lungseg.cli.errors import (
    EXITS,
    INTERRUPTED,
    OK,
    READER_GONE,
    SOME_FAILED,
    UNUSABLE,
    UsageError,
    in_words,
)
from lungseg.cli.parser import Parser
from lungseg.cli.streams import drop_output, flush_output, hold_closed_streams, say

INTEGRATIONS: dict[str, str] = {
    "cohort": "segment the studies of an index by several workers, in runs that may be stopped",
    "dicomweb": "segment CT series of a DICOM archive, and store the results beside them",
}
"""Modules of ``lungseg.integrations`` and what their commands do; called, they are imported."""


def command() -> NoReturn:
    """The process: ``main``, and an end that waits for nobody where that has stopped early.

    Threads may then still wait for a silent server or a pipe, and Python would wait for them.
    """
    code = main()
    if code in (OK, SOME_FAILED):
        sys.exit(code)
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code, of which ``EXITS`` says what it means."""
    hold_closed_streams()
    try:
        try:
            options = _parser().parse_args(arguments)
            return options.run(options)
        finally:
            flush_output()
    except BrokenPipeError:  # nobody reads any more, so there is nothing to say
        drop_output()
        return READER_GONE
    except OSError as error:
        say(f"lungseg: {in_words(error)}")
    except UsageError as error:
        for sentence in error.args:
            say(f"lungseg: {sentence}")
    except KeyboardInterrupt as stopped:
        say(f"lungseg: {': '.join(['interrupted', *map(str, stopped.args)])}")
        return INTERRUPTED
    return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    exits = "; ".join(f"{code} = {meaning}" for code, meaning in EXITS.items())
    parser = Parser(
        prog="lungseg",
        description="Lung segmentation of chest CT. Research use only.",
        epilog=f"Exit codes: {exits}.",
    )
    parser.add_argument("--version", action="version", version=f"lungseg {lungseg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (segment, volume, compare, serve):
        command.add_to(commands)
    for name, text in INTEGRATIONS.items():
        commands.add_parser(name, help=text, description=text).later = partial(_integrate, name)
    return parser


def _integrate(name: str, parser: argparse.ArgumentParser) -> None:
    import_module(f"lungseg.integrations.{name}").add_to(parser)
