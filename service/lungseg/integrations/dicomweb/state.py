"""What has become of each series, in SQLite: it survives whatever ends the process."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple

PENDING, DONE, FAILED = "pending", "done", "failed"
_TABLE = """CREATE TABLE IF NOT EXISTS work (root, series, instances, model, study, state, attempts,
    code, due, changed, PRIMARY KEY (root, series, instances, model))"""
_ROW = """SELECT state, attempts, code, due FROM work
    WHERE root = ? AND series = ? AND instances = ? AND model = ?"""
_PUT = "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LEFT = """SELECT state, attempts, code, datetime(changed, 'unixepoch'), root, study, series
    FROM work WHERE state != 'done' ORDER BY changed"""


class Key(NamedTuple):
    """One piece of work, by root, series, digest of its instances' UIDs, and model."""

    root: str
    series: str
    instances: str
    model: str


class Row(NamedTuple):
    """How far it is, the attempts begun, the last failure, and when it is due, since 1970."""

    state: str = PENDING
    attempts: int = 0
    code: str = ""
    due: float = 0.0


class State:
    """The file, which several processes may use at a time; None keeps nothing."""

    def __init__(self, file: Path | None) -> None:
        if file is not None:  # it names patients' series
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(file or ":memory:", timeout=60, isolation_level=None)
        self._database.execute(_TABLE)

    def find(self, key: Key) -> Row | None:
        """How far a piece of work is; None where it is new."""
        found = self._database.execute(_ROW, key).fetchone()
        return None if found is None else Row(*found)

    def put(self, key: Key, study: str, row: Row) -> None:
        """Writes how far it is."""
        self._database.execute(_PUT, (*key, study, *row, time.time()))

    def left(self) -> list[tuple[Any, ...]]:
        """State, attempts, code, time, root, study and series of all that is not done."""
        return self._database.execute(_LEFT).fetchall()

    def counts(self) -> dict[str, int]:
        """How many pieces of work are in each state."""
        found = self._database.execute("SELECT state, count(*) FROM work GROUP BY state")
        return dict.fromkeys((DONE, PENDING, FAILED), 0) | dict(found)
