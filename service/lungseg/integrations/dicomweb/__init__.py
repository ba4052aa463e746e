"""``lungseg dicomweb``: CT series of an archive segmented, and the results stored beside them."""

from __future__ import annotations

import argparse
import signal
import sqlite3
import tomllib
from pathlib import Path
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError

from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.places import place_of
from lungseg.cli.streams import write_output
from lungseg.cli.volume import question_of
from lungseg.integrations.dicomweb.archive import UID, Archive, Refused, Root
from lungseg.integrations.dicomweb.work import FAILED, State, Worker
from lungseg.query import ModelQuery, reason


class Settings(BaseModel):
    """The settings file: archives by their names, and where the state of their series is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: Path
    roots: dict[str, Root]


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add, what = parser.add_argument, parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", type=_uid, metavar="UID", help="work on its series, once")
    text = "work on the studies that match, for ever: a query such as 'ModalitiesInStudy=CT'"
    what.add_argument("--watch", type=_query, metavar="FILTER", help=text)
    what.add_argument("--status", action="store_true", help="list what is not done")
    add("--series", type=_uid, metavar="UID", help="of the study this series alone")
    add("--root", metavar="NAME", help="the archive of this name in the settings")
    text = "file of archives and of their state (default: dicomweb.toml)"
    add("--settings", type=Path, metavar="FILE", default="dicomweb.toml", help=text)
    add("--dry-run", action="store_true", help="retrieve and compute, but store nothing")
    add_place(parser)
    add_parameters(parser, ModelQuery, without=("threshold",))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Works on a study, watches, or tells; returns the exit code."""
    settings = _settings(options.settings)
    try:
        return _tell(settings) if options.status else _work(settings, options)
    except sqlite3.Error as error:
        raise UsageError(f"{settings.state}: {error}") from None
    except Refused as error:
        raise UsageError(f"{options.root}: {error}") from None


def _tell(settings: Settings) -> int:
    left = State(settings.state).left()
    write_output("".join("\t".join(map(str, row)) + "\n" for row in left).encode())
    return SOME_FAILED if any(row[0] == FAILED for row in left) else OK


def _work(settings: Settings, options: argparse.Namespace) -> int:
    check_place(options)
    root = settings.roots.get(options.root)
    if root is None:
        raise UsageError(f"--root: expected one of {', '.join(settings.roots)}, received another")
    if options.series and not options.study:
        raise UsageError("--series is of one study: --study")
    for name, wanted in (("read", True), ("write", not options.dry_run)):
        if wanted and not getattr(root, name):
            raise UsageError(f"{options.settings}: {name} = true in {options.root} allows this")
    question = question_of(("dicom-seg", "dicom-sr"), parameters_of(options, ModelQuery))
    with place_of(options, question) as place:
        state = State(None if options.dry_run else settings.state)
        worker = Worker(options.root, root, Archive(root), place, state, options.dry_run)
        if options.study is not None:
            return worker.finish(options.study, options.series)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return worker.watch(options.watch)


def _settings(file: Path) -> Settings:
    try:
        return Settings.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        places = [(".".join(map(str, item["loc"])), reason(item)) for item in error.errors()]
        raise UsageError(*(f"{file}: {place}: {said}" for place, said in places)) from None
    except ValueError:
        raise UsageError(f"{file}: expected TOML, received something else") from None


def _uid(text: str) -> str:
    if not UID.fullmatch(text):
        raise argparse.ArgumentTypeError("expected a UID of digits and points")
    return text


def _query(text: str) -> dict[str, str]:
    found = dict(parse_qsl(text))
    if not found or not all(name.isalnum() for name in found):
        raise argparse.ArgumentTypeError("expected a query such as ModalitiesInStudy=CT")
    return found
