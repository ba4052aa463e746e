"""How often each intensity occurs: mean, percentiles and shares follow from it exactly.

CT values are whole numbers between known ends, so that counting them costs one pass however many
parts are told apart; where they are not, sorting finds the levels that there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import IntensityArray, LabelArray

COUNTED_SPAN = np.iinfo(np.uint16).max
"""Whole numbers that lie no further apart are counted, not sorted."""


class Percentile(NamedTuple):
    """A percentile, and the two values that it lies between."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Levels that occur, ascending, and how often each does."""

    levels: NDArray[np.float64]
    counts: NDArray[np.int64]
    up_to: NDArray[np.int64]
    """How many values there are up to each level, itself included."""

    @classmethod
    def of_counts(cls, levels: NDArray[np.float64], counts: NDArray[np.int64]) -> Histogram:
        """Leaves out the levels that do not occur."""
        found = np.flatnonzero(counts)
        counts = counts[found]
        return cls(levels[found], counts, np.cumsum(counts))

    @classmethod
    def of(cls, values: IntensityArray) -> Histogram:
        """Counts all values of an array of any shape."""
        levels, codes = _coded(values.ravel())
        return cls.of_counts(levels, np.bincount(codes, minlength=levels.size))

    @property
    def size(self) -> int:
        """How many values were counted."""
        return int(self.up_to[-1]) if self.up_to.size else 0

    @property
    def mean(self) -> float:
        """Of at least one value."""
        return float(self.levels @ self.counts) / self.size

    @property
    def std(self) -> float:
        """Of at least one value: the square root of the mean squared distance from the mean."""
        return math.sqrt(float(np.square(self.levels - self.mean) @ self.counts) / self.size)

    def below(self, level: float) -> int:
        """How many values lie strictly below a level."""
        place = int(np.searchsorted(self.levels, level, "left"))
        return int(self.up_to[place - 1]) if place else 0

    def above(self, level: float) -> int:
        """How many values lie strictly above a level."""
        place = int(np.searchsorted(self.levels, level, "right"))
        return self.size - (int(self.up_to[place - 1]) if place else 0)

    def percentiles(self, percents: Sequence[float]) -> list[Percentile]:
        """As ``numpy.percentile`` of at least one value: linear between the two nearest ranks."""
        positions = [(self.size - 1) * percent / 100 for percent in percents]
        ranks = [(math.floor(place), math.ceil(place)) for place in positions]
        found = self.levels[np.searchsorted(self.up_to, ranks, "right")].tolist()
        return [
            Percentile(lower + (upper - lower) * (place % 1), lower, upper)
            for (lower, upper), place in zip(found, positions, strict=True)
        ]


def counted(
    values: IntensityArray, labels: LabelArray, kinds: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Counts the values of each label 0 … kinds - 1; both arrays are flat.

    Returns:
        The levels, ascending, shape (levels,), and of each label how often each of them occurs,
        shape (kinds, levels). Rows may be added, and make a ``Histogram``.
    """
    levels, codes = _coded(values)
    joint = labels.astype(np.intp)
    joint *= levels.size
    joint += codes
    counts = np.bincount(joint, minlength=kinds * levels.size)
    return levels, counts.reshape(kinds, levels.size)


def _coded(values: IntensityArray) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Levels, ascending, and of each value the index of its level."""
    if values.size:
        lowest = np.float32(values.min())
        shifted = values.astype(np.float32, copy=False) - lowest
        if shifted.max() <= COUNTED_SPAN:
            codes = shifted.astype(np.uint16)
            # Whole numbers come back from their codes; others may only look whole once shifted.
            if lowest == np.rint(lowest) and np.array_equal(codes + lowest, values):
                return np.arange(int(codes.max()) + 1, dtype=np.float64) + float(lowest), codes
    levels, indices = np.unique(values, return_inverse=True)
    return levels.astype(np.float64), indices
