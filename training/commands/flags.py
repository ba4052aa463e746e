"""Flags that several commands share: where slices come from, and what is published."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.data.sources import Source, parse_source
from training.errors import DataError
from training.release.target import Release


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Adds where slices come from."""
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="[NAME=]DIR[:WEIGHT]",
        help="folders of pairs; a weight of 2 draws each slice twice an epoch",
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE.csv[:WEIGHT]",
        help="tables with the columns image, mask and perhaps patient, source",
    )


def given_sources(arguments: argparse.Namespace) -> list[Source]:
    """The sources that the command line names.

    Raises:
        DataError: none.
    """
    sources = [parse_source(text) for text in (*arguments.data, *arguments.pairs)]
    if not sources:
        raise DataError("expected slices: --data DIR, or --pairs FILE.csv")
    return sources


def add_release_flags(parser: argparse.ArgumentParser) -> None:
    """Adds where and how to publish."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of models")
    parser.add_argument("--name", help="of the model; by default the run folder's name")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="data to measure on")
    parser.add_argument("--quantize", choices=("int8",), help="publish a quantised model")
    parser.add_argument("--force", action="store_true", help="publish even a worse version")


def given_release(arguments: argparse.Namespace, run: Path) -> Release:
    """Where and how to publish, from the flags."""
    return Release(
        models=arguments.models,
        name=arguments.name or run.resolve().name,
        external=tuple(arguments.external),
        force=arguments.force,
        int8=arguments.quantize == "int8",
    )
