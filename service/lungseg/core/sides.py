"""Which lung pixels are the patient's right and which the left: labels, made once.

The side comes from the direction of the image axes in the patient, never from the display.
Without it the radiological convention holds: the patient's right at the picture's left. In the
usual view (``orientation``) columns run from right to left, so nothing here asks for axes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.core.regions import bounding_box, column_sums, label_regions
from lungseg.core.types import LEFT, RIGHT, UNSIDED, BoolArray, LabelArray, View

MIDLINE_BAND = (0.35, 0.65)
"""Where the gap between the lungs is looked for, as parts of the picture's lateral extent."""
ONE_SIDED_FRACTION = 0.1
"""A side with less of the lung than this looks as if both lungs were one region."""
VALLEY_FRACTION = 0.5
"""Two lungs in one region have between them less than this part of either lung's height."""
SEAM_REACH = 0.1
"""How far a cut may leave the midline, as a part of the picture's lateral extent."""
_SEAM_BEND_COST = 1e-3


class Labelling(NamedTuple):
    """Labels of a scan's shape, and of each slice how many regions it has (all, right, left)."""

    labels: LabelArray
    components: list[tuple[int, int, int]]


def label_lungs(mask: BoolArray, view: View) -> Labelling:
    """Labels the lungs of a scan's mask, shape (Z, Y, X), slice by slice of its usual view.

    Without laterality all lung is ``UNSIDED``. Counts come in the order of the view's slices.
    """
    planes = view.apply(mask)
    labels = np.zeros(planes.shape, np.uint8)
    components: list[tuple[int, int, int]] = []
    for plane, labelled in zip(planes, labels, strict=True):
        box = bounding_box(plane)
        inside = plane[box]
        if view.laterality is None:
            labelled[box] = np.where(inside, UNSIDED, 0)
            components.append((label_regions(inside).count, 0, 0))
        else:
            is_left, counts = _split(inside, start=box[1].start, extent=plane.shape[1])
            labelled[box] = np.where(inside, np.where(is_left, LEFT, RIGHT), 0)
            components.append(counts)
    return Labelling(labels=view.undo(labels), components=components)


def _split(mask: BoolArray, *, start: int, extent: int) -> tuple[BoolArray, tuple[int, int, int]]:
    """Divides a plane into the patient's right and left lung.

    Whole regions go to the side of the midline on which their centroid lies. Only where that
    leaves a side all but empty, and one region has a waist at the midline, it is cut there,
    along the path with the fewest lung pixels: lungs that touch at the anterior junction.

    The plane is the part of a slice that holds all its lung: it begins at the column ``start`` of
    ``extent``. Returned are the left lung, of its shape, and regions in all, right and left.
    """
    regions = label_regions(mask)
    width = mask.shape[1]
    midline = _midline(column_sums(mask), start, extent)
    # Of each region, 0 being the background: its area, and the sum of its column indices.
    region_of = regions.labels[mask]  # (lung pixels,)
    areas = np.bincount(region_of, minlength=regions.count + 1)
    across = np.broadcast_to(np.arange(width, dtype=np.float64), mask.shape)[mask]
    moments = np.bincount(region_of, weights=across, minlength=regions.count + 1)
    is_right = moments < midline * areas  # (regions + 1,)
    right = mask & is_right.take(regions.labels)
    counts = (int(is_right[1:].sum()), int(regions.count - is_right[1:].sum()))
    on_right, total = int(areas[is_right].sum()), int(areas.sum())
    if min(on_right, total - on_right) < ONE_SIDED_FRACTION * total:
        biggest = regions.labels == int(areas.argmax())
        if _has_waist(column_sums(biggest), midline):
            seam = _seam(biggest, midline, max(1, round(SEAM_REACH * extent)))  # (height,)
            right = np.where(biggest, np.arange(width) < seam[:, None], right)
            counts = (label_regions(right).count, label_regions(mask & ~right).count)
    return mask & ~right, (regions.count, *counts)


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

    Dynamic programming with steps of at most one column; straight paths win ties. ``cost[r, c]``
    becomes the least cost of a path from the top to column ``c`` of row ``r``.

    Returns:
        int64, shape (height,): the first column of the left lung in each row.
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
    path = np.empty(cost.shape[0], np.int64)  # followed back from the cheapest end
    path[-1] = cost[-1].argmin()
    for row in range(cost.shape[0] - 2, -1, -1):
        near = max(0, path[row + 1] - 1)
        path[row] = near + cost[row, near : path[row + 1] + 2].argmin()
    return path + first
