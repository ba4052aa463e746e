"""Which values of a slice were measured, and which figures such values can show.

Outside the scanner's field of view nothing was measured, whatever number stands there. And where
a window, the bits of the file or somebody's program clipped the values, all that is known of a
clipped one is on which side of the end it lay: what would need more is unknown, never a fact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lungseg.core.histogram import Histogram
from lungseg.core.regions import rim
from lungseg.core.runs import label_regions
from lungseg.core.types import AIR_HU, FILL_HU, LOSSY, BoolArray, IntensityArray, Scan

CLIPPED_SHARE = 0.005
"""Of a slice's pixels, how many at least have its very lowest or highest value where values were
clipped; measured values end in single pixels."""
CLIPPED_PIXELS = 50
"""The least of them, in small pictures."""
NEAR_HU = 32.0
"""As far from a clipped end other values are looked for."""
NEAR_SHARE = 0.05
"""Of the pixels at a clipped end, as many lie near it; flat areas of a drawing have no such."""
FAINT_AIR_HU = -990.0
"""Air around the body that is all of one value above this was clipped there."""
DIM_TISSUE_HU = -100.0
"""A slice of a body has tissue above this: one without was clipped below."""
RIM_SHARE = 0.05
"""Of the picture's border, the least that shows such air."""
COARSE_HU = 10.0
"""Grey levels that lie further apart show no threshold and no percentile: the closest thresholds
are 40 HU apart. 8 bits over 2500 HU are still fine enough."""
LOSSY_LEVELS = 4
"""Grey levels by which JPEG's compression commonly changes a value, either way."""
SAMPLE = 1 << 15
"""About as many pixels show which levels a slice has."""
LEAST_LEVELS = 12
"""A slice of fewer levels within the reach of lung was drawn, not rounded."""
LUNG_REACH_HU = (-1024.0, 300.0)
"""What may be in a lung, from the lowest value that scanners store to vessels full of contrast."""
MEAN_ERROR_HU = 1.0
"""By as much at most clipped values may have moved the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What can be told of values in HU; of grey levels, whose scale nobody knows, everything."""

    low: float = -math.inf
    """Values at or below this may have been any lower."""
    high: float = math.inf
    """Values at or above this may have been any higher."""
    coarse: bool = False
    """The levels lie too far apart for thresholds and percentiles."""

    def shows_below(self, threshold: float) -> bool:
        """Whether each value is known to lie strictly below a threshold or not."""
        return not self.coarse and self.low < threshold <= self.high

    def shows_above(self, threshold: float) -> bool:
        """Whether each value is known to lie strictly above a threshold or not."""
        return not self.coarse and self.low <= threshold < self.high

    def shows(self, value: float) -> bool:
        """Whether a value that was read is the one that was measured."""
        return not self.coarse and self.low < value < self.high

    def shows_mean(self, values: Histogram) -> bool:
        """Whether clipped ones among the values can have moved their mean only a little."""
        below, above = values.size - values.above(self.low), values.size - values.below(self.high)
        least, most = LUNG_REACH_HU
        error = below * max(0.0, self.low - least) if below else 0.0
        error += above * max(0.0, most - self.high) if above else 0.0
        return error <= MEAN_ERROR_HU * values.size


def padding_within(
    scan: Scan, box: tuple[slice, slice], lung: BoolArray | None = None
) -> BoolArray | None:
    """Where in a part of a scan's one slice nothing was measured; None where all was.

    That is what the file says, what lies far below air, and the one lowest value that fills the
    slice from all four corners inwards: air that was measured has noise.

    Args:
        scan: the slice.
        box: the part.
        lung: of the part's pixels those that matter, of its shape; None for all.
    """
    values = scan.values[0]
    found: BoolArray | None = None
    if scan.padding is not None:
        found = scan.padding[0][box]
    if scan.unit == "HU":
        far = np.asarray(values[box] < FILL_HU)
        found = far if found is None else found | far
    told = scan.padding is not None and bool(scan.padding[0, 0, 0])
    outer = None if told else _outer(scan, box, lung)
    if outer is not None:
        found = outer if found is None else found | outer
    return found if found is not None and found.any() else None


