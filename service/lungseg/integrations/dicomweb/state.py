"""What has become of each series, in SQLite: it survives whatever ends the process."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PENDING, DONE, FAILED = "pending", "done", "failed"
_TABLE = """CREATE TABLE IF NOT EXISTS work (
    root TEXT, series TEXT, instances TEXT, model TEXT, study TEXT,
    state TEXT, attempts INTEGER, code TEXT, due REAL, changed REAL,
    PRIMARY KEY (root, series, instances, model))"""
_IS = "root = ? AND series = ? AND instances = ? AND model = ?"


class Key(NamedTuple):
    """One piece of work."""

    root: str
    series: str
    instances: str
    """Digest of the sorted UIDs of its instances."""
    model: str


class Row(NamedTuple):
    """How far it is."""

    state: str = PENDING
    attempts: int = 0
    """Counted when they begin: what ends the process each time fails in the end."""
    code: str = ""
    """Of the last failure."""
    due: float = 0.0
    """When the next attempt may begin, in seconds since 1970."""


class State:
    """The file; several processes may use it at a time."""

    def __init__(self, file: Path | None) -> None:
        if file is not None:  # it names patients' series
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(file or ":memory:", timeout=60)
        with self._database as database:
            database.execute(_TABLE)

    def find(self, key: Key) -> Row | None:
        """How far a piece of work is; None where it is new."""
        query = f"SELECT state, attempts, code, due FROM work WHERE {_IS}"  # noqa: S608 - no input
        found = self._database.execute(query, key).fetchone()
        return None if found is None else Row(*found)

    def put(self, key: Key, study: str, row: Row) -> None:
        """Writes how far it is."""
        with self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, study, *row, time.time()),
            )

    def counts(self) -> dict[str, int]:
        """How many pieces of work are in each state."""
        query = "SELECT state, count(*) FROM work GROUP BY state"
        return dict.fromkeys((DONE, PENDING, FAILED), 0) | dict(self._database.execute(query))

    def left(self) -> Iterator[tuple[str, int, str, str, str, str, str]]:
        """State, attempts, code, time, root, study and series of all that is not done."""
        query = """SELECT state, attempts, code, datetime(changed, 'unixepoch'), root,
            study, series FROM work WHERE state != 'done' ORDER BY changed"""
        yield from self._database.execute(query)
