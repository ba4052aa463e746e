"""A U-Net for processors: most of the accuracy of the classic one at an eighth of its cost.

What it leaves out is what costs time at high resolution and adds little there. The grid is
halved by the first convolution and again by the second; the decoder adds the encoder's
features (as LinkNet does, Chaurasia & Culurciello 2017, arXiv 1707.03718) instead of joining
them, after a 1×1 convolution and bilinear enlargement that keep ONNX Runtime in its blocked
layout; one convolution a level follows. A transposed convolution brings the probabilities
back to the full grid.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from training.config import TrainConfig
from training.networks.blocks import convolve, full_grid_logits
from training.networks.encoders import ENCODER

LEVELS = (1, 2, 4, 6, 8, 8)
"""Channels of each level as multiples of ``width``; each level halves the one before."""
ENTRANCES = ((4, 2), (3, 2), (3, 1))
"""Kernel and stride of the convolution that enters the first, the second and all other levels."""


def light_logits(x: Any, config: TrainConfig) -> Any:
    """Builds the network's body.

    Args:
        x: slices in [0, 1], shape (N, grid, grid, 1).
        config: its ``width``.

    Returns:
        Logits of lung, shape (N, grid, grid, 1).
    """
    skips: list[Any] = []
    for level, multiple in enumerate(LEVELS):
        channels, name = config.width * multiple, f"{ENCODER}_{level}"
        if level > 1:
            x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
        size, strides = ENTRANCES[min(level, 2)]
        x = convolve(x, channels, size, config, f"{name}_enter", strides=strides)
        if level:
            x = convolve(x, channels, 3, config, name)
        skips.append(x)
    for level in reversed(range(len(LEVELS) - 1)):
        channels, name = config.width * LEVELS[level], f"decoder_{level}"
        x = convolve(x, channels, 1, config, f"{name}_narrow")
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_enlarge")(x)
        x = layers.Add(name=f"{name}_join")([x, skips[level]])
        x = convolve(x, channels, 3, config, name)
    return full_grid_logits(x)
