"""What a slice could have looked like on another scanner, table, window or screen.

Works on pseudo-HU (``training.intensity``) on the network's grid, so that a window means the
same on every data set, and ends in the grey levels that serving would make of such a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from service.core.contract import IntensityRule
from service.core.preprocess import to_grey
from service.core.types import AIR_HU
from training.config import TrainConfig
from training.intensity import SOFT_TISSUE_HU

Plane = NDArray[np.float32]

WINDOW_LOW_HU = (-1400.0, -100.0)
"""Black of a random window: from wide lung windows to mediastinal ones that clip the lung."""
WINDOW_WIDTH_HU = (300.0, 3000.0)
"""White above black: narrow soft-tissue windows to minimum–maximum exports."""
PADDING_HU = (-3500.0, -1000.0)
"""What scanners write outside the field of view; on the scale of ``pseudo_hu``."""
OUTSIDE_HU = (-2048.0, 1000.0)
"""What exports put outside the body: scanner padding to a white page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A slice on the network's grid.

    Attributes:
        hu: pseudo-HU, float32, shape (height, width).
        lung: share of each cell that is lung, float32 in [0, 1].
        body: share of each cell that is body, float32 in [0, 1].
    """

    hu: Plane
    lung: Plane
    body: Plane


def augment(
    piece: Slice, config: TrainConfig, rule: IntensityRule, random: np.random.Generator
) -> tuple[Plane, Plane]:
    """Varies one slice.

    Args:
        piece: the slice.
        config: probabilities and ranges.
        rule: the model's intensity rule.
        random: source of every choice; the same state gives the same result.

    Returns:
        Grey levels in [0, 255] and the lung target in [0, 1], both (height, width) float32.
    """
    piece = _move(piece, config, random)
    piece = _repaint(piece, config, random)
    hu = piece.hu
    if random.random() < 0.5:
        noise = random.normal(0, random.uniform(0, config.noise_hu), hu.shape)
        hu = (hu + noise).astype(np.float32)
    if random.random() < 0.25:
        hu = np.asarray(
            ndimage.gaussian_filter(hu, random.uniform(0, config.blur_pixels)), np.float32
        )
    return render(hu, config, rule, random), piece.lung


def render(
    hu: Plane, config: TrainConfig, rule: IntensityRule, random: np.random.Generator
) -> Plane:
    """Shows pseudo-HU as HU in the model's window, uncalibrated, or as an 8-bit picture."""
    kind = random.random()
    if kind < config.raw_probability:
        return to_grey(hu.astype(np.float32), "grey level", rule)
    if kind >= config.raw_probability + config.window_probability:
        return to_grey(hu.astype(np.float32), "HU", rule)
    low = random.uniform(*WINDOW_LOW_HU)
    width = np.exp(random.uniform(*np.log(WINDOW_WIDTH_HU)))
    high = max(low + width, SOFT_TISSUE_HU + 60)  # a window that clips tissue shows no lung
    unit = np.clip((hu - low) / (high - low), 0, 1)
    unit = unit ** np.exp(random.uniform(-1, 1) * np.log(config.gamma))
    return to_grey(np.rint(unit * 255).astype(np.float32), "grey level", rule)


def _move(piece: Slice, config: TrainConfig, random: np.random.Generator) -> Slice:
    """Rotates, mirrors, zooms and shifts all planes alike."""
    angle = np.deg2rad(random.uniform(-1, 1) * config.rotation_degrees)
    if random.random() < config.turn_probability:
        angle += random.choice((0.5, 1.0, 1.5)) * np.pi
    scale = np.exp(random.uniform(-1, 1) * np.log(config.zoom))
    mirror = -1.0 if random.random() < config.flip_probability else 1.0
    side = np.array(piece.hu.shape)
    shift = random.uniform(-1, 1, 2) * config.shift * side
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = scale * np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([1.0, mirror])
    centre = (side - 1) / 2
    offset = centre - matrix @ (centre + shift)

    def moved(plane: Plane, outside: float) -> Plane:
        return np.asarray(
            ndimage.affine_transform(plane, matrix, offset, order=1, cval=outside), np.float32
        )

    outside_hu = AIR_HU if random.random() < 0.6 else random.uniform(*PADDING_HU)
    hu, lung, body = moved(piece.hu, outside_hu), moved(piece.lung, 0.0), moved(piece.body, 0.0)
    if random.random() < config.padding_probability:
        seen = _inside_circle(hu.shape, random)
        hu = np.where(seen, hu, np.float32(outside_hu))
        lung, body = lung * seen, body * seen
    return Slice(hu=hu, lung=lung, body=body)


def _inside_circle(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.bool_]:
    """A scanner's round field of view."""
    y, x = (np.linspace(-1, 1, side) for side in shape)
    return y[:, None] ** 2 + x**2 <= random.uniform(0.95, 1.3) ** 2


def _repaint(piece: Slice, config: TrainConfig, random: np.random.Generator) -> Slice:
    """Changes what is outside the body or inside the lungs, by the given probabilities."""
    hu, lung = piece.hu, piece.lung
    if random.random() < config.background_probability:
        outside = AIR_HU if random.random() < 0.4 else random.uniform(*OUTSIDE_HU)
        hu = hu * piece.body + np.float32(outside) * (1 - piece.body)
    if random.random() < config.no_lung_probability:
        # Twice the soft edge, so that no dark rim is left where the mask was drawn tight.
        cover = np.clip(2 * ndimage.gaussian_filter(lung, 1.5), 0, 1)
        tissue = SOFT_TISSUE_HU + random.normal(0, 20, hu.shape) + _cloud(hu.shape, random) * 60
        hu = hu * (1 - cover) + tissue * cover
        lung = np.zeros_like(lung)
    elif random.random() < config.opacity_probability:
        cloud = _cloud(hu.shape, random)
        amount = np.clip((cloud - random.uniform(-0.5, 1.0)) * 3, 0, 1) * lung
        density = random.uniform(-700, 60) + random.normal(0, 20, hu.shape)
        hu = hu * (1 - amount) + np.maximum(hu, density) * amount
    return Slice(hu=hu.astype(np.float32), lung=lung.astype(np.float32), body=piece.body)


def _cloud(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise with standard deviation 1 and structures of an eighth of the side."""
    coarse = random.normal(0, 1, (10, 10))
    zoom = (shape[0] / 10, shape[1] / 10)
    return np.asarray(ndimage.zoom(coarse, zoom, order=1, grid_mode=True, mode="nearest"))
