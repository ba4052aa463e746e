"""Where slices lie along their normal, and what follows for distances, areas and weights.

Slices need not be equally far apart: some may be missing, the step may change, and a tilted
gantry shears the stack. What is asked here is right in all these cases, and None where the
geometry is unknown.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import Scan

JITTER_MM = 0.06
"""By how much slices may lie beside their places on an even grid: positions with one digit behind
the point are up to 0.05 mm off."""
JITTER_SHARE = 0.02
"""The same as a share of the step; the larger of the two counts."""
SAME_PLACE_MM = 0.01
"""Slices closer than this are at one place."""
MAX_TILT_DEGREES = 0.5
"""A stack that is steeper is sheared: its gantry was tilted."""


def distances_mm(scan: Scan) -> NDArray[np.float64] | None:
    """Position of each slice along the normal, shape (Z,): its order is the scan's.

    Where directions are unknown but distances are, slices lie one behind the other along z.
    """
    if scan.positions_mm is None:
        return None
    if scan.orientation is None:
        return scan.positions_mm[:, 2]
    return scan.positions_mm @ scan.orientation.normal


def gaps_mm(scan: Scan) -> NDArray[np.float64] | None:
    """Distances of neighbouring slices along the normal, shape (Z - 1,)."""
    distances = distances_mm(scan)
    return None if distances is None else np.abs(np.diff(distances))


def step_mm(scan: Scan) -> float | None:
    """The usual distance of neighbours along the normal, None for a single slice.

    It is the median, and of two middle ones the smaller, so that a distance between two steps
    is never taken for one.
    """
    gaps = gaps_mm(scan)
    if gaps is None or gaps.size == 0:
        return None
    step = float(np.sort(gaps)[(gaps.size - 1) // 2])
    return step if 0 < step < math.inf else None


def weights_mm(scan: Scan) -> NDArray[np.float64] | None:
    """How much of the stack's height each slice stands for, shape (Z,); None where unknown.

    Each reaches half way to either neighbour, and those at the ends have the usual step.
    """
    gaps, step = gaps_mm(scan), step_mm(scan)
    if gaps is None or step is None:
        return None
    weights = np.full(gaps.size + 1, step)
    weights[1:-1] = (gaps[:-1] + gaps[1:]) / 2
    return weights


def steps_to_next(scan: Scan) -> NDArray[np.int64] | None:
    """How many steps lie between neighbours, shape (Z - 1,): 1, or more where slices lack."""
    gaps, step = gaps_mm(scan), step_mm(scan)
    if gaps is None or step is None:
        return None
    return np.maximum(1, np.rint(gaps / step)).astype(np.int64)


def irregularity_mm(scan: Scan) -> float:
    """How far a slice is from its place on the most even grid; 0 where that is unknown.

    Gaps alone would not tell: steps that grow little by little put the last slice far off.
    """
    distances, steps = distances_mm(scan), steps_to_next(scan)
    if distances is None or steps is None:
        return 0.0
    index = np.concatenate([[0], np.cumsum(steps)])
    slope, start = np.polynomial.polynomial.polyfit(index, distances, 1)[::-1]
    return float(np.abs(distances - (start + slope * index)).max())


def is_uniform(scan: Scan) -> bool:
    """Whether all slices lie on an even grid, but for what headers round."""
    step = step_mm(scan)
    return step is None or irregularity_mm(scan) <= max(JITTER_MM, JITTER_SHARE * step)


def missing(scan: Scan) -> int:
    """How many slices lack between the first and the last; 0 where steps are not uniform."""
    steps = steps_to_next(scan)
    return 0 if steps is None or not is_uniform(scan) else int((steps - 1).sum())


def tilt_degrees(scan: Scan) -> float:
    """Angle between the normal and the way from the first slice to the last; 0 where unknown."""
    if scan.step_mm is None or scan.orientation is None:
        return 0.0
    along = abs(float(scan.step_mm @ scan.orientation.normal))
    across = float(np.linalg.norm(np.cross(scan.step_mm, scan.orientation.normal)))
    return math.degrees(math.atan2(across, along))


def pixel_area_mm2(scan: Scan) -> float | None:
    """Of a pixel within its slice; less than the spacings' product where the axes are oblique."""
    if scan.spacing_mm is None:
        return None
    area = scan.spacing_mm[0] * scan.spacing_mm[1]
    if scan.orientation is None:
        return area
    row, column = scan.orientation.row_direction, scan.orientation.column_direction
    return area * float(np.linalg.norm(np.cross(row, column)))


def even_affine(scan: Scan) -> NDArray[np.float64] | None:
    """``scan.affine`` where one matrix holds for all slices: equal steps, and none missing.

    A single slice has none, for nobody knows how far it reaches.
    """
    even = step_mm(scan) is not None and is_uniform(scan) and missing(scan) == 0
    return scan.affine if even else None


def geometry_notes(scan: Scan) -> tuple[str, ...]:
    """Codes of what is odd about where the slices lie, as the answer's flags have them."""
    several = len(scan.values) > 1
    found = {
        "orientation_unknown": scan.orientation is None,
        "single_slice": not several,
        "non_uniform_spacing": several and not is_uniform(scan),
        "missing_slices": missing(scan) > 0,
        "gantry_tilt": tilt_degrees(scan) > MAX_TILT_DEGREES,
    }
    return tuple(code for code, holds in found.items() if holds)
