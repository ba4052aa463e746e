"""Encoders of ``keras.applications`` for the U-Net's decoder, with or without their weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
from keras import layers

from training.config import TrainConfig
from training.errors import DataError

ENCODER = "encoder"
"""Name of the network's encoder, by which it is frozen."""
LEVELS = 5
"""How often these encoders halve the grid."""
_TO_SYMMETRIC = {"scale": 1 / 127.5, "offset": -1.0}
_APPLICATIONS = {
    # What each was fitted to see of grey levels 0…255; EfficientNets scale by themselves.
    "mobilenetv2": ("MobileNetV2", _TO_SYMMETRIC),
    "resnet50v2": ("ResNet50V2", _TO_SYMMETRIC),
    "efficientnetb0": ("EfficientNetB0", None),
    "efficientnetb1": ("EfficientNetB1", None),
    "efficientnetv2b0": ("EfficientNetV2B0", None),
    # ImageNet's channel means and deviations, of which one grey can take only the middle.
    "densenet121": ("DenseNet121", {"scale": 1 / (255 * 0.226), "offset": -0.449 / 0.226}),
}


def application_features(image: Any, config: TrainConfig) -> tuple[list[Any], Any]:
    """Features of a keras.applications network.

    Args:
        image: grey levels 0…255, shape (N, grid, grid, 1).
        config: the encoder's name and where its weights come from.

    Returns:
        Features at 1/2, 1/4, 1/8 and 1/16 of the grid, and those at 1/32.

    Raises:
        DataError: the weights can't be had or belong to another network.
    """
    name, scaling = _APPLICATIONS[config.encoder]
    backbone = _backbone(name, config)
    ends = [_last_of(backbone, config.grid // 2**level) for level in range(1, LEVELS + 1)]
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = config.batch_norm_momentum  # theirs is for a thousand times the steps
    encoder = keras.Model(backbone.input, ends, name=ENCODER)
    x = layers.Concatenate(name="to_colour")([image, image, image])
    if scaling is not None:
        x = layers.Rescaling(**scaling, name="to_encoder")(x)
    *skips, deepest = encoder(x)
    return skips, deepest


def _backbone(name: str, config: TrainConfig) -> keras.Model:
    build = getattr(keras.applications, name)
    shape = (config.grid, config.grid, 3)
    if config.encoder_weights == "imagenet":
        try:
            return build(include_top=False, weights="imagenet", input_shape=shape)
        except Exception as error:  # Keras wraps whatever a download can raise
            raise DataError(
                f"the ImageNet weights of {config.encoder} can't be downloaded ({error}); fetch "
                "them elsewhere and name the file, --encoder-weights FILE"
            ) from error
    backbone = build(include_top=False, weights=None, input_shape=shape)
    if config.encoder_weights != "none":
        _load(backbone, Path(config.encoder_weights), config.encoder)
    return backbone


def _load(backbone: keras.Model, path: Path, encoder: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file of encoder weights")
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that it finds no weights for, and leaves them random.
            warnings.simplefilter("error", UserWarning)
            backbone.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise DataError(
            f"{path.name}: expected weights of {encoder} without its top ({error})"
        ) from error


def _last_of(backbone: keras.Model, side: int) -> Any:
    """The deepest features of that side: what the encoder knows before it halves the grid."""
    outputs = [
        layer.output for layer in backbone.layers if tuple(layer.output.shape[1:3]) == (side, side)
    ]
    return outputs[-1]
