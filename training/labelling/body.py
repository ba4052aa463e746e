"""The body of each slice, and the air that it encloses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.labelling.shapes import Mask, Spacing, dilated, eroded, largest, opened, regions
from training.labelling.stacks import Stack

DARK_HU = -400
"""Half-way between aerated lung (-850) and soft tissue (50): the edge of what holds air."""
BOARD_MM = 12.0
"""What is thinner is no body, its air counted in: blankets, tubes, the shell of the table."""
FREE_AIR_HU = -960
"""Air in the open, in bowel or trachea has a median below; lung holds blood and is brighter."""
PADDING_HU = -1000
"""What readers make of pixels outside the reconstruction circle, or darker."""
PADDED_SHARE = 0.95
"""Share of the corners that padding fills where there is a reconstruction circle."""
RIM_PIXELS = 3
"""How near to the edge of the field of view a region touches it."""
WALL_MM, LEAST_WALL = 4.0, 0.75
"""Width of a region's surroundings, and the share of them that is body where it is lung."""
CORE_MM = 2.0
"""What is nearer to a region's edge is mixed with what lies beyond."""


def smooth(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """Median of 3 × 3 pixels of each slice, shape (Z, Y, X): noise of sharp kernels goes.

    A median of integers is the same on every machine, which the hashes of proposals rely on.
    """
    return np.stack([ndimage.median_filter(plane, 3) for plane in hu])


def enclosed_air(stack: Stack, calm: NDArray[np.int16]) -> tuple[Mask, Mask]:
    """What is dark inside the body of each slice.

    Args:
        stack: the slices.
        calm: their smoothed HU, int16, shape (Z, Y, X).

    Returns:
        The body with all that it encloses, and the dark part of it, bool, shape (Z, Y, X).
    """
    pairs = [_enclosed(plane, stack.spacing_mm[1:]) for plane in calm]
    return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


def core_median(region: Mask, plane: NDArray[np.int16], spacing_mm: Spacing) -> float:
    """Median HU of a region without its rim, of all of it where it is too thin for that."""
    core = eroded(region, CORE_MM, spacing_mm)
    return float(np.median(plane[core if core.any() else region]))


def _enclosed(plane: NDArray[np.int16], spacing_mm: Spacing) -> tuple[Mask, Mask]:
    field = _field(plane)
    rim = field & ~np.asarray(ndimage.binary_erosion(field, iterations=RIM_PIXELS), bool)
    dark = field & (plane < DARK_HU)
    labels, _ = regions(dark, corners=False)
    at_rim = np.isin(labels, np.unique(labels[rim & dark]))
    solid = largest(opened(field & ~at_rim, BOARD_MM / 2, spacing_mm)) & ~dark
    outside, cut = ~field, np.zeros_like(field)
    for number in np.unique(labels[rim & dark]):
        region = labels == number
        if _is_cut_lung(region, solid, plane, field, spacing_mm):
            cut |= region
        else:
            outside |= region
    body = np.asarray(ndimage.binary_fill_holes(solid | cut), bool)
    return body, dark & body & ~outside


def _is_cut_lung(
    region: Mask, solid: Mask, plane: NDArray[np.int16], field: Mask, spacing_mm: Spacing
) -> bool:
    """Whether a dark region at the rim is lung that the field of view cuts.

    It is brighter than the air beside the body, and unlike the foam of the table it has the
    body around it.
    """
    if core_median(region, plane, spacing_mm) <= FREE_AIR_HU:
        return False
    ring = dilated(region, WALL_MM, spacing_mm) & ~region & field
    return bool(ring.any()) and float(solid[ring].mean()) >= LEAST_WALL


def _field(plane: NDArray[np.int16]) -> Mask:
    """The reconstruction circle where the corners are padding, else the whole slice."""
    height, width = plane.shape
    whole = np.ones(plane.shape, bool)
    corner = plane[0, 0]
    if corner > PADDING_HU:
        return whole
    y = (np.arange(height) + 0.5)[:, None] - height / 2
    x = (np.arange(width) + 0.5)[None, :] - width / 2
    circle = (2 * y / height) ** 2 + (2 * x / width) ** 2 <= 1
    return circle if (plane[~circle] == corner).mean() > PADDED_SHARE else whole
