"""Which lung pixels are the patient's right and which the left.

The side comes from the direction of the image axes in the patient, never from the display.
Without it the radiological convention holds: the patient's right at the picture's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lungseg.core.regions import Regions, column_sums, label_regions
from lungseg.core.types import BoolArray, Orientation

LateralityRule = Literal["dicom_orientation", "radiological_convention"]

LATERAL_COSINE = 0.7
"""An image axis tells right from left within about 45° of the patient's own."""
MIDLINE_BAND = (0.35, 0.65)
"""Where the gap between the lungs is looked for, as parts of the picture's lateral extent."""
ONE_SIDED_FRACTION = 0.1
"""A side with less of the lung than this looks as if both lungs were one region."""
VALLEY_FRACTION = 0.5
"""Two lungs in one region have between them less than this part of either lung's height."""
SEAM_REACH = 0.1
"""How far a cut may leave the midline, as a part of the picture's lateral extent."""
_SEAM_BEND_COST = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LateralAxis:
    """The image axis that runs from one side of the patient to the other.

    Attributes:
        axis: 0 when row indices run across the patient, 1 when column indices do.
        right_first: whether low indices are the patient's right.
        rule: how this is known.
    """

    axis: Literal[0, 1]
    right_first: bool
    rule: LateralityRule


def lateral_axis(orientation: Orientation | None) -> LateralAxis | None:
    """Finds the lateral image axis, None for sagittal slices: they show no sides."""
    if orientation is None:
        return LateralAxis(axis=1, right_first=True, rule="radiological_convention")
    along_columns = orientation.row_direction[0]  # patient x grows to the patient's left
    along_rows = orientation.column_direction[0]
    axis: Literal[0, 1] = 1 if abs(along_columns) >= abs(along_rows) - 1e-6 else 0
    towards_left = along_columns if axis else along_rows
    if abs(towards_left) < LATERAL_COSINE:
        return None
    return LateralAxis(axis=axis, right_first=towards_left > 0, rule="dicom_orientation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """A mask in two parts, bool, of its shape, with the number of regions in each."""

    right: BoolArray
    left: BoolArray
    components: tuple[int, int]


def split_sides(
    mask: BoolArray, regions: Regions, axis: LateralAxis, *, start: int, extent: int
) -> Sides:
    """Divides a mask into the patient's right and left lung.

    Whole regions go to the side of the midline on which their centroid lies. Only where that
    leaves a side all but empty, and one region has a waist at the midline, it is cut there,
    along the path with the fewest lung pixels: lungs that touch at the anterior junction.

    Args:
        mask: bool, shape (Y, X): a slice or the part of one that holds all its lung.
        regions: from ``label_regions``.
        axis: from ``lateral_axis``.
        start: first index of the mask along the lateral axis of the slice.
        extent: size of the slice along that axis.
    """
    labels = regions.labels
    if axis.axis == 0:
        mask, labels = mask.T, labels.T
    width = mask.shape[1]
    midline = _midline(column_sums(mask), start, extent)
    region_of = labels[mask]
    areas = np.bincount(region_of, minlength=regions.count + 1)
    across = np.broadcast_to(np.arange(width, dtype=np.float64), mask.shape)[mask]
    moments = np.bincount(region_of, weights=across, minlength=regions.count + 1)
    is_low = moments < midline * areas
    low = mask & is_low.take(labels)
    components = (int(is_low[1:].sum()), int(regions.count - is_low[1:].sum()))
    on_low, total = int(areas[is_low].sum()), int(areas.sum())
    if min(on_low, total - on_low) < ONE_SIDED_FRACTION * total:
        biggest = labels == int(areas.argmax())
        if _has_waist(column_sums(biggest), midline):
            seam = _seam(biggest, midline, max(1, round(SEAM_REACH * extent)))
            low = np.where(biggest, np.arange(width) < seam[:, None], low)
            components = (label_regions(low).count, label_regions(mask & ~low).count)
    high = mask & ~low
    if axis.axis == 0:
        low, high = low.T, high.T
    if axis.right_first:
        return Sides(right=low, left=high, components=components)
    return Sides(right=high, left=low, components=(components[1], components[0]))


def _midline(profile: NDArray[np.int64], start: int, extent: int) -> int:
    """The column, relative to the profile, with the least lung in the slice's middle band."""
    low, high = (round(part * extent) for part in MIDLINE_BAND)
    candidates = np.arange(low, max(high, low + 1))
    inside = (candidates >= start) & (candidates < start + profile.size)
    lung = np.zeros(candidates.size, np.int64)
    lung[inside] = profile[candidates[inside] - start]
    off_centre = np.abs(candidates - (extent - 1) / 2)
    return int(candidates[np.lexsort((off_centre, lung))[0]]) - start


def _has_waist(profile: NDArray[np.int64], midline: int) -> bool:
    """Whether a region narrows at the midline as two touching lungs do."""
    if not 0 < midline < profile.size - 1:
        return False
    before, after = profile[:midline], profile[midline + 1 :]
    if min(before.sum(), after.sum()) < ONE_SIDED_FRACTION * profile.sum():
        return False
    return bool(profile[midline] <= VALLEY_FRACTION * min(before.max(), after.max()))


def _seam(region: BoolArray, midline: int, reach: int) -> NDArray[np.int64]:
    """For each row the column of a top-to-bottom path that crosses the fewest pixels.

    Dynamic programming with steps of at most one column; straight paths win ties.
    """
    first = max(0, midline - reach)
    cost = region[:, first : midline + reach + 1].astype(np.float64)
    cost += _SEAM_BEND_COST * np.abs(np.arange(cost.shape[1]) + first - midline)
    for row in range(1, cost.shape[0]):
        above = cost[row - 1]
        best = above.copy()
        np.minimum(best[1:], above[:-1] + _SEAM_BEND_COST, out=best[1:])
        np.minimum(best[:-1], above[1:] + _SEAM_BEND_COST, out=best[:-1])
        cost[row] += best
    path = np.empty(cost.shape[0], np.int64)
    path[-1] = cost[-1].argmin()
    for row in range(cost.shape[0] - 2, -1, -1):
        near = max(0, path[row + 1] - 1)
        path[row] = near + cost[row, near : path[row + 1] + 2].argmin()
    return path + first
