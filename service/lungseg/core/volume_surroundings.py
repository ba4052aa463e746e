"""Air inside the body that a volume's mask leaves out, and mask in the air around it, in ml.

Planes are looked at one by one (``surroundings``) where lung is, or may have been missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.core.axial import AxialPlanes
from lungseg.core.quality import FIELD_MM2, MAX_OUTSIDE_MM2, MAX_UNLABELLED_MM2
from lungseg.core.surroundings import look_around
from lungseg.core.types import LabelArray

BEYOND_MM = 30.0
"""Below and above the lungs found, air that is left out may be lung that was missed; farther off
it is the bowel's and the throat's."""
LOOK_STEP_MM = 5.0
"""Planes about so far apart are looked at: each takes a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSurroundings:
    """What lies about the mask, over the planes that have more of it than a slice may have."""

    unlabelled_ml: float = 0.0
    place: tuple[int, int, int] = (0, 0, 0)
    """(plane, row, column) of the largest region left out, in the axial view."""
    outside_ml: float = 0.0


def look_around_volume(planes: AxialPlanes, labels: LabelArray) -> VolumeSurroundings:
    """Looks at planes with lung and near it, all of them where there is none.

    Args:
        planes: of a volume.
        labels: in their order, shape (planes, Y, X).
    """
    heights = planes.likely_heights_mm
    every = max(1, int(LOOK_STEP_MM / float(np.median(heights))))
    largest, unlabelled_ml, outside_ml = 0.0, 0.0, 0.0
    place = (0, 0, 0)
    for index in _near_lung(labels, heights)[::every].tolist():
        scan = planes[index]
        field = FIELD_MM2
        if scan.spacing_mm is not None:
            field = scan.size[0] * scan.size[1] * scan.spacing_mm[0] * scan.spacing_mm[1]
        around = look_around(scan, labels[index] > 0)
        unlabelled, outside = around.unlabelled * field, around.outside * field
        if unlabelled > MAX_UNLABELLED_MM2:
            unlabelled_ml += unlabelled * float(heights[index]) * every / 1000
            if unlabelled > largest:
                largest, place = unlabelled, (index, *around.place)
        if outside > MAX_OUTSIDE_MM2:
            outside_ml += outside * float(heights[index]) * every / 1000
    return VolumeSurroundings(unlabelled_ml=unlabelled_ml, place=place, outside_ml=outside_ml)


def _near_lung(labels: LabelArray, heights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Planes from a little below the lung to a little above it."""
    shown = np.flatnonzero(labels.any(axis=(1, 2)))
    if not shown.size:
        return np.arange(len(labels))
    tops = np.cumsum(heights)
    low, high = tops[shown[0]] - BEYOND_MM, tops[shown[-1]] + BEYOND_MM
    return np.flatnonzero((tops >= low) & (tops <= high))
