"""The slices that a command names, and those that folders hold."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungseg.cli.errors import UsageError
from lungseg.cli.streams import STREAM, say, standard_input
from lungseg.forms import FORMS
from lungseg.sources import walk

RESULTS = tuple(form.suffix for form in FORMS.values())
"""What the names of results end with: they are no slices, whoever's they are."""
NO_SLICE = re.compile(r"(dicomdir|thumbs\.db|desktop\.ini|(readme|licen[cs]e)([._ -].*)?|.*\.csv)")
"""What lies beside slices: indexes, explanations and tables."""
SHOWN = 3
"""Skipped files that are named before the others are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One slice: where it is, and its name for outputs and tables."""

    path: Path | None
    name: str

    def read(self) -> bytes:
        """The content; standard input where there is no path."""
        return standard_input().read() if self.path is None else self.path.read_bytes()


def find_inputs(names: Sequence[str]) -> list[Input]:
    """The slices of a command's files and folders, in the order of the command and of names.

    A file that the command names is taken whatever its name is. Of a folder's, hidden ones are
    left out without a word, and those that are no slices by their names with one line.

    Raises:
        UsageError: there are none, or they cannot be told apart.
    """
    found: list[Input] = []
    skipped: list[str] = []
    for name in names:
        path = Path(name)
        if not name:  # a variable of a script that is not set, which Path takes for "."
            raise UsageError("expected a file or folder, received an empty name")
        if name == STREAM:
            standard_input()
            found.append(Input(path=None, name="stdin"))
        elif path.is_dir():
            for item in sorted(_of_folder(path), key=lambda item: item.name.split("/")):
                spare = _is_no_slice(item)
                skipped += [item.name] if spare else []
                found += [] if spare else [item]
        elif path.exists():
            found.append(Input(path=path, name=path.name))
        else:
            raise UsageError(f"expected a file or folder, received {name}: there is none")
    _tell(skipped)
    _check(found, names)
    return found


def _is_no_slice(item: Input) -> bool:
    """Whether it is a result, an index, an explanation, a table, or a link to a folder."""
    last = item.name.rpartition("/")[2].lower()
    named = last.endswith(RESULTS) or NO_SLICE.fullmatch(last) is not None
    return named or (item.path is not None and item.path.is_symlink() and item.path.is_dir())


def _of_folder(root: Path) -> Iterator[Input]:
    """Files in and below a folder; what cannot be read is among them, and fails when it is.

    So are links to folders, which are not followed: they may lead in circles, or anywhere.
    """
    unreadable: list[OSError] = []
    for path in walk(root, unreadable):
        if _may_be_read(path):
            yield Input(path=path, name=path.relative_to(root).as_posix())
    for error in unreadable:
        path = Path(error.filename)
        yield Input(path=path, name=os.path.relpath(path, root))


def _may_be_read(path: Path) -> bool:
    """No for pipes and devices; yes for links that lead nowhere: their reader shall hear of it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _tell(skipped: Sequence[str]) -> None:
    if skipped:
        more = ", …" if len(skipped) > SHOWN else ""
        shown = ", ".join(skipped[:SHOWN]) + more
        say(f"lungseg: skipped, as no slices by their names: {len(skipped)} ({shown})")


def _check(found: Sequence[Input], names: Sequence[str]) -> None:
    if not found:
        raise UsageError(f"expected slices, received none in {', '.join(names)}")
    if sum(item.path is None for item in found) > 1:
        raise UsageError("standard input can be read only once")
    twice = [name for name, count in Counter(item.name for item in found).items() if count > 1]
    if twice:
        raise UsageError(
            f"two files are called {twice[0]}: name the folder above both, or take one after the "
            "other"
        )
