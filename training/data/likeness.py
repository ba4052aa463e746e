"""Finds slices that are the same, or nearly so."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.core.resample import resample
from training.data.dataset import Pair

SIDE = 48
"""Of a fingerprint: 4.6 kB a slice in half precision."""
DETAIL = 2.0
"""Standard deviation, in cells, of what is taken out: the anatomy that all chests share."""
ALIKE = 0.98
"""Correlation from which slices count as nearly the same. Slices of different patients stay
below 0.91 in real data and below 0.97 in phantoms; a JPEG of the same slice reaches 0.9999, a
picture of it through another window 0.98 to 0.99."""
BLOCK = 512
"""Fingerprints compared at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """What was found.

    Attributes:
        same: (first, later) pairs of the same content.
        alike: (first, later, correlation) pairs that look nearly the same.
    """

    same: tuple[tuple[Pair, Pair], ...]
    alike: tuple[tuple[Pair, Pair, float], ...]


def fingerprint(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """The details of a slice, small, with mean and scale taken out so that windows matter little.

    Args:
        values: intensities, shape (Y, X).

    Returns:
        float16, shape (48 * 48,), of length 1; all 0 for a constant slice.
    """
    low, high = np.percentile(values, (0.5, 99.5))
    small = resample(np.clip(values, low, high), (SIDE, SIDE))
    detail = (small - ndimage.gaussian_filter(small, DETAIL)).ravel()
    detail = detail - detail.mean()
    length = float(np.linalg.norm(detail))
    return (detail / length if length else detail).astype(np.float16)


def find_twins(
    pairs: Sequence[Pair], prints: Sequence[NDArray[np.float16]], contents: Sequence[Hashable]
) -> Twins:
    """Compares all slices.

    Args:
        pairs: the slices.
        prints: the fingerprint of each.
        contents: what two slices have in common when they are the same.
    """
    first: dict[Hashable, Pair] = {}
    same = [
        (first[content], pair)
        for pair, content in zip(pairs, contents, strict=True)
        if first.setdefault(content, pair) is not pair
    ]
    alike = [
        (pairs[one], pairs[other], likeness)
        for one, other, likeness in _alike(prints)
        if contents[one] != contents[other]
    ]
    return Twins(same=tuple(same), alike=tuple(alike))


def _alike(prints: Sequence[NDArray[np.float16]]) -> Iterator[tuple[int, int, float]]:
    starts = range(0, len(prints), BLOCK)
    for top in starts:
        rows = np.stack(prints[top : top + BLOCK]).astype(np.float32)
        for left in (start for start in starts if start >= top):
            columns = np.stack(prints[left : left + BLOCK]).astype(np.float32)
            likeness = rows @ columns.T
            for row, column in np.argwhere(likeness >= ALIKE).tolist():
                if top + row < left + column:
                    yield top + row, left + column, float(likeness[row, column])
