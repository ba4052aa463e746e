"""The studies of an index, each done once, whatever ends a run.

Nothing is remembered but by the folder of results: a study is done when its marker is there, which
is written after its results. Tables are made of markers, and so are whole after each run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.cli.outputs import replace_file
from lungseg.cli.streams import say
from lungseg.formats.names import archive_name
from lungseg.formats.parquet import can_write, parquet
from lungseg.formats.table import VOLUMES, as_cell, csv_lines, read_rows
from lungseg.query import ModelQuery
from lungseg.sources import VolumeSource, files_of, walk
from lungseg.volume_forms import VOLUME_FORMS
from lungseg.volume_query import VolumeQuery

STUDY, PATH = "study", "path"
"""Columns that every index has."""
ASKED = VolumeQuery.model_fields.keys() - ModelQuery.model_fields.keys() | {"threshold"}
"""Columns that ask something of a study, where they are not empty; a run has but one model."""
Record = dict[str, Any]
"""What a marker says."""
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


def read_index(index: Path) -> list[Study]:
    """The studies of an index, whose paths are relative to the folder in which it lies.

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
    asked = [name for name in columns if name in ASKED]
    if others := [name for name in columns if name not in (STUDY, PATH, *asked)]:
        say(f"lungseg: columns that ask nothing: {', '.join(others)}")
    return [
        Study(
            name=row[STUDY],
            path=index.parent / row[PATH],
            parameters={name: row[name] for name in asked if row[name]},
        )
        for row in rows
    ]


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

    def find(self, stem: str, *, failed: bool) -> Record | None:
        """The marker of a study that has all results that are asked for, or none for a reason."""
        try:
            record = json.loads((self.folder / (stem + MARKER)).read_bytes())
        except (OSError, ValueError):
            return None
        there = all((self.folder / target).is_file() for target in self.targets(stem))
        return record if (failed if record["reason"] else there) else None

    def mark(
        self, task: tuple[Study, str], answer: Mapping[str, Any], reason: str | None = None
    ) -> Record:
        """Writes a marker: the row, why there is no result, and what was asked of which model."""
        study, stem = task
        row = dict(zip(VOLUMES.columns, VOLUMES.row(study.name, answer), strict=True))
        asked = {**self.parameters, **study.parameters}
        record = {"row": row, "reason": reason, "model": self.model, "parameters": asked}
        place = self.folder / (stem + MARKER)
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, json.dumps(record).encode())
        return record


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each file of a study, in order; none where nothing is there."""
    with suppress(OSError):
        found = walk(path) if path.is_dir() else [path]
        states = ((os.path.relpath(file, path), file.stat()) for file in found)
        return sorted((name, state.st_size, state.st_mtime_ns) for name, state in states)
    return []


def tables(records: Sequence[Record], shard: tuple[int, int]) -> dict[str, bytes]:
    """The tables of a shard by name: statistics of all its studies, and those without a result."""
    part = "" if shard[1] == 1 else f"-{shard[0]}-of-{shard[1]}"
    rows = [record["row"] for record in records]
    if can_write():
        found = {f"statistics{part}.parquet": parquet(VOLUMES.kinds, rows)}
    else:
        cells = ([row.get(name) for name in VOLUMES.columns] for row in rows)
        found = {f"statistics{part}.csv": csv_lines([VOLUMES.columns, *cells]).encode()}
    failed = [[STUDY, "error", "reason"]]
    for record in records:
        if record["reason"]:
            row = record["row"]
            failed.append([row["filename"], row["error"], as_cell(record["reason"])])
    return {**found, f"failures{part}.csv": csv_lines(failed).encode()}
