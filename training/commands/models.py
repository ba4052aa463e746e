"""Commands about exported models: evaluate, stress, rules, compare, cost, golden, card."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lungseg.inference.errors import BundleError
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from training.commands.data import add_source_flags, given_sources
from training.config import PATIENT_PATTERN
from training.data.dataset import Pair
from training.data.learnt import PROVENANCE, read_learnt
from training.data.sources import list_sources
from training.data.split import in_groups
from training.errors import DataError
from training.evaluation.compare import compare_models, group_setbacks
from training.evaluation.doubts import format_doubts
from training.evaluation.evaluate import (
    evaluate,
    format_table,
    summarise,
    summarise_by,
    worst,
    write_slices,
)
from training.evaluation.groups import format_groups
from training.evaluation.report import write_report
from training.evaluation.rules import format_rules, try_rules
from training.evaluation.stress import format_stress, joined, stress
from training.release.credits import CARD, renew_card
from training.release.golden import GOLDEN, write_golden
from training.synthetic.views import STANDARD_WINDOWS_HU, through_window


def register(commands: Any) -> None:
    """Adds the commands to the parser."""
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
    proof = commands.add_parser("golden", help="give bundles a new golden scan")
    proof.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folder NAME/VERSION")
    proof.set_defaults(command=_golden)
    credit = commands.add_parser("card", help="write licences and origin into cards anew")
    credit.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folder NAME/VERSION")
    credit.set_defaults(command=_card)


def _add_data_flags(parser: argparse.ArgumentParser, subset: str = "all") -> None:
    add_source_flags(parser)
    parser.add_argument("--patient-pattern", default=PATIENT_PATTERN, help="names the patient")
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="FILE.csv",
        help="only the patients of a table of source and patient",
    )
    parser.add_argument(
        "--subset",
        choices=("all", "validation"),
        default=subset,
        help=f"all pairs, or only those that the model was not trained on [{subset}]",
    )


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
    if any(result.areas is not None for result in results):
        print(f"\n{format_groups(results)}")
    learnt = read_learnt(arguments.model)
    count = sum(learnt.holds(pair) for pair in pairs) if learnt else 0
    if count:
        print(
            f"\n{count} of the {len(pairs)} slices are ones that the model learnt from, or of such "
            "patients: the figures are too good; --subset validation measures only the others"
        )
    print(f"\n{format_doubts(results)}")
    print("\nworst slices:")
    for result in worst(results):
        print(f"  {result.pair.source}/{result.pair.name}: Dice {result.metrics.dice:.4f}")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_slices(results, arguments.out / "slices.csv")
        write_report(model, results, groups, arguments.out / "report.html")
        print(f"\nwrote slices.csv and report.html to {arguments.out}")


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
    records = [read_learnt(folder) for folder in (arguments.a, arguments.b)]
    fresh = [pair for pair in pairs if not any(record and record.holds(pair) for record in records)]
    if not fresh:
        raise DataError(
            f"all {len(pairs)} slices are ones that A or B learnt from, or of such patients; "
            "compare on slices that neither has seen"
        )
    if len(fresh) < len(pairs):
        print(f"{len(pairs) - len(fresh)} slices that A or B learnt from are left out")
    pairs = fresh
    a, b = (list(evaluate(_load(folder), pairs)) for folder in (arguments.a, arguments.b))
    outcome = replace(compare_models(a, b), setbacks=group_setbacks(a, b))
    print(outcome.describe())
    return 0 if outcome.may_replace else 1


def _cost(arguments: argparse.Namespace) -> None:
    from training.evaluation.cost import cost, format_cost  # builds the classic network with Keras

    for folder in arguments.models:
        _load(folder)
    print(format_cost(cost(arguments.models, threads=arguments.threads, rounds=arguments.rounds)))


def _golden(arguments: argparse.Namespace) -> None:
    for folder in arguments.models:
        model = _load(folder)  # what it holds now has to hold, before it is replaced
        write_golden(folder.resolve(), model.contract, model.session)
        _load(folder)
        print(f"renewed {folder / GOLDEN}")


def _card(arguments: argparse.Namespace) -> None:
    for folder in arguments.models:
        renew_card(folder)
        print(f"renewed {folder / CARD}")


def _load(folder: Path) -> Model:
    try:
        return Model.load(folder.resolve(), Engine())
    except BundleError as error:
        raise DataError(f"{folder}: {error}") from error


def _pairs(arguments: argparse.Namespace, model: Path) -> list[Pair]:
    pattern = arguments.patient_pattern
    listings = list_sources(given_sources(arguments), patient_pattern=pattern)
    pairs = [pair for listing in listings for pair in listing.pairs]
    if arguments.held_out:
        pairs = in_groups(pairs, arguments.held_out)
        if not pairs:
            raise DataError(f"{arguments.held_out}: names no patient that is in the data")
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
