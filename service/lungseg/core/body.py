"""Where the body lies in its field of view, so that a large field does not cost resolution.

A body that fills a third of a 700 mm field leaves its lungs a ninth of the network's grid. The
box found here errs on the large side: a table or an arm too much costs some resolution, while a
lung outside it would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lungseg.core.histogram import Histogram
from lungseg.core.types import Unit

Planes = NDArray[np.float32 | np.int16]
"""Intensities of slices of one view, shape (Z, Y, X)."""
Span = tuple[int, int]
"""A first row or column, and the one after the last."""
Covers = Literal["whole", "body"]
"""What the network's grid covers: the slice as it is, or the body's box."""
CELLS = 128
"""Cells a side, at most, that are looked at: 3 to 6 mm each."""
SOLID_HU = -500.0
"""Half-way between air and soft tissue."""
GREY_PERCENTILES = (0.5, 99.5)
"""Of uncalibrated values, between which the border of air and tissue is looked for."""
ROUNDS = 10
"""After which that border no longer moves."""
LEAST_SHARE = 0.06
"""Of the fullest row's solid cells, what a row of the body holds at least; tables, wires and noise
in the air hold less."""
MARGIN = 0.04
"""Of the box's side, added on each side: skin, and fat that a narrow window shows as black."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A part of a slice: its first row and column, and its (height, width) in pixels."""

    corner: tuple[int, int]
    size: tuple[int, int]


def body_box(planes: Planes, unit: Unit) -> Box:
    """Finds the box of the body that slices share.

    Args:
        planes: intensities of slices of one view, shape (Z, Y, X).
        unit: what they are measured in.

    Returns:
        The box, margins included, within the slices; all of them where nothing is solid.
    """
    extent = body_extent(planes, unit)
    if extent is None:
        return Box(corner=(0, 0), size=(planes.shape[1], planes.shape[2]))
    step = cell_step(planes.shape[1:])
    spans = [
        _widened(span, step, side) for span, side in zip(extent, planes.shape[1:], strict=True)
    ]
    return Box(
        corner=(spans[0][0], spans[1][0]),
        size=(spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]),
    )


def body_extent(planes: Planes, unit: Unit) -> tuple[Span, Span] | None:
    """The body's rows and columns without any margin, None where nothing is solid."""
    height, width = planes.shape[1:]
    step = cell_step((height, width))
    cells = planes[:, ::step, ::step].astype(np.float32)
    solid = cells > (SOLID_HU if unit == "HU" else _border(cells))
    counts = [solid.sum(axis=axis).max(axis=0) for axis in (2, 1)]  # of each row, each column
    if not counts[0].any():
        return None
    return _span(counts[0], step, height), _span(counts[1], step, width)


def cell_step(size: tuple[int, ...]) -> int:
    """Pixels a side of a cell, for slices of a (height, width)."""
    return max(1, -(-max(size) // CELLS))


def _border(cells: NDArray[np.float32]) -> float:
    """Half-way between the means of what lies below and above it (Ridler & Calvard 1978)."""
    values = Histogram.of(cells)
    low, high = (found.value for found in values.percentiles(GREY_PERCENTILES))
    border = (low + high) / 2
    if low == high:
        return border
    # float64: between any two float32 lies a border that leaves some on each side.
    levels = np.clip(values.levels, low, high)
    summed = np.cumsum(levels * values.counts)
    for _ in range(ROUNDS):
        last = int(np.searchsorted(levels, border, "right")) - 1
        below, above = int(values.up_to[last]), values.size - int(values.up_to[last])
        means = summed[last] / below, (summed[-1] - summed[last]) / above
        if (moved := float(sum(means)) / 2) == border:
            break
        border = moved
    return border


def _span(counts: NDArray[np.int64], step: int, side: int) -> Span:
    """The rows or columns that hold enough."""
    held = np.flatnonzero(counts >= LEAST_SHARE * counts.max())
    return int(held[0]) * step, min(side, (int(held[-1]) + 1) * step)


def _widened(span: Span, step: int, side: int) -> Span:
    margin = round(MARGIN * (span[1] - span[0])) + step
    return max(0, span[0] - margin), min(side, span[1] + margin)
