"""Commands about data and machines: inspect, phantom, bench."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.config import PATIENT_PATTERN
from training.data.sources import Source, parse_source
from training.data.survey import survey
from training.errors import DataError
from training.synthetic.phantom_set import write_phantom_set


def register(commands: Any) -> None:
    """Adds the commands to the parser."""
    inspect = commands.add_parser("inspect", help="what folders hold, before any training")
    inspect.add_argument("folders", nargs="*", metavar="DIR", help="[NAME=]DIR, or a CSV of pairs")
    inspect.add_argument("--pairs", nargs="*", default=[], metavar="FILE.csv", help="tables too")
    inspect.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    inspect.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet (PNG)")
    inspect.add_argument("--patient-pattern", default=PATIENT_PATTERN, help="names the patient")
    inspect.set_defaults(command=_inspect)
    phantom = commands.add_parser("phantom", help="write a synthetic data set")
    phantom.add_argument("--out", type=Path, required=True, help="folder to make")
    phantom.add_argument("--count", type=int, default=200, help="slices [200]")
    phantom.add_argument("--patients", type=int, default=40, help="patients [40]")
    phantom.add_argument("--size", type=int, default=512, help="rows and columns [512]")
    phantom.add_argument("--format", choices=("png", "dicom"), default="png", help="[png]")
    phantom.add_argument("--seed", type=int, default=0, help="[0]")
    phantom.set_defaults(command=_phantom)
    bench = commands.add_parser("bench", help="speed and memory of training on this machine")
    bench.add_argument("--slices", type=int, default=160, help="of the synthetic data set [160]")
    bench.add_argument("--grid", type=int, default=256, help="side of the network's input [256]")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    bench.set_defaults(command=_bench)


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


def _inspect(arguments: argparse.Namespace) -> int:
    sources = [parse_source(text) for text in (*arguments.folders, *arguments.pairs)]
    if not sources:
        raise DataError("expected folders or tables to inspect")
    for file in (arguments.sheet, arguments.json):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    report = survey(sources, patient_pattern=arguments.patient_pattern, sheet=arguments.sheet)
    print(report.describe())
    if arguments.json:
        report.write(arguments.json)
    return 1 if report.findings else 0


def _phantom(arguments: argparse.Namespace) -> None:
    write_phantom_set(
        arguments.out,
        count=arguments.count,
        patients=arguments.patients,
        side=arguments.size,
        file_format=arguments.format,
        seed=arguments.seed,
    )
    print(f"wrote {arguments.count} slices of {arguments.patients} patients to {arguments.out}")


def _bench(arguments: argparse.Namespace) -> None:
    from training.commands.bench import bench  # takes Keras along

    bench(slices=arguments.slices, grid=arguments.grid, json_file=arguments.json)
