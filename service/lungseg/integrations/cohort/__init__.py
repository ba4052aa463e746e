"""``lungseg cohort``: the studies of an index, each done once, whatever ends a run.

Nothing is remembered but by the folder of results: a study is done when its marker is there, which
is written after its results. Tables are made of markers, and so are whole after each run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lungseg.cli.bar import Bar
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.outputs import SEPARATOR, replace_file
from lungseg.cli.places import Place, Question, place_of
from lungseg.cli.running import Refusal, answer_of
from lungseg.cli.streams import say
from lungseg.cli.volume import forms_of, question_of
from lungseg.formats.decoders import usable_cores
from lungseg.formats.index import named_rows
from lungseg.formats.names import archive_name
from lungseg.formats.parquet import parquet
from lungseg.formats.table import VOLUMES, as_cell, csv_lines
from lungseg.integrations.cohort.crew import Open, actors, processes, work_through
from lungseg.sources import VolumeSource, files_of
from lungseg.volume_forms import VOLUME_FORMS
from lungseg.volume_query import VolumeQuery

ENGINES = {"processes": processes, "ray": actors}
BUSY = ("overloaded", "rate_limited", "draining")  # a server has no place now: it is not done
LOST = "two workers have ended over it: they were killed, or out of memory"
KINDS = {**VOLUMES.kinds, "reason": str}
"""Columns of the tables: the last one has the sentence behind the code of an error."""
Row = dict[str, Any]  # what a marker says: a row of the tables
DIGITS = 16  # of a digest in names: two of a million studies have the same once in thirty million
_places = ExitStack()
"""Of a worker, which keeps its own open as long as it lives."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options; what may be asked of all studies is what ``VolumeQuery`` lists."""
    add = parser.add_argument
    add("index", type=Path, help="CSV with the columns study and path")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for results and tables")
    add("--format", type=forms_of, default=["nifti"], metavar="FORM,…", help="default: nifti")
    add("--shard", type=_shard, default=(0, 1), metavar="i/n", help="part i of n, from 0")
    text = "studies at a time, each on one thread (default: one for each processor)"
    add("--workers", type=int, default=usable_cores(), help=text)
    add("--engine", choices=ENGINES, default="processes", help="what workers are")
    add("--retry-failed", action="store_true", help="try again what has no result")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add_place(parser)
    add_parameters(parser, VolumeQuery)
    parser.set_defaults(run=run)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected i/n with i from 0 to n - 1, received {text!r}")
    return int(found[1]), int(found[2])


def run(options: argparse.Namespace) -> int:
    """Segments what is left of the shard; returns the exit code."""
    check_place(options)
    if options.workers < 1:
        raise UsageError("--workers: expected at least one")
    question = question_of(options.format, parameters_of(options, VolumeQuery))
    with place_of(options, question) as place:
        told = {**question.parameters, "sha256": place.model()}
    (number, parts), again = options.shard, options.retry_failed
    try:
        studies = read_index(options.index.absolute(), options.out.absolute(), told)[number::parts]
    except ValueError as error:
        raise UsageError(f"{options.index}: {error}") from None
    left = [one for one in studies if not (row := one.find()) or (again and row["error"])]
    if len(left) < len(studies) and not options.quiet:
        say(f"lungseg: {len(studies) - len(left)} of {len(studies)} studies are done already")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        while left:
            busy = [*_work(options, left, partial(_open, options, question, told["sha256"]))]
            left = busy if len(busy) < len(left) else []
    finally:
        rows = [row for study in studies if (row := study.find())]
        write_tables(options.out, rows, f"-{number}-of-{parts}" if parts > 1 else "")
    return SOME_FAILED if len(rows) < len(studies) or any(row["error"] for row in rows) else OK


def _work(options: argparse.Namespace, left: Sequence[Study], opened: Open) -> Iterator[Study]:
    """Does what is left; yields what a server had no place for."""
    engine, workers = ENGINES[options.engine], min(options.workers, len(left))
    with engine(opened, workers) as crew, Bar(len(left), quiet=options.quiet) as bar:
        # Schedulers announce an end by SIGTERM: it is taken as Ctrl-C is.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for study, result in zip(left, work_through(left, crew, workers), strict=True):
            row = result or study.mark({"error": {"code": "worker_lost"}}, LOST)
            if row["error"]:
                say(f"{study.name}: {row['reason']}")
            if row["error"] in BUSY:
                yield study
            bar.finish()


def _open(options: argparse.Namespace, question: Question, model: str) -> Callable[[Study], Row]:
    place = _places.enter_context(place_of(options, question, volume_threads=1))
    return partial(_compute, place, question.forms, model)


def _compute(place: Place, forms: Sequence[str], model: str, study: Study) -> Row:
    """In the worker: computes and writes one study, and its marker after that."""
    try:
        answer = answer_of(study, place)
    except UsageError:  # which would befall the others too
        raise
    except Exception as error:  # noqa: BLE001 - a bug costs its study alone
        answer = Refusal("internal_error", f"the study ended in a {type(error).__name__}")
    if isinstance(answer, Refusal):
        return study.mark({"error": {"code": answer.code}}, answer.sentence)
    summary = answer[0].summary
    if summary["model"]["sha256"] != model:
        raise UsageError("another model answers than when the command began")
    targets = [study.at(VOLUME_FORMS[form].suffix) for form in forms]
    for target, file in zip(targets, answer, strict=True):
        replace_file(target, file.content)
    return study.mark({**summary, "result": SEPARATOR.join(target.name for target in targets)})


class Study(NamedTuple):
    """One row of an index: its name there, its file or folder, and where its results begin."""

    name: str
    path: Path
    stem: str

    def read(self) -> VolumeSource:
        """Its files; raises ``OSError`` where there are none."""
        return files_of(self.path)

    def find(self) -> Row | None:
        """What its marker says; None where it is not done."""
        try:
            return json.loads(self.at(".done.json").read_bytes())
        except (OSError, ValueError):
            return None

    def mark(self, answer: Mapping[str, Any], reason: str = "") -> Row:
        """Writes the marker, of an answer or an error, unless a server was but busy."""
        row = dict(zip(KINDS, [*VOLUMES.row(self.name, answer), as_cell(reason)], strict=True))
        if row["error"] not in BUSY:
            replace_file(self.at(".done.json"), json.dumps(row).encode())
        return row

    def at(self, ending: str) -> Path:
        """One of its files in the folder of results."""
        return Path(self.stem + ending)


def read_index(index: Path, out: Path, told: Mapping[str, Any]) -> list[Study]:
    """The studies of an index, whose paths are relative to the folder in which it lies.

    With another value of ``told`` results have other names. Raises ``ValueError`` for no index.
    """
    text = index.read_text(encoding="utf-8", errors="surrogateescape")
    studies = list[Study]()
    for row in named_rows(text, ("study", "path")):
        name, path = row["study"], row["path"]
        said = json.dumps([name, path, told], sort_keys=True)
        digest = hashlib.sha256(said.encode()).hexdigest()[:DIGITS]
        plain = archive_name(re.sub(r"[/\\]", "_", name), 0)
        studies.append(Study(name, index.parent / path, f"{out / plain}-{digest}"))
    return studies


def write_tables(out: Path, rows: Sequence[Row], part: str) -> None:
    """Writes the statistics of a part of the index, as CSV where nothing writes Parquet."""
    content, ending = parquet(KINDS, rows), "parquet"
    if content is None:
        lines = [[*KINDS], *([row.get(name) for name in KINDS] for row in rows)]
        content, ending = csv_lines(lines).encode(), "csv"
    replace_file(out / f"statistics{part}.{ending}", content)
