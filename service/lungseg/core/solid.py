"""What a volume knows better than its slices: which lung is which, and what is no lung at all.

Slices are labelled one by one (``sides``). Lung that hangs together over many slices is one lung
whatever one of them was taken for, and what lies far from both lungs, or is a speck, is none.
Cavities stay open: masks of the default model hardly have any. Masks of more runs than lungs have
(``MOST_RUNS``) are noise, and stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.core.distance import distances
from lungseg.core.regions import bounding_box
from lungseg.core.runs import Integers
from lungseg.core.solid_runs import SolidRuns
from lungseg.core.types import LEFT, RIGHT, UNSIDED, LabelArray

LARGE_SHARE = 0.05
"""Of the largest region, what makes another one a lung or a good part of one."""
SPECK_SHARE = 1e-4
"""Of all lung, what less than is noise: 0.4 ml of 4 l."""
FAR_MM = 30.0
"""Small regions farther below or above the large ones are gas of the bowel or the throat."""
SIDED_SHARE = 0.5
"""Of the planes with lung, how many must show sides by themselves for the others to follow."""
CLEAR_SHARE = 1 / 3
"""Of the way from one lung's middle to the other's, within which a region belongs to the nearer;
in between lies what touches decides."""
SWAP_SHARE = 0.2
"""Of a region's mean area in a plane, the least contact with the other lung that makes it a part
of that: a slice between two others has up to twice that area, lungs that touch hardly any."""


def settle(labels: LabelArray, heights_mm: NDArray[np.float64]) -> bool:
    """Makes the labels of a volume's planes agree, in place.

    Args:
        labels: uint8, shape (planes, Y, X), each plane labelled by itself.
        heights_mm: what each plane stands for along the body.

    Returns:
        Whether sides are known; if not, all lung is ``UNSIDED``.
    """
    box = bounding_box(np.asarray(labels.any(axis=0)))
    inside = labels[:, box[0], box[1]]
    if not inside.size:
        return True
    _drop(inside, np.cumsum(heights_mm))
    if not _fill_unsided(inside):
        inside[inside > 0] = UNSIDED
        return False
    _swap(inside)
    return True


def _drop(labels: LabelArray, tops_mm: NDArray[np.float64]) -> None:
    """Takes out specks, and small regions far below or above the large ones."""
    runs = SolidRuns.of(labels)
    if runs is None:
        return
    region = runs.regions(*runs.touching()[:2])
    sizes = np.bincount(region, runs.lengths)
    lowest, highest = np.full(sizes.size, np.inf), np.full(sizes.size, -np.inf)
    np.minimum.at(lowest, region, tops_mm[runs.planes])
    np.maximum.at(highest, region, tops_mm[runs.planes])
    large = sizes >= LARGE_SHARE * sizes.max()
    far = highest < lowest[large].min() - FAR_MM
    far |= lowest > highest[large].max() + FAR_MM
    dropped = (far & ~large) | (sizes < SPECK_SHARE * sizes.sum())
    if dropped.any():
        runs.paint(labels, dropped[region], np.zeros_like(runs.labels))


def _fill_unsided(labels: LabelArray) -> bool:
    """Gives lung without a side that of the nearest lung in the next plane that has sides.

    Returns whether enough planes have sides.
    """
    unsided = (labels == UNSIDED).any(axis=(1, 2))
    known, lacking = np.flatnonzero(labels.any(axis=(1, 2)) & ~unsided), np.flatnonzero(unsided)
    if known.size < SIDED_SHARE * (known.size + lacking.size):
        return False
    # From the planes with sides outwards, so that each has a neighbour that was filled before.
    distance = np.abs(lacking[:, None] - known).min(axis=1, initial=len(labels))
    for index in lacking[np.argsort(distance, kind="stable")].tolist():
        from_plane = int(known[np.abs(known - index).argmin()])
        lung = labels[index] > 0
        labels[index][lung] = _nearest(labels[from_plane])[lung]
        known = np.append(known, index)
    return True


def _nearest(plane: LabelArray) -> LabelArray:
    """Of each pixel the side of the nearest lung in a plane that has lung."""
    nearer = distances(plane == RIGHT) <= distances(plane == LEFT)
    return np.where(nearer, np.uint8(RIGHT), np.uint8(LEFT))


class _Contact(NamedTuple):
    """Regions that touch, each pair both ways, sorted by the first of them."""

    one: Integers
    other: Integers
    faces: Integers
    """By how many voxels' faces."""

    @classmethod
    def of(cls, one: Integers, other: Integers, faces: Integers) -> _Contact:
        both, across = np.concatenate([one, other]), np.concatenate([other, one])
        order = np.argsort(both, kind="stable")
        return cls(both[order], across[order], np.concatenate([faces, faces])[order])

    def near(self, region: int) -> tuple[Integers, Integers]:
        """What touches a region, and by how much."""
        here = slice(*np.searchsorted(self.one, [region, region + 1]).tolist())
        return self.other[here], self.faces[here]


