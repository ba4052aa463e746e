"""The lung of a whole volume as runs: which of them touch, within planes and across.

Some hundreds of thousands of runs say all that a hundred million voxels do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungseg.core.runs import Integers, lowest_connected
from lungseg.core.types import BoolArray, LabelArray

MOST_RUNS = 2_000_000
"""Several times what the longest accepted volume of real lungs has; more would take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolidRuns:
    """Runs of one label along the rows of all planes, in order; arrays have shape (runs,)."""

    planes: Integers
    rows: Integers
    first: Integers
    """The first column of each run."""
    end: Integers
    """The column after its last."""
    labels: LabelArray
    size: tuple[int, int]
    """(height, width) of a plane."""

    @classmethod
    def of(cls, labels: LabelArray, most: int = MOST_RUNS) -> SolidRuns | None:
        """Those of labels, uint8, shape (planes, Y, X); None where there are more than so many."""
        height, width = labels.shape[1:]
        found: list[Integers] = []
        kinds: list[LabelArray] = []
        edged = np.zeros(1 + height * (width + 1), np.uint8)  # no run goes on in the next row
        rows = edged[1:].reshape(height, width + 1)
        total = 0
        for index, plane in enumerate(labels):
            rows[:, :-1] = plane
            edges = np.flatnonzero(edged[1:] != edged[:-1])
            begun, ended, kind = edges[:-1], edges[1:], edged[edges[:-1] + 1]
            lung = kind > 0
            row, first = np.divmod(begun[lung], width + 1)
            length = (ended - begun)[lung]
            found.append(np.stack([np.full(row.size, index), row, first, first + length]))
            kinds.append(kind[lung])
            total += row.size
            if total > most:
                return None
        planes, row, first, end = np.concatenate(found, axis=1)
        return cls(
            planes=planes,
            rows=row,
            first=first,
            end=end,
            labels=np.concatenate(kinds),
            size=(height, width),
        )

    @property
    def lengths(self) -> Integers:
        """Voxels of each run."""
        return self.end - self.first

    def touching(self) -> tuple[Integers, Integers, Integers]:
        """Pairs of runs that touch, also across corners, and by how many voxels' faces.

        Two that share corners alone touch by none.
        """
        height, width = self.size[0] + 1, self.size[1] + 2
        start = (self.planes * height + self.rows) * width
        first, end = start + self.first, start + self.end
        beside = np.flatnonzero(end[:-1] == first[1:])
        pairs = [(beside, beside + 1, np.ones(beside.size, np.int64))]
        for shift in (width, height * width):  # of the next row, and of the next plane
            begin = np.searchsorted(end, first + shift, "left")
            count = np.maximum(np.searchsorted(first, end + shift, "right") - begin, 0)
            one = np.repeat(np.arange(first.size), count)
            other = np.arange(one.size) + np.repeat(begin - np.cumsum(count) + count, count)
            shared = np.minimum(end[one] + shift, end[other])
            shared -= np.maximum(first[one] + shift, first[other])
            pairs.append((one, other, np.maximum(shared, 0)))
        one, other, faces = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return one, other, faces

    def regions(self, one: Integers, other: Integers) -> Integers:
        """Of each run its region, numbered from 0, by pairs of runs that belong together."""
        lowest = lowest_connected(self.first.size, one, other)
        opens = lowest == np.arange(self.first.size)
        return (np.cumsum(opens) - 1)[lowest]

    def paint(self, labels: LabelArray, which: BoolArray, kinds: LabelArray) -> None:
        """Writes labels, one for each run, into the voxels of some runs."""
        lengths = self.lengths[which]
        offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at = [np.repeat(part[which], lengths) for part in (self.planes, self.rows, self.first)]
        labels[at[0], at[1], at[2] + offsets] = np.repeat(kinds[which], lengths)
