"""``lungseg dicomweb``: CT series of an archive segmented, and the results stored beside them."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sqlite3
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError

from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.places import Place, place_of
from lungseg.cli.streams import say, write_output
from lungseg.cli.volume import question_of
from lungseg.core.errors import NotCT
from lungseg.integrations.dicomweb.archive import PASSING, UID, Archive, Refused, Root
from lungseg.query import ModelQuery, reason

ATTEMPTS = 5
PENDING, DONE, FAILED = "pending", "done", "failed"
_INSTANCE, _STUDY, _SERIES = "00080018", "0020000D", "0020000E"
_TABLE = """CREATE TABLE IF NOT EXISTS work (root, series, instances, model, state, attempts, code,
    changed, PRIMARY KEY (root, series, instances, model))"""
_ROW = (
    "SELECT state, attempts, code FROM work WHERE (root, series, instances, model) = (?, ?, ?, ?)"
)
_PUT = "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?, ?, ?, ?, datetime())"
_LEFT = """SELECT state, attempts, code, changed, root, series FROM work WHERE state != 'done'
    AND rowid IN (SELECT max(rowid) FROM work GROUP BY root, series)"""


class Settings(BaseModel):
    """The settings file: archives by their names, and where the state of their series is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: Path
    roots: dict[str, Root]


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add, what = parser.add_argument, parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", type=_uid, metavar="UID", help="work on its series, once")
    what.add_argument("--watch", type=_query, metavar="FILTER", help="on what matches, for ever")
    what.add_argument("--status", action="store_true", help="list what is not done")
    add("--series", type=_uid, metavar="UID", help="of the study this series alone")
    add("--root", metavar="NAME", help="the archive of this name in the settings")
    add("--settings", type=Path, default="dicomweb.toml", help="default: dicomweb.toml")
    add("--dry-run", action="store_true", help="retrieve and compute, but store nothing")
    add_place(parser)
    add_parameters(parser, ModelQuery, without=("threshold",))
    parser.set_defaults(run=run)


def _uid(text: str) -> str:
    if not UID.fullmatch(text):
        raise argparse.ArgumentTypeError("expected a UID of digits and points")
    return text


def _query(text: str) -> dict[str, str]:
    if not (found := dict(parse_qsl(text))):
        raise argparse.ArgumentTypeError("expected a query such as ModalitiesInStudy=CT")
    return found


