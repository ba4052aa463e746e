"""The axial planes of a volume, whatever way it was acquired, and how much each voxel stands for.

Planes are those of the usual view (``orientation``): from the feet to the head. What a voxel
stands for is the product of three lengths, one for each axis; along the axis of the slices they
differ where slices are missing or the step changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from lungseg.core.geometry import pixel_area_mm2, weights_mm
from lungseg.core.orientation import usual_view
from lungseg.core.regions import sums
from lungseg.core.types import BoolArray, Scan, View

Lengths = NDArray[np.float64]
USUAL_STEP_MM = 2.5
"""Height of planes where it is unknown."""
QUARTERS = 4
"""Planes count as often as they are quarters of the usual step high, in lowest terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxialPlanes:
    """The planes of one scan."""

    scan: Scan
    view: View
    heights_mm: Lengths | None
    """What each plane stands for along the body, shape (planes,); None where it is unknown."""
    rows_mm: Lengths | None
    """The same of the rows of a plane, shape (Y,) of the view."""
    columns_mm: Lengths | None
    """The same of the columns, shape (X,) of the view."""

    @classmethod
    def of(cls, scan: Scan) -> AxialPlanes:
        """Finds the usual view and the lengths along its axes."""
        view, area = usual_view(scan), pixel_area_mm2(scan)
        lengths: list[Lengths | None] = [weights_mm(scan), None, None]
        if scan.spacing_mm is not None and area is not None:
            row = scan.spacing_mm[0]
            # Axes that are not quite square to each other span less: the columns give way.
            lengths[1] = np.full(scan.size[0], row)
            lengths[2] = np.full(scan.size[1], area / row)
        seen = [lengths[axis] for axis in view.order]
        heights, rows, columns = (
            length[::-1] if length is not None and flip else length
            for length, flip in zip(seen, view.flipped, strict=True)
        )
        return cls(scan=scan, view=view, heights_mm=heights, rows_mm=rows, columns_mm=columns)

    def __len__(self) -> int:
        return self.scan.values.shape[self.view.order[0]]

    def __iter__(self) -> Iterator[Scan]:
        """Each plane as a scan of one slice, without a copy."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Scan:
        part, padding = slice(index, index + 1), self.scan.padding
        return replace(
            self.scan,
            values=self.view.apply(self.scan.values)[part],
            padding=None if padding is None else self.view.apply(padding)[part],
            spacing_mm=self.spacing_mm,
            orientation=None,
            positions_mm=None,
        )

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(row, column) spacing of the planes, the usual one where it changes."""
        if self.rows_mm is None or self.columns_mm is None:
            return None
        return float(np.median(self.rows_mm)), float(np.median(self.columns_mm))

    @property
    def likely_heights_mm(self) -> Lengths:
        """``heights_mm``, usual ones where they are unknown: for rules, never for volumes."""
        if self.heights_mm is None:
            return np.full(len(self), USUAL_STEP_MM)
        return self.heights_mm

    @property
    def cranial(self) -> bool:
        """Whether it is known that the last plane is the one closest to the head."""
        return self.scan.orientation is not None and len(self.scan.values) > 1

    @property
    def tilt_degrees(self) -> float:
        """Angle between the planes and the axial plane, 0…90; 0 where it is unknown."""
        orientation = self.scan.orientation
        if orientation is None:
            return 0.0
        axes = orientation.normal, orientation.column_direction, orientation.row_direction
        rows, columns = (axes[axis] for axis in self.view.order[1:])
        return math.degrees(math.acos(min(1.0, abs(float(np.cross(columns, rows)[2])))))

    def area_mm2(self, mask: BoolArray, box: tuple[slice, slice]) -> float | None:
        """Of a mask in a box of a plane; None where pixels have no known size."""
        if self.rows_mm is None or self.columns_mm is None:
            return None
        by_row, by_column = sums(mask)
        rows, columns = self.rows_mm[box[0]], self.columns_mm[box[1]]
        if self.view.order[1] == 0:  # the rows are the slices, which may differ
            return float(by_row @ rows) * float(self.columns_mm[0])
        return float(by_column @ columns) * float(self.rows_mm[0])

    @property
    def repeats(self) -> NDArray[np.int64]:
        """How often the values of each plane count, shape (planes,): 1 where all are alike.

        Of stacks that are not axial the planes are alike, and every voxel counts once.
        """
        if self.heights_mm is None:
            return np.ones(len(self), np.int64)
        shares = self.heights_mm / np.median(self.heights_mm)
        quarters = np.maximum(1, np.rint(QUARTERS * shares)).astype(np.int64)
        return quarters // reduce(math.gcd, quarters.tolist())

    @property
    def positions_mm(self) -> Lengths | None:
        """Patient z of the middle of each plane, shape (planes,); None where it is unknown.

        Where directions are unknown it is the distance along the stack.
        """
        scan, axis = self.scan, self.view.order[0]
        if scan.positions_mm is None or scan.spacing_mm is None:
            return None
        if scan.orientation is None:
            return scan.positions_mm[:, 2]
        column, row = scan.orientation.column_direction, scan.orientation.row_direction
        steps = np.multiply(scan.spacing_mm, [column[2], row[2]])
        middle = (np.array(scan.size) - 1) / 2
        if axis == 0:
            found = scan.positions_mm[:, 2] + middle @ steps
        else:
            along, other = axis - 1, 2 - axis
            first = scan.positions_mm[:, 2].mean() + middle[other] * steps[other]
            found = first + np.arange(scan.size[along]) * steps[along]
        return found[::-1] if self.view.flipped[0] else found
