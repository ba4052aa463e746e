"""Planes in other sizes: a triangle filter, as products with narrow bands of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lungseg.core.types import FloatArray, IntensityArray

ROWS_AT_A_TIME, COLUMNS_AT_A_TIME = 8, 16
"""Pixels of a line are made in blocks, each by a product with the narrow band of weights that it
needs: so few that OpenBLAS does not spread the product of a usual slice over threads."""


def resample(plane: IntensityArray, size: tuple[int, int]) -> FloatArray:
    """Resizes a plane with a triangle filter, widened when shrinking so that nothing aliases.

    The same values as Pillow's ``BILINEAR`` (to float32 rounding), at half its time.

    Args:
        plane: shape (Y, X), float or int16.
        size: (height, width) wanted.

    Returns:
        float32 of that size, a view of the plane where nothing is to be done.
    """
    plane = plane.astype(np.float32, copy=False)
    if plane.shape == size:
        return plane
    if size[0] > plane.shape[0]:  # the smaller intermediate first: (Y, width), else (height, X)
        return _resample_rows(_resample_columns(plane, size[1]), size[0])
    return _resample_columns(_resample_rows(plane, size[0]), size[1])


def _resample_rows(plane: FloatArray, height: int) -> FloatArray:
    result = np.empty((height, plane.shape[1]), np.float32)
    for block in _triangle(plane.shape[0], height, ROWS_AT_A_TIME):
        np.matmul(block.weights, plane[block.source], out=result[block.target])
    return result


def _resample_columns(plane: FloatArray, width: int) -> FloatArray:
    result = np.empty((plane.shape[0], width), np.float32)
    for block in _triangle(plane.shape[1], width, COLUMNS_AT_A_TIME):
        np.matmul(plane[:, block.source], block.weights.T, out=result[:, block.target])
    return result


@dataclass(frozen=True, slots=True)
class _Block:
    """Some neighbouring pixels of a line, and those of another line that they are made of."""

    target: slice
    source: slice
    weights: FloatArray
    """Shape (target, source)."""


@lru_cache(maxsize=64)
def _triangle(source: int, target: int, at_a_time: int) -> tuple[_Block, ...]:
    """A triangle filter from so many pixels of a line to so many others; its weights sum to 1."""
    scale = source / target
    support = max(scale, 1.0)
    blocks: list[_Block] = []
    for begin in range(0, target, at_a_time):
        pixels = np.arange(begin, min(begin + at_a_time, target))
        centre = (pixels + 0.5) * scale - 0.5  # (pixels,), in source pixels
        first = max(0, math.ceil(centre[0] - support))
        last = min(source - 1, math.floor(centre[-1] + support))
        away = np.abs(np.arange(first, last + 1) - centre[:, None]) / support
        weights = np.clip(1.0 - away, 0.0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        blocks.append(
            _Block(
                slice(begin, begin + pixels.size),
                slice(first, last + 1),
                weights.astype(np.float32),
            )
        )
    return tuple(blocks)