def run(options: argparse.Namespace) -> int:
    """Works on a study, watches, or tells; returns the exit code."""
    file = options.settings
    try:
        settings = Settings.model_validate(tomllib.loads(file.read_text(encoding="utf-8-sig")))
        return _work(settings, options)
    except ValidationError as error:
        found = [(".".join(map(str, one["loc"])), reason(one)) for one in error.errors()]
        raise UsageError(*(f"{file}: {place}: {said}" for place, said in found)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: expected TOML: {error}") from None
    except sqlite3.Error as error:
        raise UsageError(f"the state in {file}: {error}") from None
    except Refused as error:
        raise UsageError(f"{options.root}: {error}") from None


def _work(settings: Settings, options: argparse.Namespace) -> int:
    state = _opened(":memory:" if options.dry_run else settings.state)
    if options.status:
        left = state.execute(_LEFT).fetchall()
        write_output("".join("\t".join(map(str, row)) + "\n" for row in left).encode())
        return SOME_FAILED if any(row[0] == FAILED for row in left) else OK
    check_place(options)
    if (root := settings.roots.get(options.root)) is None:
        raise UsageError(f"--root: expected one of {', '.join(settings.roots)}, received another")
    if options.series and not options.study:
        raise UsageError("--series is of one study: --study")
    if not (root.write or options.dry_run):
        raise UsageError(f"{options.root}: expected --dry-run, or write = true in the settings")
    question = question_of(("dicom-seg", "dicom-sr"), parameters_of(options, ModelQuery))
    with place_of(options, question) as place:
        worker = Worker(options.root, Archive(root), place, state, options.dry_run)
        if options.study:
            named = {"SeriesInstanceUID": options.series} if options.series else root.series
            return worker.finish(options.study, named)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return worker.watch(options.watch)


def _opened(state: Path | str) -> sqlite3.Connection:
    """What has become of each series: it survives whatever ends the process."""
    os.umask(0o077)  # it names patients' series
    database = sqlite3.connect(state, timeout=60, isolation_level=None)
    database.execute(_TABLE)
    return database


class Series(NamedTuple):
    """A series of an archive: its path below the root, and the instances that it has now."""

    path: str
    digest: str
    images: int

    def __str__(self) -> str:
        """As it may be told: a UID leads to a patient."""
        return f"series {hashlib.sha256(self.path.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Worker:
    """Works on the series of one root; a dry one stores nothing."""

    name: str
    archive: Archive
    place: Place
    state: sqlite3.Connection
    dry: bool

    def finish(self, study: str, query: Mapping[str, str]) -> int:
        """Works on series of a study until none may still change; returns the exit code."""
        attempt, again = 1, True
        while True:
            try:
                model, found = self.place.model(), [*self._series_of(study, query)]
                states = {self._work_on(one, model, again=again) for one in found}
                again = False
            except Refused as error:
                if not PASSING.fullmatch(error.code) or attempt >= ATTEMPTS:
                    raise
                say(f"lungseg: {self.name}: {error}, which may pass")
                states = {PENDING}
            if not states:
                raise UsageError(f"expected CT series in that study of {self.name}, received none")
            if PENDING not in states:
                return SOME_FAILED if FAILED in states else OK
            time.sleep(self.archive.root.pause_s * 2 ** (attempt - 1))
            attempt += 1

    def watch(self, query: Mapping[str, str]) -> NoReturn:
        """Works on series as soon as two looks in a row see the same instances."""
        seen = set[Series]()
        while True:
            try:
                model, before, seen = self.place.model(), seen, set[Series]()
                for study in self.archive.search("/studies", query, _STUDY):
                    try:
                        seen |= {*self._series_of(study, self.archive.root.series)}
                    except Refused as error:  # the others shall have their turn
                        say(f"lungseg: a study of {self.name}: {error}")
                for series in sorted(seen & before):
                    self._work_on(series, model, again=False)
            except (Refused, UsageError) as error:
                say(f"lungseg: {self.name}: {error}, again in {self.archive.root.poll_s:g} s")
            time.sleep(self.archive.root.poll_s)

    def _series_of(self, study: str, query: Mapping[str, str]) -> Iterator[Series]:
        for uid in self.archive.search(f"/studies/{study}/series", query, _SERIES):
            path = f"/studies/{study}/series/{uid}"
            instances = self.archive.search(f"{path}/instances", {}, _INSTANCE)
            digest = hashlib.sha256(" ".join(instances).encode()).hexdigest()
            yield Series(path, digest, len(instances))

    def _work_on(self, series: Series, model: str, *, again: bool) -> str:
        """Attempts a series that is not done, again also where it failed; how far it is then."""
        key = self.name, series.path, series.digest, model
        state, attempts, code = self.state.execute(_ROW, key).fetchone() or (PENDING, 0, "")
        if state == DONE or (state == FAILED and not again):
            return state
        attempts = attempts if state == PENDING else 0
        # Counted at once: it may be what ends this process, or the service, each time.
        self.state.execute(_PUT, (*key, PENDING, attempts + 1, code))
        row = PENDING, attempts, code
        try:
            row = self._attempt(series, model, attempts + 1)
        except UsageError:
            row = PENDING, attempts + 1, code
            raise
        finally:
            self.state.execute(_PUT, (*key, *row))
        return row[0]

    def _attempt(self, series: Series, model: str, attempts: int) -> tuple[str, int, str]:
        state, code = DONE, ""
        try:
            if attempts > ATTEMPTS:
                raise Refused("ended")
            seg, sr = self.place.fetch(self.archive.retrieve(series.path, series.images))
            if {result.summary["model"]["sha256"] for result in (seg, sr)} != {model}:
                raise Refused("model_changed")
            if not self.dry:  # the report first: whoever finds the SEG may rely on it
                self.archive.store(series.path.partition("/series/")[0], [sr.content, seg.content])
        except (UsageError, OSError):  # which would befall the others too
            raise
        except Exception as error:  # noqa: BLE001 - a bug costs its series alone
            code = getattr(error, "code", "internal_error")
            passing = PASSING.fullmatch(str(getattr(error, "status", code)))
            if code != NotCT.code:  # such as a localizer, of which nothing is wanted
                state = PENDING if passing and attempts < ATTEMPTS else FAILED
        say(f"{series} of {series.images} instances: {state} {code}".rstrip())
        return state, min(attempts, ATTEMPTS), code
