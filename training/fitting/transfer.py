"""Starts a network from one that was fitted before."""

from __future__ import annotations

from pathlib import Path

import keras

from training.errors import DataError
from training.fitting.checkpoints import BEST, load_network
from training.networks.encoders import ENCODER


def initialise(model: keras.Model, source: Path) -> None:
    """Copies all weights of an earlier network of the same architecture.

    Args:
        model: the new network, changed in place.
        source: a ``.keras`` file, a run's folder, or a model's folder that holds its one.

    Raises:
        DataError: there is no such file, or its network has another architecture.
    """
    path = find_network(source)
    earlier = load_network(path)
    wanted, found = ([tuple(w.shape) for w in m.weights] for m in (model, earlier))
    if wanted != found:
        raise DataError(
            f"{path}: its network has {earlier.count_params():,} parameters, the recipe's has "
            f"{model.count_params():,}; set grid, width, depth, stem, decoder and encoder as in "
            "the configuration that it was trained with"
        )
    model.set_weights(earlier.get_weights())


def find_network(source: Path) -> Path:
    """The ``.keras`` file that a path means.

    Raises:
        DataError: none, or several.
    """
    if source.is_file():
        return source
    if (source / BEST).is_file():
        return source / BEST
    files = sorted(source.glob("*.keras")) if source.is_dir() else []
    if len(files) != 1:
        raise DataError(
            f"{source}: expected a .keras file, or a run's or model's folder that holds one, "
            f"found {len(files)}"
        )
    return files[0]


def freeze_encoder(model: keras.Model) -> int:
    """Keeps the encoder as it is, its batch statistics too; returns how many layers that are."""
    frozen = [layer for layer in model.layers if layer.name.startswith(ENCODER)]
    for layer in frozen:
        layer.trainable = False
    return len(frozen)
