"""The U-Net (Ronneberger 2015, arXiv 1505.04597) in backend-neutral Keras 3."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from training.config import TrainConfig
from training.networks.blocks import convolve, full_grid_logits
from training.networks.encoders import ENCODER, application_features
from training.networks.light import light_logits

INPUT_NAME = "image"
OUTPUT_NAME = "mask"


def build_unet(config: TrainConfig) -> keras.Model:
    """Builds the network, grey levels 0…255 in, lung probability out.

    The light one is described in ``light``. The classic one's encoder halves the grid
    ``depth`` times by max pooling and doubles the channels each time; its decoder upsamples and
    joins the encoder's features of the same level. With the half stem a strided 4×4 convolution
    halves the grid before the first level, and a transposed one brings the probabilities back to
    it: a quarter of the work. Another encoder takes the place of the classic one's and halves
    the grid five times.

    Returns:
        A model from (N, grid, grid, 1) float32 in [0, 255] to (N, grid, grid, 1) in [0, 1].

    Raises:
        DataError: the weights of another encoder can't be had.
    """
    image: Any = keras.Input((config.grid, config.grid, 1), name=INPUT_NAME)
    if config.network == "light":
        logits = light_logits(_to_unit(image), config)
    else:
        logits = _classic_logits(image, config)
    # Losses and metrics stay in float32 under mixed precision.
    mask = layers.Activation("sigmoid", dtype="float32", name=OUTPUT_NAME)(logits)
    return keras.Model(image, mask, name="unet")


def _classic_logits(image: Any, config: TrainConfig) -> Any:
    if config.encoder == "unet":
        skips, x = _features(image, config)
        half = config.stem == "half"
    else:
        skips, x = application_features(image, config)
        half = True
    if config.dropout:
        x = layers.SpatialDropout2D(config.dropout, name="dropout")(x)
    for level in reversed(range(len(skips))):
        channels = config.width * 2**level
        name = f"decoder_{level}"
        x = _upsample(x, channels, config, name)
        x = layers.Concatenate(name=f"{name}_join")([skips[level], x])
        x = _double_conv(x, channels, config, name)
    if half:
        return full_grid_logits(x)
    return layers.Conv2D(1, 1, name="logits")(x)


def _features(image: Any, config: TrainConfig) -> tuple[list[Any], Any]:
    """Our own encoder: the features of each level, and the bottleneck."""
    x = _to_unit(image)
    if config.stem == "half":
        x = convolve(x, config.width, 4, config, f"{ENCODER}_stem", strides=2)
    skips = []
    for level in range(config.depth):
        x = _double_conv(x, config.width * 2**level, config, f"{ENCODER}_{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{ENCODER}_{level}_pool")(x)
    bottom = f"{ENCODER}_{config.depth}"
    return skips, _double_conv(x, config.width * 2**config.depth, config, bottom)


def _to_unit(image: Any) -> Any:
    return layers.Rescaling(1 / 255.0, name="to_unit")(image)


def _double_conv(x: Any, channels: int, config: TrainConfig, name: str) -> Any:
    for part in ("a", "b"):
        x = convolve(x, channels, 3, config, f"{name}_{part}")
    return x


def _upsample(x: Any, channels: int, config: TrainConfig, name: str) -> Any:
    if config.decoder == "transpose":
        return layers.Conv2DTranspose(channels, 2, strides=2, padding="same", name=f"{name}_up")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_enlarge")(x)
    return layers.Conv2D(
        channels, 2, padding="same", kernel_initializer="he_normal", name=f"{name}_up"
    )(x)
