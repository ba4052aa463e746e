"""``lungseg segment``: slices here, or by a server, to files and a table of statistics."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lungseg.answers import File
from lungseg.cli.bar import Bar
from lungseg.cli.errors import OK
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
from lungseg.cli.places import Question, here, there
from lungseg.cli.running import work
from lungseg.cli.streams import say
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
    outputs.check(
        [item.path for item in inputs if item.path], keep=options.skip_existing or options.force
    )
    done = outputs.keep_done() if options.skip_existing else frozenset[str]()
    if done and not options.quiet:
        say(f"lungseg: {len(done)} of {len(inputs)} files are done already")
    left = [item for item in inputs if item.name not in done]
    if not left:
        outputs.begin()
        return OK
    question = Question(ask=_ask, forms=[form], parameters={**parameters, "form": form})
    with ExitStack() as stack:
        if options.url is None:
            place = here(question, models_dir=options.models_dir)
        else:
            place = stack.enter_context(there(question, url=options.url))
        return work(left, place, outputs, stack.enter_context(Bar(len(left), quiet=options.quiet)))


def _ask(place: Segmenter | Client, content: bytes, **parameters: Any) -> list[File]:
    return [place.fetch(content, **parameters)]
