"""The command that goes from slices and masks to a published version, without a hand on it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.commands.flags import (
    add_release_flags,
    add_source_flags,
    given_release,
    given_sources,
)
from training.config import add_flags, given_flags, read_config
from training.fitting.state import expect_begun
from training.release.target import expect_publishable


def register(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser("run", help="from a folder of slices and masks to a model version")
    add_source_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, to resume too")
    parser.add_argument("--resume", action="store_true", help="refuse to begin a new run in --out")
    parser.add_argument("--config", type=Path, help="TOML file of recipe settings")
    add_release_flags(parser)
    add_flags(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Trains and publishes; a cross-validation, or one round of it, publishes nothing."""
    if arguments.resume:
        expect_begun(arguments.out)
    sources, out = given_sources(arguments), arguments.out
    config = read_config(arguments.config, given_flags(arguments))
    release = given_release(arguments, out)
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
