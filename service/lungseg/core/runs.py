"""A mask as the runs of its rows: some hundreds of them say all that its many pixels do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import BoolArray, Element, LabelArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Regions:
    """How many regions a mask has, and of each run the one that it is in, from 0."""

    count: int
    of_run: Integers


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of pixels along the rows of a plane, in the order in which they are read.

    All arrays have shape (runs,). Runs of a row touch neither each other nor another's pixels.
    """

    rows: Integers
    first: Integers
    """The first column of each run."""
    end: Integers
    """The column after its last."""

    @classmethod
    def of(cls, mask: BoolArray) -> Runs:
        """Those of the True pixels of a plane, shape (Y, X)."""
        height, width = mask.shape
        edged = np.zeros((height, width + 1), bool)  # so that no run goes on in the next row
        edged[:, :-1] = mask
        flat = np.concatenate([[False], edged.ravel()])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        rows, first = np.divmod(edges[::2], width + 1)
        return cls(rows, first, edges[1::2] - rows * (width + 1))

    @property
    def lengths(self) -> Integers:
        """Pixels of each run."""
        return self.end - self.first

    @property
    def pixels(self) -> int:
        """Of all runs together."""
        return int(self.lengths.sum())

    @property
    def column_sums(self) -> Integers:
        """For each run the sum of its pixels' columns."""
        return (self.first + self.end - 1) * self.lengths // 2

    def __getitem__(self, which: BoolArray | slice) -> Runs:
        """Some of the runs."""
        return Runs(self.rows[which], self.first[which], self.end[which])

    def moved(self, shifts: Integers) -> Runs:
        """Each row moved by so many columns; shifts has shape (Y,)."""
        by = shifts[self.rows]
        return Runs(self.rows, self.first + by, self.end + by)

    def before(self, columns: Integers | int) -> Runs:
        """What of each run lies before a column, or before one of its own."""
        end = np.minimum(self.end, columns)
        return Runs(self.rows, self.first, end)[end > self.first]

    def behind(self, columns: Integers | int) -> Runs:
        """The rest: what of each run lies at its column or behind it."""
        first = np.maximum(self.first, columns)
        return Runs(self.rows, first, self.end)[self.end > first]

    def profile(self, width: int) -> Integers:
        """Pixels in each column of a plane so wide."""
        begun = np.bincount(self.first, minlength=width + 1)
        ended = np.bincount(self.end, minlength=width + 1)
        return np.cumsum(begun - ended)[:width]

    def regions(self, *, corners: bool = True) -> Regions:
        """The regions, numbered in the order of their first pixels.

        They are 8-connected, or 4-connected where pixels that share a corner alone do not touch.
        """
        if not self.rows.size:
            return Regions(0, self.rows)
        width = int(self.end.max()) + 2  # apart enough that no row touches the next one's ends
        first, end = self.rows * width + self.first, self.rows * width + self.end
        # Of each run those of the next row that touch it, also across corners: one after another.
        reach = width if corners else width - 1
        begin = np.searchsorted(end, first + 2 * width - reach, "left")
        touching = np.maximum(np.searchsorted(first, end + reach, "right") - begin, 0)
        above = np.repeat(np.arange(first.size), touching)
        below = np.arange(above.size) + np.repeat(begin - np.cumsum(touching) + touching, touching)
        lowest = lowest_connected(first.size, above, below)
        opens = lowest == np.arange(first.size)
        return Regions(int(np.count_nonzero(opens)), (np.cumsum(opens) - 1)[lowest])

    def paint(self, label: int, size: tuple[int, ...]) -> LabelArray:
        """A plane of a (height, width), with the label in the runs' pixels and 0 elsewhere."""
        return self.spread(np.full(self.rows.size, label, np.uint8), size)

    def spread(self, values: NDArray[Element], size: tuple[int, ...]) -> NDArray[Element]:
        """A plane of a (height, width) with a value for each run in its pixels and 0 elsewhere."""
        first = self.rows * size[1] + self.first
        edges = np.stack([first, first + self.lengths], axis=1).ravel()
        lengths = np.diff(edges, prepend=0, append=size[0] * size[1])
        spread = np.zeros(lengths.size, values.dtype)
        spread[1::2] = values
        return np.repeat(spread, lengths).reshape(size)


def label_regions(mask: BoolArray, *, corners: bool = True) -> tuple[NDArray[np.int32], int]:
    """Of each pixel of a plane the region it is in, from 1, 0 outside; and how many there are."""
    runs = Runs.of(mask)
    regions = runs.regions(corners=corners)
    return runs.spread((regions.of_run + 1).astype(np.int32), mask.shape), regions.count


def lowest_connected(count: int, one: Integers, other: Integers) -> Integers:
    """Of each of so many runs the first that it hangs together with, by pairs that touch.

    In turns, each tree of runs is hung under a neighbour with a lower root, and flattened
    (Shiloach & Vishkin 1982): at least half of the trees go with each turn.
    """
    root = np.arange(count)
    while True:
        lower = np.minimum(root[one], root[other])
        if np.array_equal(root[one], root[other]):
            return root
        np.minimum.at(root, root[one], lower)
        np.minimum.at(root, root[other], lower)
        while not np.array_equal(root, flatter := root[root]):
            root = flatter