def _outer(scan: Scan, box: tuple[slice, slice], lung: BoolArray | None) -> BoolArray | None:
    """What one lowest value fills of a part from the slice's corners inwards, None for nothing."""
    values = scan.values[0]
    corner = values[0, 0]
    if (values[[0, 0, -1, -1], [0, -1, 0, -1]] != corner).any():
        return None
    dark = corner <= AIR_HU if scan.unit == "HU" else corner == values.min()
    if not dark:
        return None
    alike = values == corner
    # What reaches into the box from a corner of the slice crosses the rim of the box.
    if not rim(alike[box]).any() or (lung is not None and not _is_entered(lung, alike, box)):
        return None
    regions, _ = label_regions(alike, corners=False)
    return np.isin(regions[box], regions[[0, 0, -1, -1], [0, -1, 0, -1]])


def _is_entered(lung: BoolArray, alike: BoolArray, box: tuple[slice, slice]) -> bool:
    """Whether pixels that are alike lie side by side within the lung and without it.

    Elsewhere nothing that begins at the slice's corners gets into the lung, and to follow it
    through a slice of noise would take milliseconds.
    """
    around = np.zeros(alike.shape, bool)
    around[box] = lung
    if around[[0, 0, -1, -1], [0, -1, 0, -1]].any():
        return True
    within, without = alike & around, alike & ~around
    return bool(
        (within[1:] & without[:-1]).any()
        or (within[:-1] & without[1:]).any()
        or (within[:, 1:] & without[:, :-1]).any()
        or (within[:, :-1] & without[:, 1:]).any()
    )


def scale_of(scan: Scan) -> Scale:
    """What the values of a scan's one slice can show: of the encoding, and as they are found."""
    if scan.unit != "HU":
        return Scale()
    values = scan.values[0].ravel()
    if scan.padding is not None:
        values = values[~scan.padding[0].ravel()]
    if values.size and values.min() < FILL_HU:
        values = values[values >= FILL_HU]
    low, high, step = -math.inf, math.inf, 0.0
    if scan.reach is not None:
        step = scan.reach.step * (LOSSY_LEVELS if LOSSY in scan.notes else 1)
        # Half a level towards the middle: what is read there is no longer the end's.
        low, high = scan.reach.low + step / 2, scan.reach.high - step / 2
        if scan.reach.low <= LUNG_REACH_HU[0]:
            low = -math.inf  # the scanner's own floor: nothing lies below but noise
    if values.size:
        least, most = float(values.min()), float(values.max())
        on_rim = float(np.mean(rim(scan.values[0]) == least))
        faint = FAINT_AIR_HU < least < most and on_rim >= RIM_SHARE
        if least > max(low, LUNG_REACH_HU[0]) and (_ends_at(values, least, NEAR_HU) or faint):
            low = least
        dim = least < most < DIM_TISSUE_HU
        if most < high and (_ends_at(values, most, -NEAR_HU) or dim):
            high = most
    return Scale(low=low, high=high, coarse=max(step, _gap(values)) > COARSE_HU)


def _gap(values: IntensityArray) -> float:
    """HU between the two closest levels within the reach of lung: what rounding left of them.

    Levels are told apart to 1 HU; where there are too few of them, 0.
    """
    low, high = LUNG_REACH_HU
    sample = values[:: max(1, values.size // SAMPLE)]
    near = sample[(sample >= low) & (sample <= high)]
    levels = np.flatnonzero(np.bincount(np.rint(near - low).astype(np.int64)))
    return float(np.diff(levels).min()) if levels.size >= LEAST_LEVELS else 0.0


def _ends_at(values: IntensityArray, end: float, inwards: float) -> bool:
    """Whether values pile up at an end although others lie close to it."""
    piled = int(np.count_nonzero(values == end))
    if piled < max(CLIPPED_PIXELS, CLIPPED_SHARE * values.size):
        return False
    first, last = sorted((end, end + inwards))
    near = int(np.count_nonzero((values >= first) & (values <= last))) - piled
    return near >= NEAR_SHARE * piled
