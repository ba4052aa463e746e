"""What the networks are made of."""

from __future__ import annotations

from typing import Any

from keras import layers

from training.config import TrainConfig


def convolve(
    x: Any, channels: int, size: int, config: TrainConfig, name: str, *, strides: int = 1
) -> Any:
    """Convolution, batch normalisation and ReLU; the output keeps the side, over ``strides``."""
    x = layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=config.batch_norm_momentum, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def full_grid_logits(x: Any) -> Any:
    """Logits of the full grid from features at half of it."""
    return layers.Conv2DTranspose(1, 4, strides=2, padding="same", name="logits")(x)
