"""Commands about exported models: export, evaluate, stress, rules, compare, cost."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lungseg.inference.errors import BundleError
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from training.compare import compare
from training.data_commands import add_source_flags, given_sources
from training.dataset import PATIENT_PATTERN, Pair
from training.errors import DataError
from training.evaluate import (
    SliceResult,
    evaluate,
    format_table,
    summarise,
    summarise_by,
    worst,
    write_slices,
)
from training.material import PROVENANCE
from training.rules import format_rules, try_rules
from training.run import Release, export
from training.sources import list_sources
from training.stress import format_stress, joined, stress
from training.views import STANDARD_WINDOWS_HU, through_window

WORST_CASES = 12


def register(commands: Any) -> None:
    """Adds the commands to the parser."""
    export = commands.add_parser("export", help="publish a run's best network as a new version")
    export.add_argument("run", type=Path, help="folder of the run")
    add_release_flags(export)
    export.set_defaults(command=_export)
    measure = commands.add_parser("evaluate", help="measure an exported model on slices")
    measure.add_argument("--model", type=Path, required=True, help="folder NAME/VERSION")
    _add_data_flags(measure)
    measure.add_argument("--windows", action="store_true", help="also as 8-bit pictures")
    measure.add_argument("--out", type=Path, help="folder for slices.csv and report.html")
    measure.set_defaults(command=_evaluate)
    harder = commands.add_parser("stress", help="measure exported models on changed slices")
    harder.add_argument(
        "--model",
        type=Path,
        required=True,
        nargs="+",
        help="folder NAME/VERSION; several, as of a cross-validation, each on its own slices",
    )
    _add_data_flags(harder, subset="validation")
    harder.add_argument("--limit", type=int, help="slices of each model at most, evenly chosen")
    harder.set_defaults(command=_stress)
    repairs = commands.add_parser("rules", help="whether rules that repair masks would help")
    repairs.add_argument("--model", type=Path, required=True, help="folder NAME/VERSION")
    _add_data_flags(repairs, subset="validation")
    repairs.add_argument("--limit", type=int, help="slices at most, evenly chosen")
    repairs.set_defaults(command=_rules)
    against = commands.add_parser("compare", help="whether model B may replace model A")
    against.add_argument("a", type=Path, metavar="A", help="folder of the model in place")
    against.add_argument("b", type=Path, metavar="B", help="folder of the candidate")
    _add_data_flags(against)
    against.set_defaults(command=_compare)
    price = commands.add_parser("cost", help="time models beside the classic U-Net")
    price.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folder NAME/VERSION")
    price.add_argument("--threads", type=int, default=2, help="of one inference [2]")
    price.add_argument("--rounds", type=int, default=50, help="runs of each [50]")
    price.set_defaults(command=_cost)


def add_release_flags(parser: argparse.ArgumentParser) -> None:
    """Adds where and how to publish."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of models")
    parser.add_argument("--name", help="of the model; by default the run folder's name")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="data to measure on")
    parser.add_argument("--quantize", choices=("int8",), help="publish a quantised model")
    parser.add_argument("--force", action="store_true", help="publish even a worse version")


def make_release(arguments: argparse.Namespace, run: Path) -> Release:
    """Where and how to publish, from the flags."""
    return Release(
        models=arguments.models,
        name=arguments.name or run.resolve().name,
        external=tuple(arguments.external),
        force=arguments.force,
        int8=arguments.quantize == "int8",
    )


def _add_data_flags(parser: argparse.ArgumentParser, subset: str = "all") -> None:
    add_source_flags(parser)
    parser.add_argument(
        "--subset",
        choices=("all", "validation"),
        default=subset,
        help=f"all pairs, or only those that the model was not trained on [{subset}]",
    )


def _export(arguments: argparse.Namespace) -> None:
    export(arguments.run, make_release(arguments, arguments.run))


def _evaluate(arguments: argparse.Namespace) -> None:
    model = _load(arguments.model)
    pairs = _pairs(arguments, arguments.model)
    results = list(evaluate(model, pairs))
    groups = [summarise("all", results)]
    by_source = summarise_by(results, lambda result: result.pair.source)
    groups += by_source if len(by_source) > 1 else []
    if arguments.windows:
        for low, high in STANDARD_WINDOWS_HU:
            shown = list(evaluate(model, pairs, vary=through_window(low, high)))
            groups.append(summarise(f"8 bit, window [{low:g}, {high:g}]", shown))
    print(format_table(groups))
    print("\nworst slices:")
    for result in worst(results, WORST_CASES):
        print(f"  {result.pair.source}/{result.pair.name}: Dice {result.metrics.dice:.4f}")
    if arguments.out:
        _write_results(arguments.out, model, results, groups)


def _write_results(out: Path, model: Model, results: list[SliceResult], groups: Any) -> None:
    from training.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    write_slices(results, out / "slices.csv")
    write_report(model, results, groups, out / "report.html")
    print(f"\nwrote slices.csv and report.html to {out}")


def _stress(arguments: argparse.Namespace) -> None:
    tables = [
        stress([_load(folder)], _pairs(arguments, folder), limit=arguments.limit)[0]
        for folder in arguments.model
    ]
    print(format_stress(joined(tables)))


def _rules(arguments: argparse.Namespace) -> None:
    model, pairs = _load(arguments.model), _pairs(arguments, arguments.model)
    print(format_rules(try_rules(model, pairs, limit=arguments.limit)))


def _compare(arguments: argparse.Namespace) -> int:
    pairs = _pairs(arguments, arguments.b)
    a, b = (list(evaluate(_load(folder), pairs)) for folder in (arguments.a, arguments.b))
    outcome = compare(a, b)
    print(outcome.describe())
    return 0 if outcome.may_replace else 1


def _cost(arguments: argparse.Namespace) -> None:
    from training.cost import cost, format_cost  # builds the classic network with Keras

    for folder in arguments.models:
        _load(folder)
    print(format_cost(cost(arguments.models, threads=arguments.threads, rounds=arguments.rounds)))


def _load(folder: Path) -> Model:
    try:
        return Model.load(folder.resolve(), Engine())
    except BundleError as error:
        raise DataError(f"{folder}: {error}") from error


def _pairs(arguments: argparse.Namespace, model: Path) -> list[Pair]:
    listings = list_sources(given_sources(arguments), patient_pattern=PATIENT_PATTERN)
    pairs = [pair for listing in listings for pair in listing.pairs]
    if arguments.subset == "all":
        return pairs
    try:
        names = set(json.loads((model / PROVENANCE).read_text())["validation"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{model}: holds no {PROVENANCE} that names validation slices") from error
    held_out = [pair for pair in pairs if f"{pair.source}/{pair.name}" in names]
    if not held_out:
        raise DataError(f"none of the model's {len(names)} validation slices is in the data")
    return held_out
