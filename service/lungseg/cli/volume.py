"""``lungseg volume``: volumes here, or by a server, to files and a table of statistics."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lungseg.answers import File
from lungseg.cli.bar import Bar
from lungseg.cli.options import (
    DEFAULT_FORM,
    add_outputs,
    add_parameters,
    add_place,
    check_place,
    outputs_of,
    parameters_of,
)
from lungseg.cli.places import Question
from lungseg.cli.running import run_all
from lungseg.cli.studies import find_studies
from lungseg.client import Client
from lungseg.formats.names import VOLUME_SUFFIXES, result_names
from lungseg.formats.table import VOLUMES
from lungseg.sources import VolumeSource
from lungseg.volume_forms import VOLUME_FORMS
from lungseg.volume_query import VolumeQuery

if TYPE_CHECKING:
    from lungseg.library import Segmenter


def add_to(commands: Any) -> None:
    """Adds the command; what may be asked of a volume is what ``VolumeQuery`` lists."""
    text = "segment CT volumes, here or by a server"
    parser = commands.add_parser("volume", help=text, description=text)
    add = parser.add_argument
    add("paths", nargs="+", help="folders of studies, or files of volumes; - is standard input")
    text = f"forms of the results, separated by commas: {', '.join(VOLUME_FORMS)} (default: json)"
    add("--format", type=forms_of, metavar="FORM,…", help=text)
    add_outputs(parser)
    add_place(parser)
    add_parameters(parser, VolumeQuery)
    parser.set_defaults(run=run)


def forms_of(text: str) -> list[str]:
    """The forms that an option names, each once."""
    forms = list(dict.fromkeys(text.lower().split(",")))
    if unknown := [form for form in forms if form not in VOLUME_FORMS]:
        known = ", ".join(VOLUME_FORMS)
        raise argparse.ArgumentTypeError(f"expected forms among {known}, received {unknown[0]!r}")
    return forms


def run(options: argparse.Namespace) -> int:
    """Segments the volumes; returns the exit code.

    Raises:
        UsageError: nothing can be done at all, or no more.
    """
    check_place(options)
    parameters = parameters_of(options, VolumeQuery)
    studies = find_studies(options.paths)
    forms = options.format or [DEFAULT_FORM]
    names = [study.name for study in studies]
    results = [result_names(names, VOLUME_FORMS[form].suffix, VOLUME_SUFFIXES) for form in forms]
    targets = dict(zip(names, zip(*results, strict=True), strict=True))
    outputs = outputs_of(options, forms, targets, VOLUMES)

    def question(bar: Bar) -> Question:
        return question_of(forms, {**parameters, "progress": bar.hear})

    sources = [file for study in studies for file in study.files]
    return run_all(options, (studies, sources), outputs, question)


def question_of(forms: Sequence[str], parameters: Mapping[str, Any]) -> Question:
    """Asks for a volume's results in several forms."""
    asked = {**parameters, "forms": forms}
    return Question(ask=_ask, forms=forms, parameters=asked, volumes=True)


def _ask(
    place: Segmenter | Client, source: VolumeSource, forms: Sequence[str], **parameters: Any
) -> list[File]:
    """Each form of the answer, for each of which a server computes once."""
    if isinstance(place, Client):
        return [place.fetch_volume(source, form, **parameters) for form in forms]
    found = place.segment_volume(source, **parameters)
    return [found.fetch(form) for form in forms]
