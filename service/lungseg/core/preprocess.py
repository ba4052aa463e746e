"""From measured intensities to the network's grey grid, and the geometry of the way back.

Training and serving call these very functions, so nothing can differ between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from lungseg.core.body import Box, Covers, body_box
from lungseg.core.orientation import usual_view, view_spacing
from lungseg.core.types import FloatArray, IntensityArray, ModelInput, Placement, Scan, Unit

ALL = slice(None)
GREY_MAX = 255.0
"""White on the network's grey scale; the division by 255 is inside the ONNX graph."""
HISTOGRAM_BINS = 256
PADDING_PERCENTILE = 99.5
PADDING_GAP = 0.15
"""Width of the empty range above padding, as a share of the whole range."""
EMPTY_FRACTION = 5e-3
"""Share of the pixels that an empty range may still hold (noise, interpolated edges)."""
ROUNDING = 256 * float(np.finfo(np.float32).eps)
"""Of an intensity, the share that float32 sums may be off by: 3e-5, a tenth of 12 bits' step."""
SMALLEST = 1e-30
"""Intensities below are none: float32 holds too few steps between them to count."""
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
        inner = resample(covered(plane, placement), placement.inner_size)
        whole = None
        if placement.part is not None and scan.unit != "HU":
            # Percentiles are those of all of the slice, however little of it is covered.
            whole = resample(plane, grid_size)
        grey = to_grey(inner, scan.unit, rule, whole)
        grid[index, top : top + height, left : left + width, 0] = grey
    return ModelInput(grey=grid, placement=placement)


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
    sample = values.reshape(-1)[::SAMPLED]  # (pixels / SAMPLED,)
    # Metal must not widen the range.
    bottom, top = percentiles(sample, (0.0, PADDING_PERCENTILE))
    if is_flat(bottom, top):
        return values
    counts, edges = np.histogram(sample, bins=HISTOGRAM_BINS, range=(bottom, top))
    below = np.concatenate(([0], np.cumsum(counts))) / sample.size  # (bins + 1,): per edge
    width = int(PADDING_GAP * HISTOGRAM_BINS)
    empty = below[width:] - below[:-width] < EMPTY_FRACTION  # (bins + 1 - width,)
    # Air and tissue may lie as far apart in a narrow picture: padding is the darker minority.
    starts = np.flatnonzero(empty & (below[: len(empty)] > 0) & (below[: len(empty)] < 0.5))
    starts = starts[starts < HISTOGRAM_BINS // 2]
    if not starts.size:
        return values
    kept = values[values > edges[starts[0] + width]]
    return kept if kept.size else values


def is_flat(low: float, high: float) -> bool:
    """Whether two intensities differ by no more than resampling's rounding of constant ones."""
    return high - low <= ROUNDING * max(abs(low), abs(high), SMALLEST)


def percentiles(plane: FloatArray, percents: tuple[float, float]) -> tuple[float, float]:
    """Two of ``numpy.percentile`` at half its time: only the ranks that are read are sorted."""
    last = plane.size - 1
    ranks = [int(last * percent / 100) for percent in percents]
    read = sorted({*ranks, *(min(rank + 1, last) for rank in ranks)})
    ordered = np.partition(plane.ravel(), read)
    return percentile(ordered, percents[0]), percentile(ordered, percents[1])


def percentile(ordered: FloatArray, percent: float) -> float:
    """As ``numpy.percentile`` of sorted values: linear between the two nearest ranks."""
    position = (ordered.size - 1) * percent / 100
    rank = int(position)
    low, high = float(ordered[rank]), float(ordered[min(rank + 1, ordered.size - 1)])
    return low + (high - low) * (position - rank)


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
    rows = _triangle_weights(plane.shape[0], size[0])  # (height, Y)
    columns = _triangle_weights(plane.shape[1], size[1])  # (width, X)
    if size[0] > plane.shape[0]:  # the smaller intermediate first: (Y, width), else (height, X)
        resized = rows @ np.ascontiguousarray((columns @ plane.T).T)
    else:
        resized = (columns @ (rows @ plane).T).T
    return np.ascontiguousarray(resized, dtype=np.float32)


@lru_cache(maxsize=64)
def _triangle_weights(source: int, target: int) -> sparse.csr_array:
    """Sparse (target, source) matrix of the triangle filter; rows sum to 1."""
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale - 0.5  # (target,), in source pixels
    reach = np.arange(int(2 * support) + 3)
    index = np.floor(centre - support).astype(np.int64)[:, None] + reach  # (target, reach)
    weight = np.clip(1.0 - np.abs(index - centre[:, None]) / support, 0.0, None)
    weight[(index < 0) | (index >= source)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    row, column = np.nonzero(weight)
    return sparse.csr_array(
        (weight[row, column].astype(np.float32), (row, index[row, column])),
        shape=(target, source),
    )
