"""What a network to start from says of itself: its settings, and what it has learnt."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from training.config import TrainConfig, known_settings, read_values
from training.data.learnt import PROVENANCE, Learnt, read_learnt
from training.errors import DataError
from training.fitting.state import CONFIG

SHAPE = ("network", "encoder", "width", "depth", "stem", "decoder", "grid")
"""Settings that decide which weights a network has: those that it was trained with, no others."""
MANNER = (
    "grid_covers",
    "batch_norm_momentum",
    "window_low_hu",
    "window_high_hu",
    "white_percentile",
    "skip_padding",
    "threshold",
    "largest_components",
)
"""Settings that its weights are used to: taken over, unless others are asked for."""
RECIPE_OF_ITS_OWN = (
    "patient_pattern", "validation_fraction", "held_out", "keep", "seed", "folds", "fold",
    "skip_unreadable", "init_from", "encoder_weights", "freeze", "early_stopping", "kept_epoch",
    "mixed_precision", "strategy", "average_momentum",
)  # fmt: skip
"""Settings that belong to other data or another machine: fine-tuning does not take them over. An
average over more steps than a few slices make would hold on to the network as it was."""
TUNING_EPOCHS = 20
"""Most of what new slices teach a network that has seen lungs is learnt in ten (EXPERIMENTS, A)."""
TUNING_RATE = 1 / 3
"""Of the rate that the network was trained with: a higher one forgets more than it learns (C)."""


def read_recipe(path: Path | None, flags: dict[str, Any]) -> TrainConfig:
    """The recipe of a run; one that starts from a network takes that network's settings over.

    Args:
        path: a TOML file, None for the defaults.
        flags: what the command line gave.

    Raises:
        DataError: the file is no TOML, a setting is unknown, or it contradicts the network.
    """
    given = read_values(path) | flags
    if not given.get("init_from"):
        return TrainConfig(**given)
    source = Path(given["init_from"])
    own = settings_of(source) or {}
    for name in SHAPE:
        if name in own and given.get(name, own[name]) != own[name]:
            raise DataError(
                f"{name}: {given[name]} was asked for, but the network of {source} has "
                f"{own[name]}; leave the setting out to take the network's own"
            )
    return TrainConfig(**{name: own[name] for name in (*SHAPE, *MANNER) if name in own} | given)


def tuning_recipe(source: Path, given: dict[str, Any]) -> TrainConfig:
    """The recipe that fine-tunes a published network: its own, shorter and more careful.

    Args:
        source: folder of the model.
        given: settings that are laid over it.

    Raises:
        DataError: the folder says nothing of the settings, or as for ``read_recipe``.
    """
    own = settings_of(source)
    if own is None:
        raise DataError(
            f"{source}: expected a model's or a run's folder that says how it was trained "
            f"({PROVENANCE} or {CONFIG}); name another one with --init-from"
        )
    recipe = {name: value for name, value in own.items() if name not in RECIPE_OF_ITS_OWN}
    recipe |= {
        "epochs": TUNING_EPOCHS,
        "learning_rate": float(f"{TUNING_RATE * own['learning_rate']:.2g}"),
        "schedule": "cosine",
        "warmup_epochs": 1.0,
    }
    for name in SHAPE:
        recipe.pop(name, None)  # ``read_recipe`` takes them over, or says what contradicts them
    return read_recipe(None, recipe | given | {"init_from": str(source)})


def settings_of(source: Path) -> dict[str, Any] | None:
    """The settings that a model, a run or a file of one was trained with, None where unknown.

    Raises:
        DataError: the record is damaged.
    """
    folder = source if source.is_dir() else source.parent
    for name, read in ((CONFIG, _of_run), (PROVENANCE, _of_model)):
        if (folder / name).is_file():
            try:
                return known_settings(read((folder / name).read_text()))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{folder / name}: the record is damaged ({error})") from error
    return None


def seen_by(init_from: str) -> Learnt | None:
    """What the network that a recipe starts from has learnt; None for none, or one unknown.

    Raises:
        DataError: the record is damaged.
    """
    if not init_from:
        return None
    source = Path(init_from)
    return read_learnt(source if source.is_dir() else source.parent)


def inherited(init_from: str) -> list[dict[str, Any]] | None:
    """The sources that the network which a recipe starts from has learnt from.

    Returns:
        Entries as those of a record's ``sources``; None where nothing tells them.
    """
    if not init_from:
        return []
    source = Path(init_from)
    path = (source if source.is_dir() else source.parent) / PROVENANCE
    try:
        record = json.loads(path.read_text())
        first = not (settings_of(source) or {"init_from": "unknown"})["init_from"]
        before = record.get("inherited", [] if first else None)
        learnt = [entry for entry in record["sources"] if entry["training"]]
        return None if before is None else [*learnt, *before]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # what is damaged is said where its settings are read


def _of_run(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def _of_model(text: str) -> dict[str, Any]:
    return json.loads(text)["config"]
