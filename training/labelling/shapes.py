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
    box = _box_around(plane, 1.0, (1.0, 1.0))
    part = plane[box]
    if part.all():
        return plane
    result = np.zeros_like(plane)
    result[box] = np.asarray(ndimage.distance_transform_edt(part, spacing_mm)) > radius_mm
    return result


def dilated(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Adds a rim of that width, shape (Y, X)."""
    box = _box_around(plane, radius_mm, spacing_mm)
    part = plane[box]
    if not part.any():
        return plane
    result = np.zeros_like(plane)
    result[box] = np.asarray(ndimage.distance_transform_edt(~part, spacing_mm)) <= radius_mm
    return result


def opened(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Takes away what is narrower than twice the radius, shape (Y, X)."""
    return dilated(eroded(plane, radius_mm, spacing_mm), radius_mm, spacing_mm) & plane


def closed(plane: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Fills bays that are narrower than twice the radius, shape (Y, X)."""
    return eroded(dilated(plane, radius_mm, spacing_mm), radius_mm, spacing_mm) | plane


def deepest(plane: Mask) -> tuple[int, int]:
    """The pixel (row, column) of a region that lies farthest from its edge."""
    box = _box_around(plane, 1.0, (1.0, 1.0))
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(plane[box], 1)))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return box[0].start + int(row), box[1].start + int(column)


def _box_around(plane: Mask, margin_mm: float, spacing_mm: Spacing) -> tuple[slice, slice]:
    """The box of a mask with a margin, so that distances are measured where they matter."""
    box: list[slice] = []
    for axis, step in enumerate(spacing_mm):
        places = np.flatnonzero(plane.any(axis=1 - axis))
        if not places.size:
            return slice(0, 0), slice(0, 0)
        margin = int(margin_mm / step) + 1
        box.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1))
    return box[0], box[1]


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
