"""From series of an archive to results beside them, once for each set of instances and model."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.places import Place
from lungseg.cli.streams import say
from lungseg.core.errors import LungsegError, NotCT
from lungseg.integrations.dicomweb.archive import (
    ATTEMPTS,
    Archive,
    Refused,
    Root,
    is_passing,
    value_of,
)

PENDING, DONE, FAILED = "pending", "done", "failed"
_INSTANCE, _STUDY, _SERIES, _COUNT = "00080018", "0020000D", "0020000E", "00201209"
_TABLE = """CREATE TABLE IF NOT EXISTS work (root, series, instances, model, study, state, attempts,
    code, changed, PRIMARY KEY (root, series, instances, model))"""
_ROW = """SELECT state, attempts, code FROM work
    WHERE root = ? AND series = ? AND instances = ? AND model = ?"""
_PUT = "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?, ?, ?, ?, ?, datetime())"
_LEFT = """SELECT state, attempts, code, changed, root, study, series FROM work
    WHERE state != 'done' ORDER BY changed"""
Key = tuple[str, str, str, str]
"""One piece of work: root, series, a digest of its instances' UIDs, and model."""


class Row(NamedTuple):
    """How far it is, the attempts begun, and the last failure."""

    state: str = PENDING
    attempts: int = 0
    code: str = ""


class State:
    """What has become of each series, in SQLite: it survives whatever ends the process."""

    def __init__(self, file: Path | None) -> None:
        if file is not None:  # it names patients' series
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(file or ":memory:", timeout=60, isolation_level=None)
        self._database.execute(_TABLE)

    def find(self, key: Key) -> Row:
        """How far a piece of work is."""
        return Row(*self._database.execute(_ROW, key).fetchone() or ())

    def put(self, key: Key, study: str, row: Row) -> None:
        """Writes how far it is."""
        self._database.execute(_PUT, (*key, study, *row))

    def left(self) -> list[tuple[Any, ...]]:
        """State, attempts, code, time, root, study and series of what is not done."""
        return self._database.execute(_LEFT).fetchall()


class Series(NamedTuple):
    """A series of an archive."""

    study: str
    uid: str
    images: int

    def __str__(self) -> str:
        """As it may be told: a UID leads to a patient."""
        return f"series {hashlib.sha256(self.uid.encode()).hexdigest()[:12]}"

    @property
    def path(self) -> str:
        """Below the root."""
        return f"/studies/{self.study}/series/{self.uid}"


@dataclass(frozen=True, slots=True)
class Worker:
    """Works on the series of one root; a dry one stores nothing."""

    name: str
    root: Root
    archive: Archive
    place: Place
    state: State
    dry: bool

    def finish(self, study: str, named: str | None) -> int:
        """Works on a study's series, or on the one that is named; returns the exit code."""
        query = self.root.series if named is None else {"SeriesInstanceUID": named}
        model, states = self.place.model(), set[str]()
        for series in self._series_of(study, query):
            while (row := self._work_on(series, model, again=True)).state == PENDING:
                time.sleep(self.archive.pause_s(row.attempts))
            states.add(row.state)
        if not states:
            raise UsageError(f"expected CT series in that study of {self.name}, received none")
        return SOME_FAILED if FAILED in states else OK

    def watch(self, query: Mapping[str, str]) -> NoReturn:
        """Works on series as soon as two looks in a row see the same number of instances."""
        seen, settled = set[tuple[Series, str]](), set[tuple[Series, str]]()
        while True:
            try:
                model, before = self.place.model(), seen
                studies = self.archive.search("/studies", query, _STUDY)
                found = (self._series_of(study, self.root.series) for study in studies)
                seen = {(series, model) for some in found for series in some}
                settled &= seen
                for series, _ in sorted((seen & before) - settled):
                    if self._work_on(series, model, again=False).state != PENDING:
                        settled.add((series, model))
            except (Refused, UsageError) as error:
                say(f"lungseg: {self.name}: {error}, again in {self.root.poll_s:g} s")
            time.sleep(self.root.poll_s)

    def _series_of(self, study: str, query: Mapping[str, str]) -> Iterator[Series]:
        asked = {**query, "includefield": _COUNT}
        for uid, item in self.archive.search(f"/studies/{study}/series", asked, _SERIES).items():
            series, number = Series(study, uid, 0), value_of(item, _COUNT)
            counted = number if isinstance(number, int) else len(self._instances(series))
            yield series._replace(images=counted)

    def _instances(self, series: Series) -> list[str]:
        return sorted(self.archive.search(f"{series.path}/instances", {}, _INSTANCE))

    def _work_on(self, series: Series, model: str, *, again: bool) -> Row:
        """Makes one attempt at a series that is not done, again also where it failed before."""
        instances = self._instances(series)
        digest = hashlib.sha256(" ".join(instances).encode()).hexdigest()
        key = self.name, series.uid, digest, model
        row = self.state.find(key)
        if row.state == DONE or (row.state == FAILED and not again):
            say(f"{series}: {row.state} already")
            return row
        row = row if row.state == PENDING else Row()
        begun = row._replace(attempts=row.attempts + 1)
        # Counted at once: it may be what ends this process, each time.
        self.state.put(key, series.study, begun)
        try:
            row = self._attempt(series._replace(images=len(instances)), model, begun)
        finally:
            self.state.put(key, series.study, row)
        return row

    def _attempt(self, series: Series, model: str, row: Row) -> Row:
        try:
            if row.attempts > ATTEMPTS:
                raise Refused("ended")
            seg, sr = self.place.fetch(self.archive.retrieve(series.path, series.images))
            if {result.summary["model"]["sha256"] for result in (seg, sr)} != {model}:
                raise Refused("model_changed", passing=True)
            if not self.dry:  # the report first: whoever finds the SEG may rely on it
                self.archive.store(f"/studies/{series.study}", [sr.content, seg.content])
        except (Refused, LungsegError, MemoryError) as error:
            code = getattr(error, "code", "memory")
            passing = getattr(error, "passing", is_passing(getattr(error, "status", 0)))
            state = PENDING if passing and row.attempts < ATTEMPTS else FAILED
            if code == NotCT.code:  # such as a localizer, of which nothing is wanted
                state = DONE
        else:
            state, code = DONE, ""
        said = "would be stored" if self.dry and not code else f"{state} {code}".rstrip()
        say(f"{series} of {series.images} instances: {said}")
        return row._replace(state=state, code=code)
