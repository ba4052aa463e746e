"""The studies of an index, each done once, whatever ends a run.

Nothing is remembered but by the folder of results: a study is done when its marker is there, which
is written after its results. Tables are made of markers, and so are whole after each run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.cli.outputs import replace_file
from lungseg.formats.names import archive_name
from lungseg.formats.parquet import can_write, parquet
from lungseg.formats.table import VOLUMES, as_cell, csv_lines, read_rows
from lungseg.sources import VolumeSource, files_of, walk
from lungseg.volume_forms import VOLUME_FORMS

STUDY, PATH = "study", "path"
"""Columns that every index has."""
MARKER = ".done.json"
DIGITS = 16
"""Of a digest in names of results: in a million studies two are the same once in thirty million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One row of an index.

    Attributes:
        name: what it is called in tables.
        path: a file, or a folder of files.
        parameters: what is asked of it in particular.
    """

    name: str
    path: Path
    parameters: Mapping[str, str]

    def read(self) -> tuple[VolumeSource, Mapping[str, str]]:
        """Where its content is, and what is asked of it.

        Raises:
            OSError: there is no such file or folder.
        """
        return files_of(self.path), self.parameters


def read_index(index: Path, parameters: Collection[str]) -> tuple[list[Study], list[str]]:
    """The studies of an index, and the columns that mean nothing here.

    Args:
        index: a table; its paths are relative to the folder in which it lies.
        parameters: names of columns that ask something of a study, where they are not empty.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no index.
    """
    rows = read_rows(index.read_text(encoding="utf-8", errors="surrogateescape"))
    columns = [*rows[0]] if rows else []
    if not {STUDY, PATH} <= {*columns}:
        raise ValueError(f"expected rows with the columns {STUDY} and {PATH}")
    if empty := [number for number, row in enumerate(rows, 2) if not (row[STUDY] and row[PATH])]:
        raise ValueError(f"expected {STUDY} and {PATH} in each row, received none in {empty[0]}")
    times = Counter(row[STUDY] for row in rows)
    if twice := [name for name, count in times.items() if count > 1]:
        raise ValueError(f"two rows are called {twice[0]}")
    asked = [name for name in columns if name in parameters]
    studies = [
        Study(
            name=row[STUDY],
            path=index.parent / row[PATH],
            parameters={name: row[name] for name in asked if row[name]},
        )
        for row in rows
    ]
    return studies, [name for name in columns if name not in (STUDY, PATH, *asked)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What the folder of results says of studies, for one model, its parameters and forms."""

    folder: Path
    model: str
    """Its SHA-256."""
    parameters: Mapping[str, Any]
    forms: Sequence[str]

    def stem(self, study: Study) -> str:
        """Its name with a digest of source, model and parameters: others do not meet it.

        The source is known by names, sizes and times of its files, for contents take too long.
        """
        asked = {**self.parameters, **study.parameters}
        said = {name: value for name, value in asked.items() if value is not None}
        told = [study.name, self.model, said, *_files(study.path)]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
        return f"{archive_name(study.name, 0)}-{digest.hexdigest()[:DIGITS]}"

    def targets(self, stem: str) -> list[str]:
        """Names of its results, in the order of the forms."""
        return [stem + VOLUME_FORMS[form].suffix for form in self.forms]

    def find(self, stem: str) -> dict[str, Any] | None:
        """What a marker says of a study that is done, with all results that are asked for."""
        try:
            record = json.loads((self.folder / (stem + MARKER)).read_bytes())
        except (OSError, ValueError):
            return None
        there = all((self.folder / target).is_file() for target in self.targets(stem))
        return record if record["reason"] or there else None

    def mark(
        self, study: Study, stem: str, answer: Mapping[str, Any], reason: str | None = None
    ) -> dict[str, Any]:
        """Writes a marker: the row, why there is no result, and what was asked of which model."""
        row = dict(zip(VOLUMES.columns, VOLUMES.row(study.name, answer), strict=True))
        asked = {**self.parameters, **study.parameters}
        record = {"row": row, "reason": reason, "model": self.model, "parameters": asked}
        place = self.folder / (stem + MARKER)
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, json.dumps(record).encode())
        return record


def _files(path: Path) -> list[list[Any]]:
    """Name, size and time of each file of a study, in order; none where nothing is there."""
    with suppress(OSError):
        if not path.is_dir():
            return [[path.name, *_state(path)]]
        found = ((file.relative_to(path).as_posix(), file) for file in walk(path))
        return sorted([name, *_state(file)] for name, file in found)
    return []


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def tables(records: Sequence[Mapping[str, Any]], shard: tuple[int, int]) -> dict[str, bytes]:
    """The tables of a shard by name: statistics of all its studies, and those without a result."""
    number, shards = shard
    part = "" if shards == 1 else f"-{number}-of-{shards}"
    rows = [record["row"] for record in records]
    if can_write():
        statistics = {f"statistics{part}.parquet": parquet(VOLUMES.kinds, rows)}
    else:
        cells = ([row.get(name) for name in VOLUMES.columns] for row in rows)
        statistics = {f"statistics{part}.csv": csv_lines([VOLUMES.columns, *cells]).encode()}
    failed = [
        (record["row"]["filename"], record["row"]["error"], as_cell(record["reason"]))
        for record in records
        if record["reason"] is not None
    ]
    lines = csv_lines([(STUDY, "error", "reason"), *failed])
    return {**statistics, f"failures{part}.csv": lines.encode()}
