"""Where the slices of a regular grid lie, by an affine that may be any sixteen numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import Orientation

Spacing = tuple[float, float, float]
SPACING_MM = (0.01, 100.0)
"""Distances of voxels that a CT of a body can have; others say nothing."""
FAR_MM = 1e6
"""No scanner puts a patient a kilometre away from its own centre."""
INDEPENDENT = 0.01
"""Least volume that unit vectors along the axes span; less, and they lie in one plane."""
Places = tuple[tuple[float, float] | None, Orientation | None, NDArray[np.float64] | None]


def placed(
    slices: int,
    affine: NDArray[np.float64] | None,
    spacing_mm: Spacing | None,
    asked_mm: Spacing | None,
) -> Places:
    """Where slices lie, as far as the header or the caller tells it.

    Without directions they lie one behind the other along z: distances are known all the same.

    Args:
        slices: how many.
        affine: (4, 4) from (slice, row, column, 1) to LPS mm, perhaps unsound.
        spacing_mm: (slice, row, column) spacing of a header without a sound affine.
        asked_mm: the same as the caller says it, if the header does not.

    Returns:
        (row, column) spacing, orientation and the position of each slice, shape (slices, 3).
    """
    steps = np.arange(float(slices))[:, None]  # (slices, 1)
    if affine is not None and is_sound(affine):
        slice_step, down, along, origin = affine[:3].T
        row, column = (float(np.linalg.norm(axis)) for axis in (down, along))
        orientation = Orientation(
            row_direction=_direction(along / column), column_direction=_direction(down / row)
        )
        return (row, column), orientation, origin + steps * slice_step
    spacing = spacing_mm if _are_spacings(spacing_mm) else asked_mm
    if spacing is None:
        return None, None, None
    return spacing[1:], None, steps * np.array([0.0, 0.0, spacing[0]])


def is_sound(affine: NDArray[np.float64]) -> bool:
    """Whether a matrix (4, 4) can say where voxels of a CT lie."""
    columns = affine[:3, :3]
    if not (np.isfinite(affine).all() and np.abs(affine[:3, 3]).max() <= FAR_MM):
        return False
    lengths = np.linalg.norm(columns, axis=0)
    if not _are_spacings((*map(float, lengths),)):
        return False
    return bool(abs(np.linalg.det(columns / lengths)) >= INDEPENDENT)


def _are_spacings(lengths: tuple[float, ...] | None) -> bool:
    low, high = SPACING_MM
    return lengths is not None and all(low <= length <= high for length in lengths)


def _direction(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = map(float, vector)
    return x, y, z
