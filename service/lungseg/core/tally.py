"""Counts of intensities that add up over the slices of a volume, of several kinds at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.core.histogram import COUNTED_SPAN, Histogram, counted
from lungseg.core.types import IntensityArray, LabelArray

MOST_LEVELS = COUNTED_SPAN
"""Values that are no whole numbers are rounded to no more levels than can be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts of values by kind, on one grid of levels.

    Whole numbers are counted as they are. Others (of slopes that are no whole numbers) are
    rounded to the finest power of two that ``MOST_LEVELS`` allow: 1/16 HU, where they span 4096.
    """

    per_unit: float
    """Levels in one unit of the values."""
    lowest: int
    """The first level."""
    counts: NDArray[np.int64]
    """Shape (kinds, levels)."""

    @classmethod
    def covering(cls, values: Sequence[IntensityArray], kinds: int) -> Tally:
        """An empty tally for so many kinds of these values."""
        some = [array for array in values if array.size]
        low = min((float(array.min()) for array in some), default=0.0)
        high = max((float(array.max()) for array in some), default=0.0)
        exponent = math.floor(math.log2(MOST_LEVELS / max(high - low, 1e-30)))
        if all(array.dtype.kind == "i" or np.array_equal(array, np.rint(array)) for array in some):
            exponent = min(0, exponent)
        per_unit = math.ldexp(1.0, exponent)
        lowest = math.floor(low * per_unit)
        levels = math.ceil(high * per_unit) - lowest + 1
        return cls(per_unit=per_unit, lowest=lowest, counts=np.zeros((kinds, levels), np.int64))

    def add(self, values: IntensityArray, kinds: LabelArray, repeats: int = 1) -> None:
        """Counts values, each of its kind, so many times; both arrays are flat."""
        if not values.size:
            return
        places = values
        if self.per_unit != 1:
            scaled = values.astype(np.float64) * self.per_unit
            places = (np.rint(scaled) - self.lowest).astype(np.float32)
        levels, counts = counted(places, kinds, len(self.counts))
        first = int(levels[0]) - (self.lowest if self.per_unit == 1 else 0)
        self.counts[:, first : first + levels.size] += counts * repeats

    def histogram(self, kinds: Sequence[int]) -> Histogram:
        """The values of some kinds together."""
        levels = (np.arange(self.counts.shape[1]) + self.lowest) / self.per_unit
        return Histogram.of_counts(levels, self.counts[list(kinds)].sum(axis=0))
