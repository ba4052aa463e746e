"""``lungseg compare``: what changed between two volumes, by their answers or by the scans."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.answers import File
from lungseg.cli.bar import Bar
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.inputs import SHOWN
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.places import Place, Question, place_of
from lungseg.cli.running import Refusal, answers
from lungseg.cli.streams import STREAM, say, standard_input, write_output
from lungseg.cli.studies import Study, find_studies
from lungseg.core.compare import compare
from lungseg.core.errors import InvalidParameter
from lungseg.sources import VolumeSource
from lungseg.volume_query import VolumeQuery

if TYPE_CHECKING:
    from lungseg.client import Client
    from lungseg.library import Segmenter

Answer = dict[str, Any]
NOT_OF_TWO = ("series", "volume", "space", "include")
"""Parameters that would mean one of the scans, or a file."""
HEADINGS = (
    *("part", "figure", "unit", "before", "after", "change", "percent", "adjusted"),
    *("rescans", "adjusted rescans"),
)
FIGURES = ("volume_ml", "mass_g", "mean_hu", "perc15", "laa_950")
"""Those of the table: repeatability is published for them."""
TEXTS = 3
"""So many columns of the table are texts."""


def add_to(commands: Any) -> None:
    """Adds the command."""
    text = "say what changed between two CT volumes of one patient"
    parser = commands.add_parser("compare", help=text, description=text)
    add = parser.add_argument
    text = "scan: its folder or file, or the JSON that lungseg volume wrote of it (- reads it)"
    add("before", help=f"the earlier {text}")
    add("after", help=f"the later {text}")
    add("--format", choices=("json", "table"), type=str.lower, help="default: json")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add_place(parser)
    add_parameters(parser, VolumeQuery, without=NOT_OF_TWO)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compares both; returns the exit code.

    Raises:
        UsageError: nothing can be done at all.
    """
    check_place(options)
    parameters = parameters_of(options, VolumeQuery)
    names = (options.before, options.after)
    found = [_answer_in(name) for name in names]
    scans = [_scan(name) for name, answer in zip(names, found, strict=True) if answer is None]
    if scans:
        computed = iter(_computed(scans, options, parameters))
        found = [next(computed) if answer is None else answer for answer in found]
    before, after = found
    if before is None or after is None:
        return SOME_FAILED
    try:
        changes = compare(before, after)
    except InvalidParameter as error:
        raise UsageError(str(error)) from None
    if options.format == "table":
        write_output("".join(f"{line}\n" for line in _table(changes)).encode())
    else:
        write_output(json.dumps(changes, separators=(",", ":")).encode() + b"\n")
    return OK


def _answer_in(name: str) -> Answer | None:
    """The answer that a file or standard input holds; None of what is something else."""
    if name != STREAM and not Path(name).is_file():
        return None
    with Path(name).open("rb") if name != STREAM else standard_input() as stream:
        begin = stream.read(1)
        if name != STREAM and begin != b"{":
            return None
        try:
            return json.loads(begin + stream.read())
        except ValueError:
            raise UsageError(f"{name}: expected one JSON answer, received something else") from None


def _scan(name: str) -> Study:
    studies = find_studies([name])
    if len(studies) > 1:
        shown = ", ".join(study.name for study in studies[:SHOWN])
        more = ", …" if len(studies) > SHOWN else ""
        raise UsageError(f"expected one study in {name}, received {len(studies)}: {shown}{more}")
    return Study(name=name, files=studies[0].files)


def _computed(
    scans: list[Study], options: argparse.Namespace, parameters: Answer
) -> list[Answer | None]:
    """The answers for scans; None where one is refused, which is said."""
    bar = Bar(len(scans), quiet=options.quiet)
    asked = {**parameters, "progress": bar.hear}
    question = Question(ask=_ask, forms=["json"], parameters=asked, volumes=True)
    with place_of(options, question) as place, bar:
        return list(_answers(scans, place, bar))


def _answers(scans: list[Study], place: Place, bar: Bar) -> Iterator[Answer | None]:
    for scan, answer in answers(scans, place):
        bar.finish()
        if isinstance(answer, Refusal):
            say(f"{scan.name}: {answer.sentence}")
        yield None if isinstance(answer, Refusal) else answer[0].summary


def _ask(place: Segmenter | Client, source: VolumeSource, **parameters: Any) -> list[File]:
    return [place.fetch_volume(source, "json", **parameters)]


def _table(changes: Answer) -> Iterator[str]:
    """The comparison for people: lines of columns of one width, and then the warnings."""
    rows = [HEADINGS, *_rows(changes["differences"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADINGS))]
    for row in rows:
        texts = [cell.ljust(width) for cell, width in zip(row[:TEXTS], widths[:TEXTS], strict=True)]
        others = zip(row[TEXTS:], widths[TEXTS:], strict=True)
        yield "  ".join([*texts, *(cell.rjust(width) for cell, width in others)]).rstrip()
    yield ""
    yield f"adjusted for the volume before: {changes['adjustment']['formula']}"
    for warning in changes["warnings"]:
        yield f"{warning['code']}: {warning['message']}"


def _rows(differences: Answer) -> Iterator[tuple[str, ...]]:
    """Of each part and figure that both scans have, what changed."""
    parts: dict[str, Answer | None] = {"both lungs": differences["both"]}
    for side, lung in differences["lungs"].items():
        parts[f"{side} lung"] = lung
        for name, third in (differences["thirds"][side] or {}).items():
            parts[f"{side} {name} third"] = third
    for part, figures in parts.items():
        for name, figure in (figures or {}).items():
            if name in FIGURES and figure["change"] is not None:
                adjusted = figure["adjusted"] or {"change": None, "verdict": None}
                numbers = [figure[key] for key in ("before", "after", "change", "percent")]
                cells = [_cell(number) for number in (*numbers, adjusted["change"])]
                verdicts = figure["verdict"] or "", adjusted["verdict"] or ""
                yield (part, name, figure["unit"], *cells, *verdicts)


def _cell(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"
