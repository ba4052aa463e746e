"""From measured intensities to the network's grey grid, and the geometry of the way back.

Training and serving call these very functions, so nothing can differ between them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse

from lungseg.core.contract import IntensityRule
from lungseg.core.types import FloatArray, ModelInput, Placement, Scan, Unit

GREY_MAX = 255.0
"""White on the network's grey scale; the division by 255 is inside the ONNX graph."""
HISTOGRAM_BINS = 256
PADDING_PERCENTILE = 99.5
PADDING_GAP = 0.15
"""Width of the empty range above padding, as a share of the whole range."""
EMPTY_FRACTION = 5e-3
"""Share of the pixels that an empty range may still hold (noise, interpolated edges)."""
SAMPLED = 4
"""Every such pixel is counted to find padding: thousands suffice, and all take a millisecond."""


def fit(scan: Scan, grid_size: tuple[int, int], rule: IntensityRule) -> ModelInput:
    """Brings slices onto the network's grid as grey levels.

    The slice keeps its aspect ratio and is centred; what it leaves free of the grid is black.

    Args:
        scan: one or more slices, shape (Z, Y, X).
        grid_size: (height, width) of the network's input.
        rule: how intensities become grey levels.

    Returns:
        Grey levels of shape (Z, height, width, 1) and the placement that ``restore`` undoes.
    """
    placement = place(scan.size, grid_size)
    top, left = placement.offset
    height, width = placement.inner_size
    grid = np.zeros((scan.values.shape[0], *grid_size, 1), np.float32)
    for index, plane in enumerate(scan.values):
        inner = to_grey(resample(plane, placement.inner_size), scan.unit, rule)
        grid[index, top : top + height, left : left + width, 0] = inner
    return ModelInput(grey=grid, placement=placement)


def place(source_size: tuple[int, int], grid_size: tuple[int, int]) -> Placement:
    """Centres a slice on the grid, as large as its aspect ratio allows."""
    scale = min(grid_size[0] / source_size[0], grid_size[1] / source_size[1])
    height = min(grid_size[0], max(1, round(source_size[0] * scale)))
    width = min(grid_size[1], max(1, round(source_size[1] * scale)))
    return Placement(
        source_size=source_size,
        grid_size=grid_size,
        offset=((grid_size[0] - height) // 2, (grid_size[1] - width) // 2),
        inner_size=(height, width),
    )


def to_grey(plane: FloatArray, unit: Unit, rule: IntensityRule) -> FloatArray:
    """Maps intensities to grey levels 0…255.

    HU go through the fixed window of the rule. Grey levels of unknown origin (8-bit pictures,
    16-bit exports, uncalibrated TIFF) are stretched between two percentiles of the slice, so
    that the bit depth and a constant offset make no difference.

    Args:
        plane: intensities of any 2-D shape.
        unit: what they are measured in.
        rule: window and percentiles.

    Returns:
        float32 in [0, 255], the same shape; all 0 for a constant grey-level plane.
    """
    if unit == "HU":
        low, high = rule.window_hu
    else:
        seen = without_padding(plane) if rule.skip_padding else plane
        low, high = percentiles(seen, rule.grey_percentiles)
        if high <= low:  # a small object on a constant ground: fall back to its whole range
            low, high = float(plane.min()), float(plane.max())
        if high <= low:
            return np.zeros(plane.shape, np.float32)
    scaled = (plane.astype(np.float64) - low) * (GREY_MAX / (high - low))
    return np.clip(scaled, 0.0, GREY_MAX).astype(np.float32)


def without_padding(values: FloatArray) -> FloatArray:
    """Leaves out what a wide empty range of the histogram separates from the rest below it.

    Scanners and exports mark the corners outside the field of view with a value far below air.

    Args:
        values: intensities of one slice, any shape.

    Returns:
        The remaining intensities, flat; ``values`` itself when there is no padding.
    """
    sample = values.reshape(-1)[::SAMPLED]
    # Metal must not widen the range.
    bottom, top = percentiles(sample, (0.0, PADDING_PERCENTILE))
    if top <= bottom:
        return values
    counts, edges = np.histogram(sample, bins=HISTOGRAM_BINS, range=(bottom, top))
    below = np.concatenate(([0], np.cumsum(counts))) / sample.size
    width = int(PADDING_GAP * HISTOGRAM_BINS)
    empty = below[width:] - below[:-width] < EMPTY_FRACTION
    # Air and tissue may lie as far apart in a narrow picture: padding is the darker minority.
    starts = np.flatnonzero(empty & (below[: len(empty)] > 0) & (below[: len(empty)] < 0.5))
    starts = starts[starts < HISTOGRAM_BINS // 2]
    if not starts.size:
        return values
    kept = values[values > edges[starts[0] + width]]
    return kept if kept.size else values


def percentiles(plane: FloatArray, percents: tuple[float, float]) -> tuple[float, float]:
    """As ``numpy.percentile``, linear between ranks, at half its time."""
    positions = [(plane.size - 1) * percent / 100 for percent in percents]
    ranks = [int(position) for position in positions]
    above = [min(rank + 1, plane.size - 1) for rank in ranks]
    ordered = np.partition(plane.ravel(), sorted({*ranks, *above}))
    low, high = (
        float(ordered[rank]) + (float(ordered[after]) - float(ordered[rank])) * (position - rank)
        for rank, after, position in zip(ranks, above, positions, strict=True)
    )
    return low, high


def resample(plane: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resizes a plane with a triangle filter, widened when shrinking so that nothing aliases.

    The same values as Pillow's ``BILINEAR`` (to float32 rounding), at half its time.

    Args:
        plane: shape (Y, X), any float dtype.
        size: (height, width) wanted.

    Returns:
        float32 of that size; the plane itself when it has it already.
    """
    if plane.shape == size:
        return plane
    rows = _triangle_weights(plane.shape[0], size[0])
    columns = _triangle_weights(plane.shape[1], size[1])
    if size[0] > plane.shape[0]:  # the smaller intermediate first
        resized = rows @ np.ascontiguousarray((columns @ plane.T).T)
    else:
        resized = (columns @ (rows @ plane).T).T
    return np.ascontiguousarray(resized, dtype=np.float32)


@lru_cache(maxsize=64)
def _triangle_weights(source: int, target: int) -> sparse.csr_array:
    """Sparse (target, source) matrix of the triangle filter; rows sum to 1."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale - 0.5
    reach = np.arange(int(2 * support) + 3)
    index = np.floor(centre - support).astype(np.int64)[:, None] + reach
    weight = np.clip(1.0 - np.abs(index - centre[:, None]) / support, 0.0, None)
    weight[(index < 0) | (index >= source)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    row, column = np.nonzero(weight)
    return sparse.csr_array(
        (weight[row, column].astype(np.float32), (row, index[row, column])),
        shape=(target, source),
    )
