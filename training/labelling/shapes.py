"""Regions and morphology in millimetres, of planes and of each plane of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spacing = tuple[float, float]


def regions(mask: Mask, *, corners: bool = True) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Numbers the connected regions of an array of any dimension.

    Args:
        mask: bool.
        corners: whether pixels that touch at a corner belong together.

    Returns:
        Numbers from 1, 0 outside, of the mask's shape; and the size of each number.
    """
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    found: Any = ndimage.label(mask, structure)
    labels, count = found
    return labels, np.bincount(labels.ravel(), minlength=count + 1)


def largest(mask: Mask) -> Mask:
    """The largest region of a mask; of equal ones the first."""
    labels, sizes = regions(mask)
    if len(sizes) < 2:
        return mask
    return labels == 1 + int(np.argmax(sizes[1:]))


def touching(mask: Mask, seeds: Mask) -> Mask:
    """The regions of a mask that share a pixel with the seeds."""
    labels, sizes = regions(mask)
    chosen = np.zeros(len(sizes), bool)
    chosen[labels[seeds]] = True
    chosen[0] = False
    return chosen[labels]


def eroded(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Takes a rim of that width off; the picture's edge is no rim. Shape (Y, X)."""
    if plane.all() or not plane.any():
        return plane
    return np.asarray(ndimage.distance_transform_edt(plane, spacing_mm)) > radius_mm


def dilated(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Adds a rim of that width, shape (Y, X)."""
    return ~eroded(~plane, radius_mm, spacing_mm) if plane.any() else plane


def opened(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Takes away what is narrower than twice the radius, shape (Y, X)."""
    return dilated(eroded(plane, radius_mm, spacing_mm), radius_mm, spacing_mm) & plane


def closed(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Fills bays that are narrower than twice the radius, shape (Y, X)."""
    return eroded(dilated(plane, radius_mm, spacing_mm), radius_mm, spacing_mm) | plane


def inside_polygon(points: Sequence[tuple[float, float]], shape: tuple[int, int]) -> Mask:
    """Pixels whose centres lie in a polygon, by the even-odd rule.

    Args:
        points: corners (x, y); pixel (row r, column c) covers the square from (c, r) to
            (c + 1, r + 1).
        shape: (height, width) of the result.
    """
    y = np.arange(shape[0])[:, None] + 0.5
    x = np.arange(shape[1])[None, :] + 0.5
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 != y1:
            crosses = (y > y0) != (y > y1)
            inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside
