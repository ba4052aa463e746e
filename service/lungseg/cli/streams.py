"""The standard streams, any of which may be closed, and whose reader may leave."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from typing import BinaryIO, TextIO, cast

from tqdm import tqdm

from lungseg.cli.errors import UsageError

STREAM = "-"
"""Names a standard stream where a file could be named."""
STANDARD = range(3)
"""Descriptors of standard input, output and error."""


def hold_closed_streams() -> None:
    """Puts the null device where standard streams are closed, as ``>&-`` leaves them.

    Else the next file that is opened would get their number, and what libraries print.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    if _is_closed(sys.stderr):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def standard_input() -> BinaryIO:
    """Standard input.

    Raises:
        UsageError: it is closed.
    """
    if _is_closed(sys.stdin):
        raise UsageError("expected a slice at standard input, which is closed")
    return sys.stdin.buffer


def check_output() -> None:
    """Makes sure that there is a standard output.

    Raises:
        UsageError: it is closed.
    """
    if _is_closed(sys.stdout):
        raise UsageError("expected a place for results, received a closed standard output")


def write_output(content: bytes) -> None:
    """Writes to standard output at once, whole.

    Raises:
        UsageError: it is closed.
        OSError: it cannot be written; the error names it.
    """
    check_output()
    with _standard_output():
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def flush_output() -> None:
    """Writes what waits, here, where failing can still be told.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    if not _is_closed(sys.stdout):
        with _standard_output():
            sys.stdout.flush()


@contextlib.contextmanager
def _standard_output() -> Generator[None]:
    try:
        with named_in_errors("standard output"):
            yield
    except OSError:
        drop_output()
        raise


@contextlib.contextmanager
def named_in_errors(name: str) -> Generator[None]:
    """Errors of the system name what was written: a full disk's have no name, a part's its own."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = name, None
        raise


def say(sentence: str) -> None:
    """Writes a sentence to standard error, above the bar of progress."""
    tqdm.write(printable(sentence), sys.stderr)


def printable(text: str) -> str:
    """The text with escapes for what a terminal would obey, such as in a file's name."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def drop_output() -> None:
    """Sends what still waits to nowhere: Python would complain of it at exit."""
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _is_closed(stream: TextIO) -> bool:
    """Python has None in place of a stream that was closed when it started."""
    return cast("TextIO | None", stream) is None
