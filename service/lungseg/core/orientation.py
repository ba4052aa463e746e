"""The usual view of a scan: how its axes are permuted and flipped for the network, and back.

The network learnt axial slices as they are read: columns grow to the patient's left, rows to
the back, slices to the head. Any acquisition is brought there by permuting and flipping axes,
never by resampling, so the way back is exact.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import Orientation, Scan, View

LATERAL_COSINE = 0.7
"""An image axis tells right from left within about 45° of the patient's own."""
TIE = 1e-6
"""Axes that fit equally well, to rounding, stay where they are."""
X, Y, Z = 0, 1, 2
"""Patient axes: to the left, to the back, to the head."""
Order = tuple[int, int, int]
_ANY_ORDER: list[Order] = [(a, b, c) for a, b, c in permutations(range(3))]


def usual_view(scan: Scan) -> View:
    """Finds the usual view of a scan.

    One slice keeps its plane and is turned and mirrored within it; a volume's slices become the
    axial ones. Without a known orientation the scan is taken to be in the view already, by the
    radiological convention; a sagittal slice stays as it is, without sides.
    """
    if scan.orientation is None:
        return View(laterality="radiological_convention")
    towards = _directions(scan.orientation, scan.step_mm)
    order = _closest_order(towards) if len(scan.values) > 1 else _lateral_order(towards)
    slices, rows, columns = (towards[axis] for axis in order)
    sided = abs(columns[X]) >= LATERAL_COSINE
    if not sided and len(scan.values) == 1:
        return View()
    # Of a coronal slice the rows run along the body: its head belongs at the top.
    down = rows[Y] if abs(rows[Y]) >= abs(rows[Z]) else -rows[Z]
    to_feet = len(scan.values) > 1 and slices[Z] < 0
    return View(
        order=order,
        flipped=(bool(to_feet), bool(down < 0), bool(columns[X] < 0)),
        laterality="dicom_orientation" if sided else None,
    )


def slant(scan: Scan, view: View) -> float:
    """Columns by which the patient's left lies further on with each row of the view's slices.

    It is 0 where columns run straight from right to left, or where that is not known better.
    """
    if scan.orientation is None or view.laterality != "dicom_orientation":
        return 0.0
    towards = _directions(scan.orientation, scan.step_mm)[list(view.order)]
    row, column = (float(towards[axis, X]) * (-1 if view.flipped[axis] else 1) for axis in (1, 2))
    spacing = view_spacing(scan, view) or (1.0, 1.0)
    return row * spacing[0] / (column * spacing[1])


def view_spacing(scan: Scan, view: View) -> tuple[float, float] | None:
    """(row, column) spacing in mm of the view's slices, None where it is unknown."""
    step = scan.step_mm
    between_slices = None if step is None else float(np.linalg.norm(step))
    spacing = (between_slices, *(scan.spacing_mm or (None, None)))
    row, column = spacing[view.order[1]], spacing[view.order[2]]
    return None if row is None or column is None else (row, column)


def _directions(orientation: Orientation, step: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Unit vectors of the axes (slice, row, column) in the patient, shape (3, 3)."""
    across = orientation.normal if step is None else step / np.linalg.norm(step)
    return np.array([across, orientation.column_direction, orientation.row_direction])


def _closest_order(towards: NDArray[np.float64]) -> Order:
    """Which axes lie closest to the patient's z, y and x, together."""

    def closeness(order: Order) -> float:
        return sum(abs(towards[axis, to]) for axis, to in zip(order, (Z, Y, X), strict=True))

    return max(_ANY_ORDER, key=closeness)


def _lateral_order(towards: NDArray[np.float64]) -> Order:
    """Which axis of a slice runs across the patient; columns where both do alike."""
    return (0, 2, 1) if abs(towards[1, X]) > abs(towards[2, X]) + TIE else (0, 1, 2)
