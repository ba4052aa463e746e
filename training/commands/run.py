"""Commands that publish: run, from slices and masks without a hand on it, and export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.commands.data import add_source_flags, given_sources
from training.config import add_flags, given_flags, read_config
from training.fitting.state import expect_begun
from training.release.target import Release, expect_publishable


def register(commands: Any) -> None:
    """Adds the commands to the parser."""
    parser = commands.add_parser("run", help="from a folder of slices and masks to a model version")
    add_source_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, to resume too")
    parser.add_argument("--resume", action="store_true", help="refuse to begin a new run in --out")
    parser.add_argument("--config", type=Path, help="TOML file of recipe settings")
    _add_release_flags(parser)
    add_flags(parser)
    parser.set_defaults(command=run)
    again = commands.add_parser("export", help="publish a run's best network as a new version")
    again.add_argument("run", type=Path, help="folder of the run")
    _add_release_flags(again)
    again.set_defaults(command=_export)


def run(arguments: argparse.Namespace) -> None:
    """Trains and publishes; a cross-validation, or one round of it, publishes nothing."""
    if arguments.resume:
        expect_begun(arguments.out)
    sources, out = given_sources(arguments), arguments.out
    config = read_config(arguments.config, given_flags(arguments))
    release = _given_release(arguments, out)
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


def _export(arguments: argparse.Namespace) -> None:
    from training.release.export import export

    export(arguments.run, _given_release(arguments, arguments.run))


def _add_release_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of models")
    parser.add_argument("--name", help="of the model; by default the run folder's name")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="data to measure on")
    parser.add_argument("--foreword", type=Path, help="Markdown file that the card begins with")
    parser.add_argument("--quantize", choices=("int8",), help="publish a quantised model")
    parser.add_argument("--force", action="store_true", help="publish even a worse version")


def _given_release(arguments: argparse.Namespace, run: Path) -> Release:
    return Release(
        models=arguments.models,
        name=arguments.name or run.resolve().name,
        external=tuple(arguments.external),
        force=arguments.force,
        int8=arguments.quantize == "int8",
        foreword=arguments.foreword,
    )
