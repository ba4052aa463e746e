"""``lungseg segment``: slices here, or by a server, to files and a table of statistics."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lungseg.answers import File
from lungseg.cli.bar import Bar
from lungseg.cli.inputs import find_inputs
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
from lungseg.formats.names import result_names
from lungseg.formats.table import SLICES
from lungseg.forms import FORMS
from lungseg.query import SegmentQuery

if TYPE_CHECKING:
    from lungseg.client import Client
    from lungseg.library import Segmenter


def add_to(commands: Any) -> None:
    """Adds the command; what may be asked of a slice is what ``SegmentQuery`` lists."""
    text = "segment CT slices, here or by a server"
    parser = commands.add_parser("segment", help=text, description=text)
    add = parser.add_argument
    add("files", nargs="+", help="files or folders (searched recursively); - is standard input")
    add("--format", choices=FORMS, type=str.lower, help="form of the results (default: json)")
    add_outputs(parser)
    add_place(parser)
    add_parameters(parser, SegmentQuery)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Segments the files; returns the exit code.

    Raises:
        UsageError: nothing can be done at all, or no more.
    """
    check_place(options)
    parameters = parameters_of(options, SegmentQuery)
    inputs = find_inputs(options.files)
    form = options.format or DEFAULT_FORM
    names = [item.name for item in inputs]
    results = [(name,) for name in result_names(names, FORMS[form].suffix)]
    outputs = outputs_of(options, [form], dict(zip(names, results, strict=True)), SLICES)

    def question(_bar: Bar) -> Question:
        return Question(ask=_ask, forms=[form], parameters={**parameters, "form": form})

    sources = [item.path for item in inputs if item.path]
    return run_all(options, (inputs, sources), outputs, question)


def _ask(place: Segmenter | Client, content: bytes, **parameters: Any) -> list[File]:
    return [place.fetch(content, **parameters)]
