"""``lungseg segment``: slices here, or by a server, to files and a table of statistics."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lungseg.answers import File
from lungseg.cli.configured import option
from lungseg.cli.errors import OK, SOME_FAILED, UsageError, in_words
from lungseg.cli.inputs import Input, find_inputs
from lungseg.cli.outputs import TABLE, Outputs
from lungseg.cli.places import Place, here, there
from lungseg.cli.running import Refusal, answers
from lungseg.cli.streams import STREAM, say
from lungseg.core.errors import InvalidParameter
from lungseg.formats.names import result_names
from lungseg.formats.table import SLICES
from lungseg.forms import FORMS
from lungseg.query import OneOf, SegmentQuery, checked_query

DEFAULT_FORM = "json"
UNWRITABLE = "unwritable"
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt}, {remaining} left"
"""The bar of progress: part done, files, and the time that the rest will take."""


def add_to(commands: Any) -> None:
    """Adds the command; what may be asked of a slice is what ``SegmentQuery`` lists."""
    text = "segment CT slices, here or by a server"
    parser = commands.add_parser("segment", help=text, description=text)
    add = parser.add_argument
    add("files", nargs="+", help="files or folders (searched recursively); - is standard input")
    add("-o", "--output", help="folder for results and statistics.csv; - or none: standard output")
    add("--format", choices=FORMS, type=str.lower, help="form of the results (default: json)")
    add("--csv", help="write a table of statistics there; - is standard output")
    there_already = parser.add_mutually_exclusive_group()
    text = "go on: leave out slices whose results are there already, and keep their rows"
    there_already.add_argument("--skip-existing", action="store_true", help=text)
    there_already.add_argument("--force", action="store_true", help="overwrite what is there")
    add("--url", help="of a server; without it the model runs in this process")
    add("--models-dir", type=Path, help="folder of models for running here")
    for name, item in SegmentQuery.model_fields.items():
        switch: dict[str, Any] = {}
        if item.annotation is bool:
            switch = {"action": "store_true", "default": None}
        elif names := [kind.names for kind in item.metadata if isinstance(kind, OneOf)]:
            switch = {"choices": names[0], "type": str.lower}
        add(option(name), help=(item.description or "").replace("%", "%%"), **switch)
    add("-q", "--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Segments the files; returns the exit code.

    Raises:
        UsageError: nothing can be done at all, or no more.
    """
    if options.url is not None and options.models_dir is not None:
        raise UsageError("--models-dir is for running here: the server at --url has its own")
    parameters = {name: getattr(options, name) for name in SegmentQuery.model_fields}
    _check_parameters(parameters)
    inputs = find_inputs(options.files)
    outputs = _outputs(options, inputs)
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
    form = options.format or DEFAULT_FORM
    with ExitStack() as stack:
        if options.url is None:
            place = here(form, parameters, models_dir=options.models_dir)
        else:
            place = stack.enter_context(there(form, parameters, url=options.url))
        return _segment(left, place, outputs, quiet=options.quiet)


def _check_parameters(parameters: dict[str, Any]) -> None:
    """Each by itself, so that what is wrong is named as the option that it is."""
    for name, value in parameters.items():
        try:
            checked_query(SegmentQuery, {name: value})
        except InvalidParameter as error:
            raise UsageError(f"{option(name)}: {str(error).partition(': ')[2]}") from None


def _outputs(options: argparse.Namespace, inputs: Sequence[Input]) -> Outputs:
    """Where results go, by the options.

    Raises:
        UsageError: they contradict each other.
    """
    for name in ("output", "csv"):
        if getattr(options, name) == "":
            raise UsageError(f"expected a name after {option(name)}, received an empty one")
    folder = None if options.output in (None, STREAM) else Path(options.output)
    form = options.format or DEFAULT_FORM
    # Whoever wants a table on standard output, and asks for no results, gets the table alone.
    table_alone = options.csv == STREAM and options.output is None and options.format is None
    prints = folder is None and not table_alone
    if prints and options.csv == STREAM:
        raise UsageError("results and table can't both go to standard output: -o FOLDER")
    if prints and form != DEFAULT_FORM and len(inputs) > 1:
        raise UsageError(f"{form} of several files needs a folder: -o FOLDER")
    if folder is None and options.skip_existing:
        raise UsageError("--skip-existing needs a folder of results: -o FOLDER")
    tables = [str(folder / TABLE)] if folder else []
    tables += [options.csv] if options.csv else []
    names = [item.name for item in inputs]
    return Outputs(
        folder=folder,
        prints=prints,
        table=SLICES,
        tables=list(
            {os.path.realpath(name) if name != STREAM else name: name for name in tables}.values()
        ),
        targets=dict(zip(names, zip(result_names(names, FORMS[form].suffix)), strict=True)),
    )


def _segment(inputs: Sequence[Input], place: Place, outputs: Outputs, *, quiet: bool) -> int:
    finished = refused = 0
    hidden = quiet or None  # None: where standard error is no terminal
    try:
        with tqdm(total=len(inputs), disable=hidden, bar_format=BAR) as bar:
            for item, answer in answers(inputs, place):
                refused += not _put(outputs, item, answer)
                finished += 1
                bar.update()
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, UsageError, OSError) as stopped:
        more = "; the same command with --skip-existing goes on" if outputs.folder else ""
        said = f"{finished} of {len(inputs)} files are done{more}"
        if isinstance(stopped, KeyboardInterrupt):
            raise KeyboardInterrupt(said) from None
        reason = in_words(stopped) if isinstance(stopped, OSError) else str(stopped)
        raise UsageError(f"{reason}; {said}" if finished else reason) from None
    return SOME_FAILED if refused else OK


def _put(outputs: Outputs, item: Input, answer: File | Refusal) -> bool:
    """Writes what came of one slice; whether it is a result."""
    if isinstance(answer, File):
        try:
            result = outputs.write(item.name, [answer])
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # all else would befall the other files too
                raise
            answer = UNWRITABLE, "the name of its result is too long"
        else:
            outputs.add(item.name, {**answer.summary, "result": result})
            return True
    code, sentence = answer
    outputs.add(item.name, {"error": {"code": code}})
    say(f"{item.name}: {sentence}")
    return False
