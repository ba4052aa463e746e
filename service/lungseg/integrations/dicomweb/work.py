"""From series of an archive to results beside them, once for each set of instances and model."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from lungseg.calling import ServiceError
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.places import Place
from lungseg.cli.streams import say
from lungseg.core.errors import LungsegError
from lungseg.formats.dicom_derived import MANUFACTURER
from lungseg.formats.dicom_seg import SERIES_NUMBER
from lungseg.integrations.dicomweb import archive as web
from lungseg.integrations.dicomweb.archive import (
    Archive,
    Refused,
    Root,
    items_of,
    uid_of,
    value_of,
)

PENDING, DONE, FAILED = "pending", "done", "failed"
LEAST_IMAGES = 10
"""Series of fewer single images, such as localisers, are left out unless they are named."""
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = "00080016", "00080018", "0020000D", "0020000E"
_COUNT, _MANUFACTURER, _SERIAL = "00201209", "00080070", "00181000"
_SOURCES, _INSTANCES, _INSTANCE = "00081115", "0008114A", "00081155"
_TABLE = """CREATE TABLE IF NOT EXISTS work (root, series, instances, model, study, state, attempts,
    code, due, changed, PRIMARY KEY (root, series, instances, model))"""
_ROW = """SELECT state, attempts, code, due FROM work
    WHERE root = ? AND series = ? AND instances = ? AND model = ?"""
_PUT = "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LEFT = """SELECT state, attempts, code, datetime(changed, 'unixepoch'), root, study, series
    FROM work WHERE state != 'done' ORDER BY changed"""


Key = tuple[str, str, str, str]
"""One piece of work: root, series, a digest of its instances' UIDs, and model."""


class Row(NamedTuple):
    """How far it is, the attempts begun, the last failure, and when it is due, since 1970."""

    state: str = PENDING
    attempts: int = 0
    code: str = ""
    due: float = 0.0


