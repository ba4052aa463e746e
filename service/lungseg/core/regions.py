"""Boxes and largest regions of a mask, counts per line, and what lies along a plane's edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.core.runs import Runs
from lungseg.core.types import BoolArray, Element


def bounding_box(mask: BoolArray) -> tuple[slice, slice]:
    """(rows, columns) of the smallest rectangle that holds all of a plane's True pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def keep_largest(mask: BoolArray, count: int) -> BoolArray:
    """Keeps the ``count`` largest regions of a plane; of equal ones the topmost."""
    runs = Runs.of(mask)
    of_run = runs.regions().of_run
    sizes = np.bincount(of_run, runs.lengths)
    chosen = np.zeros(sizes.size, bool)
    chosen[np.argsort(-sizes, kind="stable")[:count]] = True
    return runs[chosen[of_run]].paint(1, mask.shape).view(bool)


def sums(mask: BoolArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels per row and per column of a plane.

    They are matrix products, being many times faster than sums of bools, and exact: float32
    counts up to 2^24.
    """
    ones = np.ones(max(mask.shape), np.float32)
    counted = mask.astype(np.float32)
    by_row, by_column = counted @ ones[: mask.shape[1]], ones[: mask.shape[0]] @ counted
    return by_row.astype(np.int64), by_column.astype(np.int64)


def rim(plane: NDArray[Element]) -> NDArray[Element]:
    """The values along a plane's four edges, in no order that matters."""
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
