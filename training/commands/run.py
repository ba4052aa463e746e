"""Commands that publish: run, from slices and masks without a hand on it, finetune and export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.commands.data import add_source_flags, given_sources
from training.config import add_flags, given_flags, read_config, read_values
from training.data.learnt import PROVENANCE
from training.data.sources import list_source, parse_source
from training.errors import DataError
from training.fitting.start import read_recipe, tuning_recipe
from training.fitting.state import CONFIG, expect_begun
from training.release.target import Release, expect_publishable, latest

DEFAULT_NAME = "lung-unet"
"""The shipped model, which fine-tuning starts from."""
OLD_DATA = Path("../shared/data/kaggle-lungs")
"""What the shipped model learnt from, where the checkout has it beside it."""
MINIMUM_DICE = 0.8
"""Mean Dice below which a network has not learnt what a lung is: ``lung-unet`` has 0.93 or more."""


def register(commands: Any) -> None:
    """Adds the commands to the parser."""
    parser = commands.add_parser("run", help="from a folder of slices and masks to a model version")
    add_source_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, to resume too")
    parser.add_argument("--resume", action="store_true", help="refuse to begin a new run in --out")
    parser.add_argument("--config", type=Path, help="TOML file of recipe settings")
    _add_release_flags(parser, "the run folder's name")
    add_flags(parser)
    parser.set_defaults(command=run)
    tuned = commands.add_parser(
        "finetune", help="teach a published model your slices, and see what it gains and forgets"
    )
    add_source_flags(tuned)
    tuned.add_argument(
        "--old-data",
        nargs="+",
        default=[str(OLD_DATA)] if OLD_DATA.is_dir() else [],
        metavar="[NAME=]DIR",
        help="what the model learnt from before: its validation slices are measured, too "
        f"[{OLD_DATA} where that is]",
    )
    tuned.add_argument("--out", type=Path, help="folder of the run [runs/NAME-finetuned]")
    tuned.add_argument("--config", type=Path, help="TOML file of settings to change")
    _add_release_flags(tuned, "that of the model it starts from")
    add_flags(tuned)
    tuned.set_defaults(command=finetune)
    again = commands.add_parser("export", help="publish a run's best network as a new version")
    again.add_argument("run", type=Path, help="folder of the run")
    _add_release_flags(again, "the run folder's name")
    again.set_defaults(command=_export)


def run(arguments: argparse.Namespace) -> None:
    """Trains and publishes; a cross-validation, or one round of it, publishes nothing."""
    if arguments.resume:
        expect_begun(arguments.out)
    sources, out = given_sources(arguments), arguments.out
    config = read_recipe(arguments.config, given_flags(arguments))
    release = _given_release(arguments, arguments.name or out.resolve().name)
    if config.folds and not config.fold:
        from training.release.folds import cross_validate  # Keras takes seconds to import

        cross_validate(sources, out, config, release)
        return
    if not config.folds:
        expect_publishable(release, config)  # known now, not after a night of training
    from training.fitting.train import train

    chief = train(sources, out, config)
    if chief and not config.folds:
        from training.release.export import export

        export(out, release)


def finetune(arguments: argparse.Namespace) -> None:
    """Trains a published network on, and says what that changed on new and on old slices."""
    sources = given_sources(arguments)
    given = read_values(arguments.config) | given_flags(arguments)
    start = _given_start(arguments, given)
    name = arguments.name or (start.resolve().parent.name if start.name.isdigit() else DEFAULT_NAME)
    out = arguments.out or Path("runs") / f"{name}-finetuned"
    if (out / CONFIG).is_file():  # the same command goes on from where the run began
        start = Path(read_config(out / CONFIG, {}).init_from or start)
    if not (start / "contract.json").is_file():
        raise DataError(
            f"{start}: expected the folder of a published model, with its {PROVENANCE} and .keras "
            "file; name one with --init-from, or begin from other weights with `run --init-from`"
        )
    config = tuning_recipe(start, given)
    if config.folds:
        raise DataError("folds: fine-tuning has one split; --init-from of `run` takes folds")
    release = _given_release(arguments, name)
    expect_publishable(release, config)
    known = [parse_source(text) for text in arguments.old_data]
    # Each by itself: a pattern for the new slices need not match their names.
    old = [list_source(source, patient_pattern=config.patient_pattern) for source in known]
    from training.fitting.train import train
    from training.fitting.transfer import find_network

    find_network(start)  # a model without its Keras file is known now, before slices are read
    if train(sources, out, config):
        from training.release.export import export

        export(out, release, old=tuple(pair for listing in old for pair in listing.pairs))


def _given_start(arguments: argparse.Namespace, settings: dict[str, Any]) -> Path:
    """The folder of the model to start from: the one that is named, or the newest version.

    Of the name that is published to, or, where that is new, of the shipped model.
    """
    if settings.get("init_from"):
        given = Path(settings["init_from"])
        start = given.parent if given.is_file() else given
        return latest(start) or start
    families = (arguments.name, DEFAULT_NAME)
    newest = (latest(arguments.models / family) for family in families if family)
    return next((folder for folder in newest if folder), arguments.models / DEFAULT_NAME)


def _export(arguments: argparse.Namespace) -> None:
    from training.release.export import export

    export(arguments.run, _given_release(arguments, arguments.name or arguments.run.resolve().name))


def _add_release_flags(parser: argparse.ArgumentParser, default_name: str) -> None:
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of models")
    parser.add_argument("--name", help=f"of the model; by default {default_name}")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="data to measure on")
    parser.add_argument("--foreword", type=Path, help="Markdown file that the card begins with")
    parser.add_argument("--quantize", choices=("int8",), help="publish a quantised model")
    parser.add_argument(
        "--minimum-dice",
        type=float,
        default=MINIMUM_DICE,
        help=f"mean Dice of the validation slices to publish from [{MINIMUM_DICE}]",
    )
    parser.add_argument("--force", action="store_true", help="publish even a worse version")


def _given_release(arguments: argparse.Namespace, name: str) -> Release:
    return Release(
        models=arguments.models,
        name=name,
        external=tuple(arguments.external),
        force=arguments.force,
        int8=arguments.quantize == "int8",
        minimum_dice=arguments.minimum_dice,
        foreword=arguments.foreword,
    )