class State:
    """What has become of each series, in SQLite: it survives whatever ends the process."""

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

    def counts(self) -> dict[str, int]:
        """How many pieces of work are in each state."""
        found = self._database.execute("SELECT state, count(*) FROM work GROUP BY state")
        return dict.fromkeys((DONE, PENDING, FAILED), 0) | dict(found)

    def told(self) -> Iterator[str]:
        """State, attempts, code, time, root, study and series of what is not done; the counts."""
        yield from ("\t".join(map(str, row)) for row in self._database.execute(_LEFT))
        yield ", ".join(f"{number} {state}" for state, number in self.counts().items())


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
        for series in [*self._series_of(study, query)]:
            least = 0 if named else LEAST_IMAGES
            while (row := self._work_on(series, model, least, again=True)).state == PENDING:
                time.sleep(max(0.0, row.due - time.time()))
            states.add(row.state)
        if not states:
            raise UsageError(f"expected CT series in that study of {self.name}, received none")
        return SOME_FAILED if FAILED in states else OK

    def watch(self, query: Mapping[str, str]) -> NoReturn:
        """Works on series as soon as two looks in a row see the same number of instances."""
        seen: dict[str, tuple[int, str]] = {}
        while True:
            try:
                seen = dict(self._look(query, seen))
            except (Refused, UsageError) as error:
                say(f"lungseg: {self.name}: {error}, again in {self.root.poll_s:g} s")
            time.sleep(self.root.poll_s)

    def _look(
        self, query: Mapping[str, str], seen: Mapping[str, tuple[int, str]]
    ) -> Iterator[tuple[str, tuple[int, str]]]:
        """Of each series how many instances there are, and by which model it is settled."""
        model = self.place.model()
        for study, _ in [*self.archive.search("/studies", query, _STUDY)]:
            for series in [*self._series_of(study, self.root.series)]:
                number, settled = seen.get(series.uid, (-1, ""))
                if number != series.images:
                    settled = ""
                elif settled != model:
                    try:
                        row = self._work_on(series, model, LEAST_IMAGES, again=False)
                        settled = "" if row.state == PENDING else model
                    except Refused as error:
                        say(f"{series}: {error}")
                yield series.uid, (series.images, settled)

    def _series_of(self, study: str, query: Mapping[str, str]) -> Iterator[Series]:
        asked = {**query, "includefield": _COUNT}
        for uid, item in self.archive.search(f"/studies/{study}/series", asked, _SERIES):
            series, said = Series(study, uid, 0), value_of(item, _COUNT)
            number = said if isinstance(said, int) else len(self._classes(series))
            yield series._replace(images=number)

    def _classes(self, series: Series) -> dict[str, str]:
        """The classes of a series' instances, by their UIDs."""
        found = self.archive.search(f"{series.path}/instances", {}, _SOP_INSTANCE)
        return {uid: str(value_of(item, _SOP_CLASS)) for uid, item in found}

    def _work_on(self, series: Series, model: str, least: int, *, again: bool) -> Row:
        """Does what is to be done of a series now, again also where it failed before."""
        classes = self._classes(series)
        series = series._replace(images=len(classes))
        if series.images < least and CT_IMAGE in classes.values():
            say(f"{series}: left out, it has {series.images} images")
            return Row(DONE)
        digest = hashlib.sha256(" ".join(sorted(classes)).encode()).hexdigest()
        key = self.name, series.uid, digest, model
        row = self.state.find(key)
        if row is None and self._is_there(series, {*classes}, model):
            row = Row(DONE)
            self.state.put(key, series.study, row)
        if row is not None and (row.state == DONE or (row.state == FAILED and not again)):
            say(f"{series}: {row.state} already")
            return row
        row = row if row is not None and row.state == PENDING else Row()
        if row.due > time.time():
            return row
        # Counted at once: it may be what ends this process, each time.
        self.state.put(key, series.study, row._replace(attempts=row.attempts + 1))
        try:
            row = self._attempt(series, model, row._replace(attempts=row.attempts + 1))
        finally:
            self.state.put(key, series.study, row)
        return row

    def _attempt(self, series: Series, model: str, row: Row) -> Row:
        passing, asked_s = False, 0.0
        try:
            if row.attempts > web.ATTEMPTS:
                raise Refused("ended")
            seg, sr = self.place.fetch(self.archive.retrieve(series.path, series.images))
            if {result.summary["model"]["sha256"] for result in (seg, sr)} != {model}:
                raise Refused("model_changed", passing=True)
            if not self.dry:  # the report first: whoever finds the SEG may rely on it
                self.archive.store(f"/studies/{series.study}", [sr.content, seg.content])
        except (Refused, LungsegError, MemoryError) as error:
            code = getattr(error, "code", "memory")
            if isinstance(error, Refused):
                passing, asked_s = error.passing, error.pause_s
            elif isinstance(error, ServiceError):
                passing = web.is_passing(error.status)
        else:
            say(f"{series}: {'would be ' * self.dry}stored, of {series.images} instances")
            return row._replace(state=DONE, code="")
        if not passing or row.attempts >= web.ATTEMPTS:
            say(f"{series}: failed, {code}")
            return row._replace(state=FAILED, code=code)
        pause_s = self.archive.pause_s(row.attempts, asked_s)
        say(f"{series}: {code}, again in {pause_s:g} s")
        return row._replace(code=code, due=time.time() + pause_s)

    def _is_there(self, series: Series, instances: set[str], model: str) -> bool:
        """Whether the archive has our SEG of these very instances, by this model."""
        query = {"Modality": "SEG", "SeriesNumber": str(SERIES_NUMBER)}
        try:
            for uid, _ in self.archive.search(f"/studies/{series.study}/series", query, _SERIES):
                for item in self.archive.ask(f"{series._replace(uid=uid).path}/metadata", {}):
                    sources = items_of(value_of(item, _SOURCES), _INSTANCES)
                    maker = value_of(item, _MANUFACTURER), value_of(item, _SERIAL)
                    same = {uid_of(source, _INSTANCE) for source in sources} == instances
                    if same and maker == (MANUFACTURER, model[:16]):
                        return True
        except Refused:
            pass  # then it is computed and sent again, which leaves no second one
        return False