def _swap(labels: LabelArray) -> None:
    """Gives regions of one side that belong to the other lung to that."""
    runs = SolidRuns.of(labels)
    if runs is None:
        return
    one, other, faces = runs.touching()
    alike = runs.labels[one] == runs.labels[other]
    region = runs.regions(one[alike], other[alike])
    sizes = np.bincount(region, runs.lengths).astype(np.float64)
    kinds = np.zeros(sizes.size, np.uint8)
    kinds[region] = runs.labels
    if np.unique(kinds).size < 2:
        return
    contact = _Contact.of(region[one[~alike]], region[other[~alike]], faces[~alike])
    columns = np.bincount(region, runs.lengths * (runs.first + runs.end - 1) / 2) / sizes
    enough = SWAP_SHARE * sizes / _spans(region, runs.planes)
    settled = _settled(kinds, sizes, _by_place(kinds, sizes, columns), (contact, enough))
    changed = settled != kinds
    if changed.any():
        runs.paint(labels, changed[region], settled[region])


def _by_place(
    kinds: LabelArray, sizes: NDArray[np.float64], columns: NDArray[np.float64]
) -> LabelArray:
    """The side that the middle column of each region tells, 0 where it tells none."""
    right, left = columns[_largest(kinds, sizes)]
    if left <= right:
        return np.zeros_like(kinds)
    place = (columns - right) / (left - right)
    told = np.where(place < CLEAR_SHARE, np.uint8(RIGHT), np.uint8(0))
    return np.where(place > 1 - CLEAR_SHARE, np.uint8(LEFT), told)


def _largest(kinds: LabelArray, sizes: NDArray[np.float64]) -> list[int]:
    """The largest region of the right, and of the left."""
    return [int(np.where(kinds == side, sizes, -1).argmax()) for side in (RIGHT, LEFT)]


def _spans(region: Integers, planes: Integers) -> Integers:
    """In how many planes each region is, from its first one to its last."""
    count = int(region.max()) + 1
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(first, region, planes)
    np.maximum.at(last, region, planes)
    return last - first + 1


def _settled(
    kinds: LabelArray,
    sizes: NDArray[np.float64],
    told: LabelArray,
    touching: tuple[_Contact, NDArray[np.float64]],
) -> LabelArray:
    """The side of each region: by its place, else by what it touches enough of.

    The largest region of each side is what it is; of the others the smaller are judged first, so
    that a slice is given back before what it parted.
    """
    largest = _largest(kinds, sizes)
    settled = np.where(told > 0, told, kinds)
    settled[largest] = kinds[largest]
    contact, enough = touching
    for index in np.argsort(sizes, kind="stable").tolist():
        if told[index] or index in largest:
            continue
        near, faces = contact.near(index)
        other = RIGHT + LEFT - int(settled[index])
        others = int(faces[settled[near] == other].sum())
        if others > int(faces.sum()) - others and others >= enough[index]:
            settled[index] = other
    return settled
