"""What a run leaves: results of each slice or volume, and tables that are whole at any moment."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lungseg.answers import File
from lungseg.cli.errors import UsageError
from lungseg.cli.streams import STREAM, check_output, named_in_errors, write_output
from lungseg.formats.table import Table, as_cell, csv_lines

TABLE = "statistics.csv"
JSON = "application/json"
SEPARATOR = "; "
"""Between the names of several results in a cell."""
SHOWN = 3
"""Results in the way that are named before the others are only counted."""


@dataclass(slots=True, kw_only=True)
class Outputs:
    """Where results and rows go.

    Attributes:
        folder: of results, each named relative to it; None for standard output.
        prints: whether results go to standard output where there is no folder.
        table: the kind of tables.
        tables: paths of tables of statistics, ``-`` for standard output.
        targets: the results' names for each input, in the folder.
    """

    folder: Path | None
    prints: bool
    table: Table
    tables: Sequence[str]
    targets: Mapping[str, Sequence[str]]
    _kept: list[list[Any]] = field(default_factory=list[list[Any]])
    _begun: bool = False

    def check(self, sources: Sequence[Path], *, keep: bool) -> None:
        """Makes sure that nothing is in the way.

        Args:
            sources: the inputs' files, which no result may overwrite.
            keep: results that exist already are all right.

        Raises:
            UsageError: something is in the way, or standard output is closed and needed.
        """
        if self.prints or STREAM in self.tables:
            check_output()
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"expected a folder for -o, received {self.folder}: it is a file")
        results = {os.path.realpath(path) for path in self._results()}
        for table in map(Path, self.tables):
            if table.is_dir():
                raise UsageError(f"expected a file for --csv, received {table}: it is a folder")
            if os.path.realpath(table) in results:
                raise UsageError(f"expected another place for --csv: {table} is a result's")
        taken = self._taken()
        inputs = {_identity(path) for path in sources} if taken else set[tuple[int, int]]()
        for path in taken:
            if _identity(path) in inputs:
                raise UsageError(f"expected another place for results: {path} is an input itself")
        if taken and not keep:
            more = f" and {len(taken) - SHOWN} more" if len(taken) > SHOWN else ""
            raise UsageError(
                f"{', '.join(map(str, taken[:SHOWN]))}{more} would be overwritten: --skip-existing "
                "goes on with what is left, --force overwrites"
            )

    def keep_done(self) -> set[str]:
        """Names of inputs that have results and row already; their rows stay in the tables.

        Rows of inputs that this run does not know stay too.

        Raises:
            UsageError: the folder's table is none that can be continued.
        """
        if self.folder is None or not (table := self.folder / TABLE).exists():
            return set()
        try:
            rows = self.table.read(table.read_bytes().decode(errors="replace"))
        except ValueError as error:
            raise UsageError(f"{table}: {error}; --force begins a new one") from None
        ours = {as_cell(name): name for name in self.targets}
        done: set[str] = set()
        for row in rows:
            name = ours.get(row["filename"])
            if name is None or self._is_done(row, self.targets[name]):
                self._kept.append(list(row.values()))
                done |= {name} if name is not None else set[str]()
        return done

    def write(self, name: str, results: Sequence[File]) -> str:
        """Writes the results of one input, each whole or not at all; returns their names."""
        if self.folder is not None:
            for target, result in zip(self.targets[name], results, strict=True):
                place = self.folder / target
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_file(place, result.content)
            return SEPARATOR.join(self.targets[name])
        for result in results if self.prints else ():
            content = result.content
            if result.media_type == JSON:
                answer = {"filename": name, **json.loads(content)}
                content = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
            write_output(content)
        return ""

    def begin(self) -> None:
        """Begins each table with the rows that are kept."""
        if not self._begun:
            self._begun = True
            for table in self.tables:
                _begin(table, csv_lines([self.table.columns, *self._kept]))

    def add(self, name: str, answer: Mapping[str, Any]) -> None:
        """Adds a row to each table, which is whole after it."""
        rows = [self.table.row(name, answer)]
        self.begin()
        for table in self.tables:
            _append(table, csv_lines(rows))

    def _is_done(self, row: Mapping[str, str], targets: Sequence[str]) -> bool:
        if self.folder is None or row["error"] or row["result"] != as_cell(SEPARATOR.join(targets)):
            return False
        return all((self.folder / target).is_file() for target in targets)

    def _taken(self) -> list[Path]:
        """Results and tables that are there already."""
        places = [Path(table) for table in self.tables if table != STREAM]
        # what is no plain file, such as /dev/null, is nothing that could be lost
        taken = [place for place in places if place.is_file()]
        return taken + [path for path in self._results() if os.path.lexists(path)]

    def _results(self) -> list[Path]:
        """Where results go."""
        if self.folder is None:
            return []
        return [self.folder / target for targets in self.targets.values() for target in targets]


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere is the same as nothing
        return (-1, id(path))
    return (status.st_dev, status.st_ino)


def _begin(table: str, text: str) -> None:
    if table == STREAM:
        write_output(text.encode())
        return
    path = Path(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        _append(table, text)
    else:
        replace_file(path, text.encode())


def _append(table: str, text: str) -> None:
    if table == STREAM:
        write_output(text.encode())
        return
    with named_in_errors(table), Path(table).open("ab") as stream:
        stream.write(text.encode())


def replace_file(target: Path, content: bytes) -> None:
    """Writes beside the target first: who looks at it sees the old file or the new one."""
    part = target.with_name(f".lungseg-{secrets.token_hex(8)}.part")  # on whatever machine
    with named_in_errors(str(target)):
        try:
            part.write_bytes(content)
            part.replace(target)
        finally:  # which fails as well where nothing can be written
            part.unlink(missing_ok=True)
