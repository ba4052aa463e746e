"""Which lung pixels are the patient's right and which the left: labels, made once.

The side comes from the direction of the image axes in the patient, never from the display.
Without it the radiological convention holds: the patient's right at the picture's left. In the
usual view (``orientation``) columns run from right to left. What position and shape cannot tell,
such as lungs one above the other in a turned picture, is ``UNSIDED``, never one side or the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.core.midline import Frame, frame_of
from lungseg.core.orientation import slant, usual_view, view_spacing
from lungseg.core.regions import bounding_box
from lungseg.core.runs import Regions, Runs
from lungseg.core.types import LEFT, RIGHT, UNSIDED, BoolArray, LabelArray, Scan, View

ONE_SIDED_FRACTION = 0.1
"""A side with less of the lung than this may be a lung, or the tip of the other."""
CROSSING_FRACTION = 0.25
"""A region with this much of itself on either side of the midline is two lungs that touch, or
one that has grown across: a single lung keeps more to its side."""
MOST_OF_LUNG = 0.8
"""Of all lung, the least that two lungs in one region have."""
VALLEY_FRACTION = 0.85
"""Two lungs in one region have at the midline at most this part of either lung's height."""
UNSURE_VALLEY_FRACTION = 0.5
"""As ``VALLEY_FRACTION`` where the walls of the body do not say where the midline runs."""
SEAM_REACH = 0.1
"""How far a cut may leave the midline, as a part of the picture's lateral extent."""
SECOND_FRACTION = 0.25
"""Of the largest region, the least that makes the second one a lung or a good part of one."""
ASTRAY_FRACTION = 0.05
"""Of each lung, what may lie beyond the midline where one is not beside but above the other."""
NEAR_WALL_FRACTION = 0.25
"""Of the picture's lateral extent: a lung alone in a field that shows one wall of the body is on
that wall's side where it comes this close to it."""
_SEAM_BEND_COST = 1e-3


class Labelling(NamedTuple):
    """Labels of a scan's shape; of each slice its regions (all, right, left), and if sides are."""

    labels: LabelArray
    components: list[tuple[int, int, int]]
    sided: list[bool]


def label_lungs(mask: BoolArray, scan: Scan, view: View | None = None) -> Labelling:
    """Labels the lungs of a scan's mask, shape (Z, Y, X), slice by slice of its usual view.

    Lung whose side cannot be told is ``UNSIDED``, and so is all of its slice. Counts come in the
    order of the view's slices.
    """
    view = view or usual_view(scan)
    found = label_planes(view.apply(mask), scan, view)
    return found._replace(labels=view.undo(found.labels))


def label_planes(planes: BoolArray, scan: Scan, view: View, part: slice = slice(None)) -> Labelling:
    """As ``label_lungs`` for a part of the view's slices, whose mask and labels come as seen."""
    values = view.apply(scan.values)[part]
    spacing, leaning = view_spacing(scan, view), slant(scan, view)
    labels = np.zeros(planes.shape, np.uint8)
    components: list[tuple[int, int, int]] = []
    sided: list[bool] = []
    for plane, shown, labelled in zip(planes, values, labels, strict=True):
        box = bounding_box(plane)
        inside = labelled[box]
        runs = Runs.of(plane[box])
        regions = runs.regions()
        halves = None
        if view.laterality is not None and regions.count:
            upright = view.laterality == "dicom_orientation"
            frame = frame_of(shown, scan.unit, box, leaning, spacing, upright=upright)
            halves = _split(runs, regions, frame, inside.shape[1])
        if halves is None:
            inside[...] = runs.paint(UNSIDED, inside.shape)
            components.append((regions.count, 0, 0))
        else:
            inside[...] = halves.right.paint(RIGHT, inside.shape)
            inside += halves.left.paint(LEFT, inside.shape)
            components.append((regions.count, *halves.components))
        sided.append(halves is not None or (view.laterality is not None and not regions.count))
    return Labelling(labels=labels, components=components, sided=sided)


class _Halves(NamedTuple):
    """The runs of the right and of the left lung, and how many regions each has."""

    right: Runs
    left: Runs
    components: tuple[int, int]


