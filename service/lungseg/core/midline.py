"""Where the patient's midline runs in a slice: from the walls of the body, else from the lungs.

The picture's own middle says nothing: fields are put on the heart, and crops anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.core.body import Span, body_extent
from lungseg.core.types import IntensityArray, Unit

MIDLINE_BAND = 0.15
"""How far from the middle between the body's walls the gap between the lungs may lie, as a part
of the body's width: hearts and collapsed lungs push it aside."""
GAP_BAND = (0.2, 0.8)
"""Where the gap is looked for as long as a wall is out of the picture, as parts of the lungs'
own lateral extent."""
WIDE_MM = 300.0
"""A field this wide is put on the whole chest: what it cuts off it cuts off on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The lateral axis of the part of a slice that holds all its lung."""

    shifts: NDArray[np.int64]
    """By how many columns each row of the part is moved, so that columns run along the body."""
    walls: tuple[float | None, float | None]
    """Columns, among the moved ones, where the body begins and ends; None = out of the picture."""
    border: tuple[float, float]
    """The moved columns where the picture begins and ends."""
    wide: bool
    """Whether the field is known to be one of the whole chest."""
    tallness: float
    """Distance of two rows over that of two columns."""
    upright: bool
    """Whether a header says how the slice is turned."""

    @property
    def extent(self) -> float:
        """Columns of the whole slice."""
        return self.border[1] - self.border[0]

    def middle(self, profile: NDArray[np.int64]) -> int:
        """The column with the least lung about the midline: the first one of the left.

        The profile has the pixels of lung in each moved column.
        """
        first, last = (part * profile.size for part in GAP_BAND)
        centre = profile.size / 2
        if self.walls[0] is not None and self.walls[1] is not None:
            centre = (self.walls[0] + self.walls[1]) / 2
            band = MIDLINE_BAND * (self.walls[1] - self.walls[0])
            first, last = centre - band, centre + band
        columns = np.arange(round(first), max(round(last), round(first)) + 1)
        inside = (columns >= 0) & (columns < profile.size)
        lung = np.zeros(columns.size, np.int64)
        lung[inside] = profile[columns[inside]]
        chosen = columns[np.lexsort((np.abs(columns - centre), lung))[0]]
        return int(np.clip(chosen, 0, profile.size))


def frame_of(
    plane: IntensityArray,
    unit: Unit,
    box: tuple[slice, slice],
    slant: float,
    spacing_mm: tuple[float, float] | None,
    *,
    upright: bool,
) -> Frame:
    """The frame of a part of a slice of the usual view.

    Args:
        plane: the slice's values, shape (Y, X).
        unit: of them.
        box: rows and columns of the part.
        slant: columns by which the patient's left lies further on with each row.
        spacing_mm: of rows and columns, None where it is unknown.
        upright: whether a header says how the slice is turned.
    """
    rows, columns = box
    shifts = np.rint(slant * np.arange(rows.stop - rows.start)).astype(np.int64)
    extent, width = body_extent(plane[None], unit), plane.shape[1]
    walls: tuple[int | None, int | None] = (None, None)
    aside = -float(shifts.min()) - columns.start
    if extent is not None:
        # At a slant the middle of the body is right, and its walls are so by that.
        aside += slant * (sum(extent[0]) / 2 - rows.start)
        walls = _walls(extent[1], columns, width)
    first, last = (None if wall is None else wall + aside for wall in walls)
    return Frame(
        shifts=shifts - shifts.min(),
        walls=(first, last),
        border=(aside, width + aside),
        wide=spacing_mm is not None and width * spacing_mm[1] >= WIDE_MM,
        upright=upright,
        tallness=1.0 if spacing_mm is None else spacing_mm[0] / spacing_mm[1],
    )


def _walls(body: Span, lung: slice, width: int) -> tuple[int | None, int | None]:
    """Where the body's walls are seen: within the picture, and with all lung between them."""
    first = body[0] if 0 < body[0] <= lung.start else None
    return first, body[1] if lung.stop <= body[1] < width else None
