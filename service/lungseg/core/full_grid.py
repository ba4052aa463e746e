"""A grid of equal steps for slices that lie at others: what one matrix can place.

Where slices are missing, planes stand in for them that are interpolated between their neighbours.
Where the step changes, each plane of the finest step shows the slice that is nearest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.core.distance import distances
from lungseg.core.geometry import distances_mm, is_uniform, steps_to_next
from lungseg.core.regions import bounding_box
from lungseg.core.types import BoolArray, IntensityArray, LabelArray
from lungseg.core.volume import Volume

MAX_GROWTH = 4
"""Planes for each slice at most: a gap as long as the patient is no reason to invent a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullGrid:
    """Planes at equal steps, and the slices that each is made of."""

    below: NDArray[np.intp]
    """Slice at or before each plane, shape (planes,)."""
    above: NDArray[np.intp]
    """Slice at or behind it."""
    share: NDArray[np.float64]
    """Of ``above`` in the plane, from 0 to below 1; 0 where the plane is a slice."""
    affine: NDArray[np.float64] | None
    """(4, 4) from (plane, row, column, 1) to LPS mm, None where it is unknown."""
    is_scans: bool
    """Whether the planes are the slices, one by one."""

    def values(self, values: IntensityArray) -> IntensityArray:
        """Values on this grid, linear between slices; the very array where these are the planes."""
        if self.is_scans:
            return values
        result = values[self.below]
        for plane in np.flatnonzero(self.share):
            share = np.float32(self.share[plane])
            mixed = values[self.below[plane]] * (1 - share) + values[self.above[plane]] * share
            result[plane] = np.rint(mixed) if values.dtype == np.int16 else mixed
        return result

    def labels(self, labels: LabelArray) -> LabelArray:
        """Labels on this grid; between slices outlines move from one to the other."""
        if self.is_scans:
            return labels
        result = labels[self.below]
        for plane in np.flatnonzero(self.share):
            result[plane] = _between(
                labels[self.below[plane]], labels[self.above[plane]], float(self.share[plane])
            )
        return result


def full_grid(volume: Volume) -> FullGrid:
    """Finds the grid of a volume: its own where that is regular."""
    scan, count = volume.scan, len(volume.scan.values)
    slices = np.arange(count)
    steps, distances = steps_to_next(scan), distances_mm(scan)
    if volume.affine is not None or steps is None or distances is None:
        return _own(slices, scan.affine if volume.affine is None else volume.affine)
    if not is_uniform(scan) or steps.sum() + 1 > MAX_GROWTH * count:
        return _nearest(volume, np.abs(distances - distances[0]))
    if (steps == 1).all():
        return _own(slices, scan.affine)
    places = np.concatenate([[0], np.cumsum(steps)])
    planes = np.arange(places[-1] + 1)
    below = np.searchsorted(places, planes, side="right") - 1
    above = np.searchsorted(places, planes)
    return FullGrid(
        below=below,
        above=above,
        share=(planes - places[below]) / np.maximum(1, places[above] - places[below]),
        affine=_spread(volume, len(planes)),
        is_scans=False,
    )


def _own(slices: NDArray[np.intp], affine: NDArray[np.float64] | None) -> FullGrid:
    nothing = np.zeros(len(slices))
    return FullGrid(below=slices, above=slices, share=nothing, affine=affine, is_scans=True)


def _nearest(volume: Volume, along: NDArray[np.float64]) -> FullGrid:
    """Planes of the finest step, each the nearest of slices that lie so far along, in mm."""
    most = MAX_GROWTH * len(along)
    step = max(float(np.diff(along).min()), float(along[-1]) / (most - 1))
    count = round(float(along[-1]) / step) + 1
    wanted = np.linspace(0.0, along[-1], count)
    middles = (along[:-1] + along[1:]) / 2
    nearest = np.searchsorted(middles, wanted)
    return FullGrid(
        below=nearest,
        above=nearest,
        share=np.zeros(count),
        affine=_spread(volume, count),
        is_scans=False,
    )


def _spread(volume: Volume, planes: int) -> NDArray[np.float64] | None:
    """The affine of so many planes from the first slice to the last."""
    affine, step = volume.scan.affine, volume.scan.step_mm
    if affine is None or step is None:
        return None
    affine = affine.copy()
    affine[:3, 0] = step * (len(volume.scan.values) - 1) / (planes - 1)
    return affine


def _between(below: LabelArray, above: LabelArray, share: float) -> LabelArray:
    """Labels of a plane between two, (Y, X) each: where the mixed depths within a lung are > 0."""
    either = (below > 0) | (above > 0)
    result = np.zeros_like(below)
    box = bounding_box(either)
    deepest = np.zeros(result[box].shape)
    for label in np.unique([below[box], above[box]]):
        masks = below[box] == label, above[box] == label
        if label == 0:
            continue
        if not (masks[0].any() and masks[1].any()):  # a lung ends between them: half way
            nearer = masks[share >= 0.5]
            depth = np.where(nearer, 1.0, 0.0)
        else:
            depth = (1 - share) * _depth(masks[0]) + share * _depth(masks[1])
        result[box][depth > deepest] = label
        deepest = np.maximum(deepest, depth)
    return result


def _depth(mask: BoolArray) -> NDArray[np.float64]:
    """Pixels to the border of a mask, (Y, X): above 0 inside, below outside."""
    if mask.all():
        return np.ones(mask.shape)
    return distances(~mask) - distances(mask)
