"""Options that all commands share which segment: where results go, who computes, what is asked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from lungseg.cli.configured import option
from lungseg.cli.errors import UsageError
from lungseg.cli.outputs import TABLE, Outputs
from lungseg.cli.streams import STREAM
from lungseg.core.errors import InvalidParameter
from lungseg.formats.table import Table
from lungseg.query import ModelQuery, OneOf, checked_query

DEFAULT_FORM = "json"


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Adds where results and tables go, and what happens to those that are there."""
    add = parser.add_argument
    add("-o", "--output", help="folder for results and statistics.csv; - or none: standard output")
    add("--csv", help="write a table of statistics there; - is standard output")
    there_already = parser.add_mutually_exclusive_group()
    text = "go on: leave out what has its results already, and keep its rows"
    there_already.add_argument("--skip-existing", action="store_true", help=text)
    there_already.add_argument("--force", action="store_true", help="overwrite what is there")
    add("-q", "--quiet", action="store_true", help="no progress bar")


def add_place(parser: argparse.ArgumentParser) -> None:
    """Adds who computes."""
    parser.add_argument("--url", help="of a server; without it the model runs in this process")
    parser.add_argument("--models-dir", type=Path, help="folder of models for running here")


def add_parameters(
    parser: argparse.ArgumentParser, query: type[ModelQuery], without: Container[str] = ()
) -> None:
    """Adds what may be asked, one option for each member of a query."""
    for name, item in query.model_fields.items():
        if name in without:
            continue
        switch: dict[str, Any] = {}
        if item.annotation is bool:
            switch = {"action": "store_true", "default": None}
        elif names := [kind.names for kind in item.metadata if isinstance(kind, OneOf)]:
            switch = {"choices": names[0], "type": str.lower}
        text = (item.description or "").replace("%", "%%")
        parser.add_argument(option(name), help=text, **switch)


def check_place(options: argparse.Namespace) -> None:
    """Makes sure that one place computes.

    Raises:
        UsageError: a server is named, and models for running here.
    """
    if options.url is not None and options.models_dir is not None:
        raise UsageError("--models-dir is for running here: the server at --url has its own")


def parameters_of(options: argparse.Namespace, query: type[ModelQuery]) -> dict[str, Any]:
    """What is asked, by the options that there are.

    Each is checked by itself, so that what is wrong is named as the option that it is.

    Raises:
        UsageError: one is wrong.
    """
    given = vars(options)
    parameters = {name: given[name] for name in query.model_fields if name in given}
    for name, value in parameters.items():
        try:
            checked_query(query, {name: value})
        except InvalidParameter as error:
            raise UsageError(f"{option(name)}: {str(error).partition(': ')[2]}") from None
    return parameters


def outputs_of(
    options: argparse.Namespace,
    forms: Sequence[str],
    targets: Mapping[str, Sequence[str]],
    table: Table,
) -> Outputs:
    """Where results go.

    Args:
        options: as ``add_outputs`` has them, with ``format``.
        forms: of the results of each input.
        targets: the results' names for each input.
        table: the kind of tables.

    Raises:
        UsageError: the options contradict each other.
    """
    for name in ("output", "csv"):
        if getattr(options, name) == "":
            raise UsageError(f"expected a name after {option(name)}, received an empty one")
    folder = None if options.output in (None, STREAM) else Path(options.output)
    # Whoever wants a table on standard output, and asks for no results, gets the table alone.
    table_alone = options.csv == STREAM and options.output is None and options.format is None
    prints = folder is None and not table_alone
    if prints and options.csv == STREAM:
        raise UsageError("results and table can't both go to standard output: -o FOLDER")
    if prints and len(forms) > 1:
        raise UsageError(f"{' and '.join(forms)} together need a folder: -o FOLDER")
    if prints and forms[0] != DEFAULT_FORM and len(targets) > 1:
        raise UsageError(f"{forms[0]} of several files needs a folder: -o FOLDER")
    if folder is None and options.skip_existing:
        raise UsageError("--skip-existing needs a folder of results: -o FOLDER")
    tables = [str(folder / TABLE)] if folder else []
    tables += [options.csv] if options.csv else []
    places = {os.path.realpath(name) if name != STREAM else name: name for name in tables}
    return Outputs(
        folder=folder, prints=prints, table=table, tables=list(places.values()), targets=targets
    )
