"""The files that a command names, and the slices that folders hold."""

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
from lungseg.volume_forms import VOLUME_FORMS

RESULTS = tuple(form.suffix for form in (*FORMS.values(), *VOLUME_FORMS.values()))
"""What the names of results end with: they are no inputs, whoever's they are."""
NO_INPUT = re.compile(r"(dicomdir|thumbs\.db|desktop\.ini|(readme|licen[cs]e)([._ -].*)?|.*\.csv)")
"""What lies beside inputs: indexes, explanations and tables."""
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
    for _, path in named_paths(names):
        if path is None:
            found.append(Input(path=None, name="stdin"))
        elif path.is_dir():
            for item in sorted(_of_folder(path), key=lambda item: item.name.split("/")):
                spare = item.path is not None and is_no_input(item.path, item.name)
                skipped += [item.name] if spare else []
                found += [] if spare else [item]
        else:
            found.append(Input(path=path, name=path.name))
    tell(skipped, "slices by their names")
    check_names([item.name for item in found], names, "slices")
    return found


def named_paths(names: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """What a command names, and its path; None for standard input.

    Raises:
        UsageError: there is no such file or folder, or standard input is closed or named twice.
    """
    if list(names).count(STREAM) > 1:
        raise UsageError("standard input can be read only once")
    for name in names:
        if not name:  # a variable of a script that is not set, which Path takes for "."
            raise UsageError("expected a file or folder, received an empty name")
        if name == STREAM:
            standard_input()
            yield name, None
        elif Path(name).exists():
            yield name, Path(name)
        else:
            raise UsageError(f"expected a file or folder, received {name}: there is none")


def is_no_input(path: Path, name: str) -> bool:
    """Whether it is a result, an index, an explanation, a table, or a link to a folder."""
    last = name.rpartition("/")[2].lower()
    named = last.endswith(RESULTS) or NO_INPUT.fullmatch(last) is not None
    return named or (path.is_symlink() and path.is_dir())


def _of_folder(root: Path) -> Iterator[Input]:
    """Files in and below a folder; what cannot be read is among them, and fails when it is."""
    for path in files_below(root):
        yield Input(path=path, name=os.path.relpath(path, root).replace(os.sep, "/"))


def files_below(root: Path) -> Iterator[Path]:
    """Files in and below a folder, and folders that cannot be read, but nothing hidden.

    Links to folders are among them and not followed: they may lead in circles, or anywhere.
    """
    unreadable: list[OSError] = []
    yield from filter(_may_be_read, walk(root, unreadable))
    yield from (Path(error.filename) for error in unreadable)


def _may_be_read(path: Path) -> bool:
    """No for pipes and devices; yes for links that lead nowhere: their reader shall hear of it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def tell(skipped: Sequence[str], what: str) -> None:
    """Says which files of folders are left out."""
    if skipped:
        more = ", …" if len(skipped) > SHOWN else ""
        shown = ", ".join(skipped[:SHOWN]) + more
        say(f"lungseg: skipped, as no {what}: {len(skipped)} ({shown})")


def check_names(found: Sequence[str], names: Sequence[str], things: str) -> None:
    """Makes sure that there is something to do, and that outputs can be told apart.

    Raises:
        UsageError: it is not so.
    """
    if not found:
        raise UsageError(f"expected {things}, received none in {', '.join(names)}")
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise UsageError(
            f"two {things} are called {twice[0]}: name the folder above both, or take one after "
            "the other"
        )
