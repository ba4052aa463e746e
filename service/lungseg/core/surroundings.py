"""Air inside the body that a mask leaves out, and mask where no body is.

Both are looked for on the coarse cells of ``body``: areas that are worth a word have many. Gas of
the bowel and of airways is darker than lung, so that it is not counted. Where the scale of the
values is unknown, lung and gas look alike, and nothing is said of air that is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lungseg.core.body import GREY_PERCENTILES, SOLID_HU, cell_step
from lungseg.core.preprocess import percentiles
from lungseg.core.regions import rim
from lungseg.core.runs import Runs
from lungseg.core.types import BoolArray, FloatArray, IntensityArray, Scan

GAS_HU = -950.0
"""Below this is air alone: around the body, in airways and in the bowel."""
DARK_SHARE = 0.08
"""Of the range of uncalibrated values, up to which they may be air; in the narrowest usual window
fat begins at a seventh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What lies about the mask, as parts of the slice."""

    unlabelled: float
    """The largest region of air of lung density inside the body that the mask leaves out."""
    place: tuple[int, int]
    """(row, column) of its middle, in pixels."""
    outside: float
    """Mask in the air around the body."""


NOTHING = Surroundings(unlabelled=0.0, place=(0, 0), outside=0.0)


def look_around(scan: Scan, mask: BoolArray) -> Surroundings:
    """Looks at one slice's air, inside the body and around it; the mask is (Y, X)."""
    step = cell_step(mask.shape)
    if min(mask.shape) < step:
        return NOTHING
    cells = means(scan.values[0], step)
    labelled = mask[::step, ::step][: cells.shape[0], : cells.shape[1]]
    if scan.unit != "HU":
        return replace(NOTHING, outside=_outside_uncalibrated(cells, labelled))
    around = _reaching_the_edge(cells < GAS_HU)
    # Tissue narrower than three cells is no body: a table's walls, wires, blankets.
    body = _largest(grown(shrunk(cells > SOLID_HU)))
    missed = ~_reaching_the_edge(~body) & (cells > GAS_HU) & (cells < SOLID_HU)
    region = _largest(grown(shrunk(missed & ~grown(labelled))))
    row, column = np.argwhere(region).mean(axis=0) if region.any() else (0.0, 0.0)
    return Surroundings(
        unlabelled=float(region.mean()),
        place=(round((row + 0.5) * step), round((column + 0.5) * step)),
        outside=float((around & labelled).mean()),
    )


def _outside_uncalibrated(cells: FloatArray, labelled: BoolArray) -> float:
    """Mask in the dark around the body; of a lung that the picture cuts the two look alike."""
    if rim(labelled).any():
        return 0.0
    low, high = percentiles(cells, GREY_PERCENTILES)
    around = _reaching_the_edge(cells <= low + DARK_SHARE * (high - low))
    return float((around & labelled).mean())


def means(plane: IntensityArray, step: int) -> FloatArray:
    """About the means of cells of step × step pixels: of four pixels in each, against noise."""
    rows, columns = plane.shape[0] // step * step, plane.shape[1] // step * step
    first, second = step // 4, step // 2 + step // 4
    summed = plane[first:rows:step, first:columns:step].astype(np.float32)
    for row, column in ((first, second), (second, first), (second, second)):
        summed += plane[row:rows:step, column:columns:step]
    return summed / np.float32(4)


def shrunk(cells: BoolArray) -> BoolArray:
    """Without the cells that touch others; the border of the slice counts as being within."""
    inner = cells.copy()
    inner[1:] &= cells[:-1]
    inner[:-1] &= cells[1:]
    result = inner.copy()
    result[:, 1:] &= inner[:, :-1]
    result[:, :-1] &= inner[:, 1:]
    return result


def grown(cells: BoolArray) -> BoolArray:
    """With the cells around, also across corners."""
    return ~shrunk(~cells)


def _largest(cells: BoolArray) -> BoolArray:
    runs = Runs.of(cells)
    if not runs.rows.size:
        return cells
    of_run = runs.regions(corners=False).of_run
    largest = np.bincount(of_run, runs.lengths).argmax()
    return runs[of_run == largest].paint(1, cells.shape).view(bool)


def _reaching_the_edge(cells: BoolArray) -> BoolArray:
    runs = Runs.of(cells)
    regions = runs.regions(corners=False)
    at_edge = (runs.rows == 0) | (runs.rows == cells.shape[0] - 1)
    at_edge |= (runs.first == 0) | (runs.end == cells.shape[1])
    reaching = np.zeros(regions.count, bool)
    reaching[regions.of_run[at_edge]] = True
    return runs[reaching[regions.of_run]].paint(1, cells.shape).view(bool)
