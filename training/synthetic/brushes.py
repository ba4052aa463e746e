"""What the painters of ``anatomy`` and ``lumps`` paint with, on planes of one slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.core.resample import resample
from training.data.pieces import Plane

NOISE_HU = 15.0
"""Standard deviation of the noise of painted tissue."""


def noise(shape: tuple[int, ...], random: np.random.Generator) -> Plane:
    """Of painted tissue."""
    return np.float32(NOISE_HU) * random.standard_normal(shape, np.float32)


def ellipse(
    shape: tuple[int, ...],
    centre: NDArray[np.float64],
    radii: NDArray[np.float64],
    random: np.random.Generator,
) -> Plane:
    """A tilted superellipse with an edge of about a pixel."""
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(shape[1], dtype=np.float32) - np.float32(centre[1])
    tilt, power = random.uniform(-0.6, 0.6), random.uniform(1.8, 2.8)
    v = (np.cos(tilt) * y + np.sin(tilt) * x) / max(1.0, radii[0])
    u = (-np.sin(tilt) * y + np.cos(tilt) * x) / max(1.0, radii[1])
    reach = np.abs(v) ** power + np.abs(u) ** power
    # Near the edge, power · (1 − distance) ≈ 1 − reach: no second power is needed.
    return np.clip((1 - reach) * (max(1.0, radii.min()) / power) + 0.5, 0, 1).astype(np.float32)


def cloud(shape: tuple[int, ...], random: np.random.Generator, cells: int = 10) -> Plane:
    """Smooth noise with a standard deviation of about 1 and structures of a cell's size."""
    return resample(random.standard_normal((cells, cells), np.float32), (shape[0], shape[1]))


def grown(region: Plane, pixels: float) -> Plane:
    """The region with a soft margin, so that painting leaves no rim where it was drawn tight."""
    return np.clip(2.5 * blurred(region, pixels), 0, 1).astype(np.float32)


def blurred(region: Plane, pixels: float) -> Plane:
    """The region with edges as wide as twice so many pixels."""
    size = max(1, 2 * round(pixels) + 1)
    once = ndimage.uniform_filter(region, size, mode="nearest")
    return np.asarray(ndimage.uniform_filter(once, size), np.float32)


def blend(ground: Plane, paint: NDArray[np.floating], amount: NDArray[np.floating]) -> Plane:
    """The paint over the ground, as much of it as ``amount`` says of each pixel."""
    return (ground + (paint - ground) * amount).astype(np.float32)