def _split(runs: Runs, regions: Regions, frame: Frame, width: int) -> _Halves | None:
    """Divides the lung of a plane so wide, which it fills to the edges; None without sides.

    Whole regions go to the side of the midline on which their centroid lies. A region that lies
    on both is cut where it narrows there, along the path with the fewest lung pixels.
    """
    # Sheared, where the patient's left is not exactly along the rows, and wider by that.
    moved, width = runs.moved(frame.shifts), width + int(frame.shifts.max())
    profile = moved.profile(width)
    middle = frame.middle(profile)
    areas = np.bincount(regions.of_run, moved.lengths)  # (regions,)
    is_left = np.bincount(regions.of_run, moved.column_sums) >= middle * areas
    if _stacked(moved, regions, areas, is_left, middle, frame):
        return None
    first_left = np.where(is_left, 0, width)[regions.of_run]  # (runs,): the left's first column
    counts = int(np.count_nonzero(~is_left)), int(np.count_nonzero(is_left))
    largest = regions.of_run == areas.argmax()
    crossing = moved[largest].profile(width)
    cut = min(crossing[:middle].sum(), crossing[middle:].sum()) >= CROSSING_FRACTION * areas.max()
    if cut and (areas.max() < MOST_OF_LUNG * areas.sum() or not _narrows(crossing, middle, frame)):
        return None
    if cut:
        plane = moved[largest].paint(1, (len(frame.shifts), width)) > 0
        seam = _seam(plane, middle, max(1, round(SEAM_REACH * frame.extent)))
        first_left = np.where(largest, seam[moved.rows], first_left)
    right, left = moved.before(first_left), moved.behind(first_left)
    if cut:
        counts = right.regions().count, left.regions().count
    share = left.pixels / moved.pixels
    if min(share, 1 - share) >= ONE_SIDED_FRACTION:
        if not _beside_each_other(right, left, middle, frame):
            return None
    elif (side := _lone_side(profile, frame)) is None:
        return None
    elif (side == LEFT) != (share > 0.5):  # without both walls the midline was but a guess
        halves = _Halves(runs, runs[:0], (regions.count, 0))
        return halves if side == RIGHT else _Halves(halves.left, runs, (0, regions.count))
    return _Halves(right.moved(-frame.shifts), left.moved(-frame.shifts), counts)


def _stacked(
    runs: Runs,
    regions: Regions,
    areas: NDArray[np.float64 | np.intp],
    is_left: BoolArray,
    middle: int,
    frame: Frame,
) -> bool:
    """Whether the two largest regions share a side although that may be each another's.

    Parts of one lung do; but so do both lungs of a picture on its side, whatever speck of lung
    the other side has. By its header a slice is known to be upright.
    """
    second, first = np.argsort(areas, kind="stable")[-2:] if areas.size > 1 else (0, 0)
    if first == second or areas[second] < SECOND_FRACTION * areas[first]:
        return False
    if is_left[first] != is_left[second]:
        return False
    if None in frame.walls:
        return not frame.upright
    both = runs[(regions.of_run == first) | (regions.of_run == second)]
    beyond = both.before(middle) if is_left[first] else both.behind(middle)
    return beyond.pixels > ASTRAY_FRACTION * both.pixels


def _beside_each_other(right: Runs, left: Runs, middle: int, frame: Frame) -> bool:
    """Whether two lungs lie side by side, and not one above the other as in a turned picture."""
    down = float(left.rows @ left.lengths) / left.pixels
    down -= float(right.rows @ right.lengths) / right.pixels
    across = left.column_sums.sum() / left.pixels - right.column_sums.sum() / right.pixels
    if abs(down) * frame.tallness <= across:
        return True
    astray = right.behind(middle).pixels / right.pixels, left.before(middle).pixels / left.pixels
    return None not in frame.walls and max(astray) <= ASTRAY_FRACTION


def _lone_side(profile: NDArray[np.int64], frame: Frame) -> int | None:
    """The side of all lung of a slice, as far as the walls of the body that are seen tell it.

    The profile has the pixels of lung in each column. Where one wall is cut off, the midline lies
    beyond the middle of what is seen of the body, on the side of the cut.
    """
    first, last = frame.walls
    if first is None and last is None and not frame.wide:
        return None
    border = frame.border
    middle = ((border[0] if first is None else first) + (border[1] if last is None else last)) / 2
    on_right = profile[: max(0, round(middle))].sum() / profile.sum()
    if first is not None and last is not None:
        if CROSSING_FRACTION < on_right < 1 - CROSSING_FRACTION:
            return None
        return RIGHT if on_right > 0.5 else LEFT
    reach = NEAR_WALL_FRACTION * frame.extent
    if last is None and (
        on_right > 1 - ONE_SIDED_FRACTION or (first is not None and -first <= reach)
    ):
        return RIGHT
    if first is None and (
        on_right < ONE_SIDED_FRACTION or (last is not None and last - profile.size <= reach)
    ):
        return LEFT
    return None


def _narrows(profile: NDArray[np.int64], middle: int, frame: Frame) -> bool:
    """Whether a region narrows at the midline as two touching lungs do."""
    highest = min(profile[:middle].max(), profile[middle:].max())
    limit = UNSURE_VALLEY_FRACTION if None in frame.walls else VALLEY_FRACTION
    return bool(profile[middle] <= limit * highest)


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
