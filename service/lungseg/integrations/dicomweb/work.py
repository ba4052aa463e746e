"""From series of an archive to results beside them, once for each set of instances and model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple, NoReturn, TypeVar

from lungseg.calling import ServiceError
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.places import Place
from lungseg.cli.streams import say
from lungseg.core.errors import LungsegError
from lungseg.formats.dicom_derived import MANUFACTURER
from lungseg.formats.dicom_seg import SERIES_NUMBER
from lungseg.integrations.dicomweb.archive import (
    Archive,
    Refused,
    is_passing,
    items_of,
    uid_of,
    value_of,
)
from lungseg.integrations.dicomweb.roots import Root
from lungseg.integrations.dicomweb.state import DONE, FAILED, PENDING, Key, Row, State

T = TypeVar("T")
ATTEMPTS = 5
LEAST_IMAGES = 10
"""Series of fewer single images, such as localisers, are left out unless they are named."""
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = "00080016", "00080018", "0020000D", "0020000E"
_COUNT, _MANUFACTURER, _SERIAL = "00201209", "00080070", "00181000"
_SOURCES, _INSTANCES, _INSTANCE = "00081115", "0008114A", "00081155"
Seen = dict[str, tuple[int, str]]
"""Of each series how many instances a watch saw, and with which model they are settled."""


class Series(NamedTuple):
    """A series of an archive."""

    study: str
    uid: str
    images: int
    """Of its instances."""

    def __str__(self) -> str:
        """As it may be told: a UID leads to a patient."""
        return f"series {hashlib.sha256(self.uid.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Works on the series of one root."""

    name: str
    root: Root
    archive: Archive
    place: Place
    state: State
    dry: bool
    """Whether nothing is stored."""

    def finish(self, study: str, named: str | None) -> int:
        """Works on a study's series, or on the one that is named; returns the exit code.

        Raises:
            Refused, UsageError: the archive does not say what it has; nobody computes.
        """
        query = self.root.query if named is None else {"SeriesInstanceUID": named}
        found = self._patiently(lambda: self._series_of(study, query))
        if not found:
            raise UsageError(f"expected CT series in that study of {self.name}, received none")
        model, least = self.place.model(), 0 if named else LEAST_IMAGES
        states: set[str] = set()
        for series in found:
            work = partial(self._work_on, series, model, least=least, again=True)
            while (row := self._patiently(work)).state == PENDING:
                time.sleep(max(0.0, row.due - time.time()))
            states.add(row.state)
        return SOME_FAILED if FAILED in states else OK

    def watch(self, query: Mapping[str, str]) -> NoReturn:
        """Works on series as soon as two looks in a row see the same number of instances."""
        seen: Seen = {}
        while True:
            try:
                seen = self._look(query, seen)
            except (Refused, UsageError) as error:
                say(f"lungseg: {self.name}: {error}, again in {self.root.poll_s:g} s")
            time.sleep(self.root.poll_s)

    def _look(self, query: Mapping[str, str], seen: Seen) -> Seen:
        model, now = self.place.model(), Seen()
        for item in self.archive.search("/studies", query, _STUDY):
            for series in self._series_of(uid_of(item, _STUDY), self.root.query):
                number, settled = seen.get(series.uid, (-1, ""))
                if number != series.images:
                    settled = ""
                elif settled != model:
                    try:
                        row = self._work_on(series, model, least=LEAST_IMAGES, again=False)
                        settled = "" if row.state == PENDING else model
                    except Refused as error:
                        say(f"{series}: {error}")
                now[series.uid] = series.images, settled
        return now

    def _series_of(self, study: str, query: Mapping[str, str]) -> list[Series]:
        asked = {**query, "includefield": _COUNT}
        found: list[Series] = []
        for item in self.archive.search(f"/studies/{study}/series", asked, _SERIES):
            uid, number = uid_of(item, _SERIES), value_of(item, _COUNT)
            found.append(Series(study, uid, int(number or len(self._instances(study, uid)))))
        return found

    def _instances(self, study: str, series: str) -> dict[str, str]:
        """The UIDs of a series' instances, with their classes."""
        path = f"/studies/{study}/series/{series}/instances"
        found = self.archive.search(path, {}, _SOP_INSTANCE)
        return {uid_of(item, _SOP_INSTANCE): str(value_of(item, _SOP_CLASS)) for item in found}

    def _work_on(self, series: Series, model: str, *, least: int, again: bool) -> Row:
        """Does what is to be done of a series now, and says what came of it.

        Args:
            series: of the archive.
            model: the SHA-256 of the one that answers.
            least: so many images it must have.
            again: what failed before is tried once more.

        Raises:
            Refused: the archive does not say what the series holds.
            UsageError: nobody computes; that is no attempt.
        """
        instances = self._instances(series.study, series.uid)
        if len(instances) < least and CT_IMAGE in instances.values():
            say(f"{series}: left out, it has {len(instances)} images")
            return Row(DONE)
        digest = hashlib.sha256(" ".join(sorted(instances)).encode()).hexdigest()
        key = Key(self.name, series.uid, digest, model)
        row = self.state.find(key)
        if row is None and self._is_there(series, {*instances}, model):
            row = Row(DONE)
            self.state.put(key, series.study, row)
        if row is not None and (row.state == DONE or (row.state == FAILED and not again)):
            say(f"{series}: {row.state} already")
            return row
        if row is None or row.state == FAILED:
            row = Row()
        if row.due <= time.time():
            series = series._replace(images=len(instances))
            row = self._attempt(series, key, row._replace(attempts=row.attempts + 1))
            self.state.put(key, series.study, row)
        return row

    def _attempt(self, series: Series, key: Key, row: Row) -> Row:
        self.state.put(key, series.study, row)
        passing, asked_s = False, 0.0
        try:
            size = self._answer(series, key.model)
        except UsageError:
            self.state.put(key, series.study, row._replace(attempts=row.attempts - 1))
            raise
        except Refused as error:
            code, passing, asked_s = error.code, error.passing, error.pause_s
        except ServiceError as error:
            code, passing = error.code, is_passing(error.status)
        except LungsegError as error:
            code = error.code
        except MemoryError:
            code = "memory"
        else:
            would = "would be " if self.dry else ""
            say(f"{series}: {would}stored, {size} bytes of {series.images} instances")
            return row._replace(state=DONE, code="")
        if not passing or row.attempts >= ATTEMPTS:
            say(f"{series}: failed, {code}")
            return row._replace(state=FAILED, code=code)
        pause_s = self._pause_s(asked_s, row.attempts)
        say(f"{series}: {code}, again in {pause_s:g} s")
        return row._replace(code=code, due=time.time() + pause_s)

    def _answer(self, series: Series, model: str) -> int:
        """Retrieves, computes and stores; returns the bytes of the results."""
        files = self.archive.retrieve(series.study, series.uid, series.images)
        seg, sr = self.place.fetch(files)
        if {result.summary["model"]["sha256"] for result in (seg, sr)} != {model}:
            raise Refused("model_changed", passing=True)
        contents = [sr.content, seg.content]  # whoever finds the SEG may rely on the SR
        if not self.dry:
            self.archive.store(series.study, contents)
        return sum(map(len, contents))

    def _is_there(self, series: Series, instances: set[str], model: str) -> bool:
        """Whether the archive has our SEG of these very instances, by this model."""
        query = {"Modality": "SEG", "SeriesNumber": str(SERIES_NUMBER)}
        try:
            for found in self.archive.search(f"/studies/{series.study}/series", query, _SERIES):
                for item in self.archive.metadata(series.study, uid_of(found, _SERIES)):
                    if value_of(item, _MANUFACTURER) != MANUFACTURER:
                        continue
                    (source,) = items_of(item, _SOURCES)
                    sources = {uid_of(one, _INSTANCE) for one in items_of(source, _INSTANCES)}
                    if (value_of(item, _SERIAL), sources) == (model[:16], instances):
                        return True
        except (Refused, ValueError):
            pass  # then it is computed and sent again, which leaves no second one
        return False

    def _patiently(self, ask: Callable[[], T]) -> T:
        for attempt in count(1):
            try:
                return ask()
            except Refused as error:
                if not error.passing or attempt == ATTEMPTS:
                    raise
                time.sleep(self._pause_s(error.pause_s, attempt))
        raise AssertionError("unreachable")

    def _pause_s(self, asked_s: float, attempt: int) -> float:
        """Seconds until the next attempt."""
        return max(asked_s, self.root.pause_s * 2 ** (attempt - 1))
