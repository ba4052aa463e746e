"""What is to be published, and where: what can be known before the training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from training.config import TrainConfig
from training.data.dataset import Pair
from training.data.sources import list_sources, parse_source
from training.errors import DataError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Of a model, as ``lungseg.inference.contract`` wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is to be published, and where.

    Attributes:
        models: folder of all models.
        name: of the model.
        external: folders or tables of slices to measure on, never trained on.
        force: publish although the version in place is better; the card says so.
        int8: quantise, and refuse when that costs too much.
        minimum_dice: mean Dice on the validation slices below which nothing is published.
        foreword: Markdown file that the card begins with: where this version is worse than the
            one before.
    """

    models: Path
    name: str
    external: tuple[Path, ...] = ()
    force: bool = False
    int8: bool = False
    minimum_dice: float = 0.0
    foreword: Path | None = None


def expect_publishable(release: Release, config: TrainConfig) -> tuple[Pair, ...]:
    """Refuses what could only fail after the training; returns the external pairs.

    Raises:
        DataError: the name can't be a model's, or external slices or the foreword are missing.
    """
    if not NAME.fullmatch(release.name):
        raise DataError(
            f"{release.name!r} can't be a model's name: expected at most 64 of a-z, 0-9, '.', '_' "
            "and '-', a letter or digit first; choose one with --name"
        )
    if not 0 <= release.minimum_dice <= 1:
        raise DataError(f"--minimum-dice: expected 0 to 1, got {release.minimum_dice:g}")
    if release.foreword is not None and not release.foreword.is_file():
        raise DataError(f"{release.foreword}: expected a Markdown file to begin the card with")
    sources = [parse_source(str(path)) for path in release.external]
    listings = list_sources(sources, patient_pattern=config.patient_pattern)
    return tuple(pair for listing in listings for pair in listing.pairs)


def next_version(family: Path) -> str:
    """One more than the highest version in a model's folder."""
    numbers = [int(path.name) for path in family.glob("[0-9]*") if path.name.isdigit()]
    return str(max(numbers, default=0) + 1)


def latest(family: Path) -> Path | None:
    """The newest version's folder, None for a new model."""
    number = int(next_version(family)) - 1
    return family / str(number) if number else None
