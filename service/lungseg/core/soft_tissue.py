"""Soft tissue that a network took for lung without being sure of it.

The domes of the diaphragm are it most often: liver, spleen or stomach, blurred by thick slices. Of
tumours a network is surer: ``SURE`` lies between the two, as the default model saw them in the real
series at hand. Of consolidation what the network was so unsure of is taken out too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.core.body import cell_step
from lungseg.core.quality import FIELD_MM2
from lungseg.core.runs import Integers, Runs
from lungseg.core.surroundings import grown, means, shrunk
from lungseg.core.types import BoolArray, FloatArray, IntensityArray

DENSE_HU = -200.0
"""Mean above which a cell is tissue, with a little air in it by the blur of thick slices."""
EDGE_HU = -300.0
"""Above this pixels around such cells are theirs."""
LEAST_MM2 = 300.0
"""Of a region; vessels of the hilum are smaller."""
SURE = 0.85
"""Mean probability of a region, from which on it stays."""


def take_out_tissue(
    mask: BoolArray,
    probability: FloatArray,
    values: IntensityArray,
    spacing_mm: tuple[float, float] | None,
) -> None:
    """Takes regions of unsure soft tissue out of the mask of a plane, in place.

    Args:
        mask: bool, shape (Y, X).
        probability: of the same shape, as the network gave it.
        values: HU of the same shape.
        spacing_mm: of rows and columns, None where it is unknown.
    """
    step = cell_step(mask.shape)
    if min(mask.shape) < step or not mask.any():
        return
    cells = means(values, step)
    part = np.s_[: cells.shape[0], : cells.shape[1]]
    dense = (cells > DENSE_HU) & mask[::step, ::step][part]
    # Narrower than three cells is a vessel, or the blurred edge of the lung.
    runs = Runs.of(grown(shrunk(dense)) & dense)
    if not runs.rows.size:
        return
    region = runs.regions(corners=False).of_run
    found = _means_of(runs, region, probability[::step, ::step][part])
    cell_mm2 = FIELD_MM2 / mask.size if spacing_mm is None else spacing_mm[0] * spacing_mm[1]
    large = np.bincount(region, runs.lengths) * cell_mm2 * step**2 >= LEAST_MM2
    out = (large & (found < SURE))[region]
    if out.any():
        cells_out = grown(runs[out].paint(1, cells.shape) > 0)
        wide = cells_out.repeat(step, axis=0).repeat(step, axis=1)
        inside = np.s_[: wide.shape[0], : wide.shape[1]]
        mask[inside] &= ~(wide & (values[inside] > EDGE_HU))


def _means_of(runs: Runs, region: Integers, plane: FloatArray) -> NDArray[np.float64]:
    """The mean of a plane's values over each region of runs."""
    summed = np.zeros((plane.shape[0], plane.shape[1] + 1))
    np.cumsum(plane, axis=1, out=summed[:, 1:])
    of_run = summed[runs.rows, runs.end] - summed[runs.rows, runs.first]
    return np.bincount(region, of_run) / np.bincount(region, runs.lengths)
