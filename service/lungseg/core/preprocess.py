"""From measured intensities to the network's grey grid, and the geometry of the way back.

Training and serving call these very functions, so nothing can differ between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lungseg.core.body import Box, Covers, Planes, body_box
from lungseg.core.orientation import usual_view, view_spacing
from lungseg.core.types import AIR_HU, FloatArray, IntensityArray, ModelInput, Placement, Scan, Unit

ALL = slice(None)
GREY_MAX = 255.0
"""White on the network's grey scale; the division by 255 is inside the ONNX graph."""
HISTOGRAM_BINS = 256
LAST_BIN = HISTOGRAM_BINS - 1
LEAST_HU = -1024
"""Of what is measured; scanners write -2000, -3024 and the like outside their field of view."""
PADDING_PERCENTILE = 99.5
PADDING_GAP = 0.15
"""Width of the empty range above padding, as a share of the whole range."""
EMPTY_FRACTION = 5e-3
"""Share of the pixels that an empty range may still hold (noise, interpolated edges)."""
ROUNDING = 256 * float(np.finfo(np.float32).eps)
"""Of an intensity, the share that float32 sums may be off by: 3e-5, a tenth of 12 bits' step."""
SMALLEST = 1e-30
"""Intensities below are none: float32 holds too few steps between them to count."""
ROWS_AT_A_TIME, COLUMNS_AT_A_TIME = 8, 16
"""Pixels of a line are made in blocks, each by a product with the narrow band of weights that it
needs: so few that OpenBLAS does not spread the product of a usual slice over threads."""
GUESSED_FROM, GUESSED_WITHIN = 1024, 24
"""So many values say where a percentile is to be looked for, give or take so many of theirs."""
SAMPLED = 4
"""Every such pixel is counted to find padding: thousands suffice, and all take a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityRule:
    """How measured intensities become the grey levels 0…255 that the network sees."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by the contract's checks

    window_hu: tuple[float, float] = (-1000.0, 400.0)
    """HU that become 0 and 255."""
    grey_percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles of an uncalibrated slice that become 0 and 255."""
    skip_padding: bool = False
    """Whether what scanners write outside their field of view is left out of the percentiles."""

    def __post_init__(self) -> None:
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError("expected window_hu as low, high")
        low, high = self.grey_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("expected grey_percentiles as 0 <= low < high <= 100")


def fit(
    scan: Scan,
    grid_size: tuple[int, int],
    rule: IntensityRule,
    part: slice = ALL,
    covers: Covers = "whole",
) -> ModelInput:
    """Brings slices of the usual view onto the network's grid as grey levels.

    A slice keeps its shape in mm (in pixels where the spacing is unknown) and is centred; what
    it leaves free of the grid is black.

    Args:
        scan: one or more slices.
        grid_size: (height, width) of the network's input.
        rule: how intensities become grey levels.
        part: which slices of the view.
        covers: what of them the grid covers: all, or the box of the body that they share.

    Returns:
        Grey levels of shape (slices, height, width, 1) and the placement that ``restore`` undoes.
    """
    view = usual_view(scan)
    planes = view.apply(scan.values)[part]
    size = (planes.shape[1], planes.shape[2])
    box = body_box(planes, scan.unit) if covers == "body" else None
    placement = place(size, grid_size, view_spacing(scan, view), box)
    top, left = placement.offset
    height, width = placement.inner_size
    grid = np.zeros((len(planes), *grid_size, 1), np.float32)
    for index, plane in enumerate(planes):
        measured = _air_for_padding(covered(plane, placement), scan.unit)
        inner = resample(measured, placement.inner_size)
        whole = None
        if placement.part is not None and scan.unit != "HU":
            # Percentiles are those of all of the slice, however little of it is covered.
            whole = resample(plane, grid_size)
        grey = to_grey(inner, scan.unit, rule, whole)
        grid[index, top : top + height, left : left + width, 0] = grey
    return ModelInput(grey=grid, placement=placement)


def _air_for_padding(plane: IntensityArray, unit: Unit) -> IntensityArray:
    """HU that nothing has are padding: air, as where a header marks them, or they darken edges."""
    if unit != "HU" or plane.min() >= LEAST_HU:
        return plane
    return np.where(plane < LEAST_HU, plane.dtype.type(AIR_HU), plane)


def covered(plane: IntensityArray, placement: Placement) -> IntensityArray:
    """The part of a slice that the grid covers, shape (Y, X), without a copy."""
    if placement.part is None:
        return plane
    row, column, height, width = placement.part
    return plane[row : row + height, column : column + width]


def place(
    source_size: tuple[int, int],
    grid_size: tuple[int, int],
    spacing_mm: tuple[float, float] | None = None,
    box: Box | None = None,
) -> Placement:
    """Centres a slice, or a box of it, on the grid, as large as its shape in mm allows."""
    size = source_size if box is None else box.size
    # Rows that lie wider apart than columns make the slice taller than its number of rows.
    stretch = 1.0 if spacing_mm is None else spacing_mm[0] / spacing_mm[1]
    tall = size[0] * stretch
    scale = min(grid_size[0] / tall, grid_size[1] / size[1])
    height = min(grid_size[0], max(1, round(tall * scale)))
    width = min(grid_size[1], max(1, round(size[1] * scale)))
    return Placement(
        source_size=source_size,
        grid_size=grid_size,
        offset=((grid_size[0] - height) // 2, (grid_size[1] - width) // 2),
        inner_size=(height, width),
        part=None if size == source_size or box is None else (*box.corner, *box.size),
    )


def to_grey(
    plane: FloatArray, unit: Unit, rule: IntensityRule, whole: FloatArray | None = None
) -> FloatArray:
    """Maps intensities to grey levels, float32 in [0, 255] of the same shape (Y, X).

    HU go through the fixed window of the rule. Grey levels of unknown origin (8-bit pictures,
    16-bit exports, uncalibrated TIFF) are stretched between two percentiles of the slice
    ``whole`` (``plane`` itself by default), so that the bit depth and a constant offset make no
    difference; a plane that is constant to float32's rounding becomes 0.
    """
    if unit == "HU":
        low, high = rule.window_hu
    else:
        whole = plane if whole is None else whole
        seen = without_padding(whole) if rule.skip_padding else whole
        low, high = percentiles(seen, rule.grey_percentiles)
        if is_flat(low, high):  # a small object on a constant ground: fall back to its whole range
            low, high = float(whole.min()), float(whole.max())
        if is_flat(low, high):
            return np.zeros(plane.shape, np.float32)
    scaled = plane.astype(np.float64)
    scaled -= low
    scaled *= GREY_MAX / (high - low)
    return np.clip(scaled, 0.0, GREY_MAX, out=scaled).astype(np.float32)


def without_padding(values: FloatArray) -> FloatArray:
    """Leaves out what a wide empty range of the histogram separates from the rest below it.

    Scanners and exports mark the corners outside the field of view with a value far below air.

    Args:
        values: intensities of one slice, any shape.

    Returns:
        The remaining intensities, flat; ``values`` itself when there is no padding.
    """
    sample = values.reshape(-1)[::SAMPLED]  # (pixels / SAMPLED,)
    # Metal must not widen the range.
    bottom, top = percentiles(sample, (0.0, PADDING_PERCENTILE))
    if is_flat(bottom, top):
        return values
    step = (top - bottom) / HISTOGRAM_BINS
    bins = np.minimum((sample[sample <= top] - np.float32(bottom)) / np.float32(step), LAST_BIN)
    counts = np.bincount(bins.astype(np.int64), minlength=HISTOGRAM_BINS)
    below = np.concatenate(([0], np.cumsum(counts))) / sample.size  # (bins + 1,): per edge
    width = int(PADDING_GAP * HISTOGRAM_BINS)
    empty = below[width:] - below[:-width] < EMPTY_FRACTION  # (bins + 1 - width,)
    # Air and tissue may lie as far apart in a narrow picture: padding is the darker minority.
    starts = np.flatnonzero(empty & (below[: len(empty)] > 0) & (below[: len(empty)] < 0.5))
    starts = starts[starts < HISTOGRAM_BINS // 2]
    if not starts.size:
        return values
    kept = values[values > np.float32(bottom + (starts[0] + width) * step)]
    return kept if kept.size else values


def is_flat(low: float, high: float) -> bool:
    """Whether two intensities differ by no more than resampling's rounding of constant ones."""
    return high - low <= ROUNDING * max(abs(low), abs(high), SMALLEST)


def percentiles(values: Planes, percents: Sequence[float]) -> list[float]:
    """A few of ``numpy.percentile``, without sorting all values for them."""
    values = values.ravel()
    ordered = np.sort(values[:: max(1, values.size // GUESSED_FROM)])
    return [_percentile(values, percent, ordered) for percent in percents]


def _percentile(values: Planes, percent: float, sample: Planes) -> float:
    """One percentile: of the values about where a sorted sample has it, not of all of them."""
    position = (values.size - 1) * percent / 100
    rank = int(position)
    next_rank = min(rank + 1, values.size - 1)
    place = percent / 100 * sample.size
    first, last = int(place - GUESSED_WITHIN), int(place + GUESSED_WITHIN)
    low = sample[first] if first > 0 else -np.inf
    high = sample[last] if last < sample.size else np.inf
    near = values[(values >= low) & (values <= high)]
    before = int(np.count_nonzero(values < low)) if first > 0 else 0
    if not before <= rank <= next_rank < before + near.size:  # the sample was like few others
        near, before = values, 0
    near = np.partition(near, sorted({rank - before, next_rank - before}))
    lower, upper = float(near[rank - before]), float(near[next_rank - before])
    return lower + (upper - lower) * (position - rank)


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
