"""What a mask says about the slice: statistics, confidence, and flags on doubtful answers.

Definitions follow the Chest Imaging Platform (``parenchyma_phenotypes.py``): low attenuation
areas lie strictly below, high attenuation areas strictly above their threshold, and every
fraction is one of the lung's pixels. A value that can't be known is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungseg.core.laterality import lateral_axis, split_sides
from lungseg.core.measures import (
    Box,
    Confidence,
    Density,
    Intensity,
    Lungs,
    Point,
    Region,
    Statistics,
)
from lungseg.core.quality import Flag, find_flags
from lungseg.core.regions import bounding_box, column_sums, label_regions
from lungseg.core.types import BoolArray, FloatArray, Scan, Segmentation, Unit

UNCERTAIN_PROBABILITY = (0.1, 0.9)
"""Probabilities within, ends included, are neither clearly lung nor clearly not."""
LAA_HU = (950, 910, 856)
"""Low attenuation areas lie strictly below minus these HU."""
HAA_HU = (700, 600, 250)
"""High attenuation areas lie strictly above minus these HU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Reasons to look twice at the answer."""

    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``dataclasses.asdict`` gives the members of the HTTP answer."""

    statistics: Statistics
    confidence: Confidence
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The part of the slice that holds all its lung: everything is measured in there once."""

    mask: BoolArray
    values: FloatArray
    probability: FloatArray
    top: int
    left: int


def measure(scan: Scan, segmentation: Segmentation) -> Report:
    """Measures the mask of one slice.

    Args:
        scan: the slice, shape (1, Y, X).
        segmentation: its mask and probabilities, of the same shape.

    Raises:
        ValueError: more than one slice.
    """
    if scan.values.shape[0] != 1:
        raise ValueError(f"expected one slice, received {scan.values.shape[0]}")
    mask, probability = segmentation.mask[0], segmentation.probability[0]
    window = _crop(mask, scan, probability)
    statistics = _statistics(scan, window)
    confidence = _confidence(window, probability, statistics.pixels)
    return Report(
        statistics=statistics,
        confidence=confidence,
        quality=Quality(flags=find_flags(scan, mask, statistics, confidence)),
    )


def _crop(mask: BoolArray, scan: Scan, probability: FloatArray) -> _Window:
    rows, columns = box = bounding_box(mask)
    return _Window(
        mask=mask[box],
        values=scan.values[0][box],
        probability=probability[box],
        top=rows.start,
        left=columns.start,
    )


def _statistics(scan: Scan, window: _Window) -> Statistics:
    regions = label_regions(window.mask)
    axis = lateral_axis(scan.orientation)
    right = left = None
    if axis is None:
        ordered = _ordered(window.values[window.mask])
    else:
        start = window.left if axis.axis else window.top
        extent = scan.size[axis.axis]
        sides = split_sides(window.mask, regions, axis, start=start, extent=extent)
        first, second = (_ordered(window.values[side]) for side in (sides.right, sides.left))
        right = _region(scan, window, sides.right, first, sides.components[0])
        left = _region(scan, window, sides.left, second, sides.components[1])
        # two sorted halves: a stable sort merges them in one pass
        ordered = np.sort(np.concatenate([first, second]), kind="stable")
    whole = _region(scan, window, window.mask, ordered, regions.count)
    return Statistics(
        pixels=whole.pixels,
        total_pixels=scan.size[0] * scan.size[1],
        fraction=whole.fraction,
        area_mm2=whole.area_mm2,
        bounding_box=whole.bounding_box,
        centroid=whole.centroid,
        components=whole.components,
        intensity=whole.intensity,
        density=whole.density,
        lungs=Lungs(right=right, left=left),
        laterality=axis.rule if axis else None,
    )


def _region(
    scan: Scan, window: _Window, mask: BoolArray, ordered: FloatArray, components: int
) -> Region:
    """Measures one part of the window, whose intensities come sorted."""
    pixels = int(ordered.size)
    height, width = scan.size
    area_mm2 = None
    if scan.spacing_mm is not None:
        area_mm2 = _rounded(pixels * scan.spacing_mm[0] * scan.spacing_mm[1])
    box, centroid = _place(mask, window) if pixels else (None, None)
    return Region(
        pixels=pixels,
        fraction=_share(pixels, height * width),
        area_mm2=area_mm2,
        bounding_box=box,
        centroid=centroid,
        components=components,
        intensity=_intensity(ordered, scan.unit),
        density=_density(ordered) if scan.unit == "HU" and pixels else None,
    )


def _place(mask: BoolArray, window: _Window) -> tuple[Box, Point]:
    by_row, by_column = column_sums(mask.T), column_sums(mask)
    rows, columns = np.flatnonzero(by_row), np.flatnonzero(by_column)
    pixels = int(by_row.sum())
    box = Box(
        x=window.left + int(columns[0]),
        y=window.top + int(rows[0]),
        width=int(columns[-1] - columns[0]) + 1,
        height=int(rows[-1] - rows[0]) + 1,
    )
    centroid = Point(
        x=_rounded(window.left + int(by_column @ np.arange(by_column.size)) / pixels),
        y=_rounded(window.top + int(by_row @ np.arange(by_row.size)) / pixels),
    )
    return box, centroid


def _ordered(values: FloatArray) -> FloatArray:
    """Sorted values. Whole numbers, the usual case, go through numpy's fast 16-bit sort."""
    if not values.size:
        return values
    lowest = values.min()
    if values.max() - lowest <= np.iinfo(np.uint16).max:
        shifted = values - lowest
        whole = shifted.astype(np.uint16)
        if np.array_equal(whole, shifted):
            return np.sort(whole, kind="stable").astype(np.float32) + lowest
    return np.sort(values)


def _intensity(ordered: FloatArray, unit: Unit) -> Intensity:
    if not ordered.size:
        return Intensity(unit=unit)
    return Intensity(
        unit=unit,
        mean=_rounded(ordered.mean(dtype=np.float64)),
        std=_rounded(ordered.std(dtype=np.float64)),
        min=_rounded(ordered[0]),
        p5=_percentile(ordered, 5),
        p15=_percentile(ordered, 15),
        median=_percentile(ordered, 50),
        p95=_percentile(ordered, 95),
        max=_rounded(ordered[-1]),
    )


def _density(ordered: FloatArray) -> Density:
    below = [_share(int(np.searchsorted(ordered, -t, "left")), ordered.size) for t in LAA_HU]
    above = [
        _share(ordered.size - int(np.searchsorted(ordered, -t, "right")), ordered.size)
        for t in HAA_HU
    ]
    return Density(
        laa_950=below[0],
        laa_910=below[1],
        laa_856=below[2],
        haa_700=above[0],
        haa_600=above[1],
        haa_250=above[2],
        perc15=_percentile(ordered, 15),
    )


def _percentile(ordered: FloatArray, percent: float) -> float:
    """As ``numpy.percentile`` of sorted values: linear between the two nearest ranks."""
    position = (ordered.size - 1) * percent / 100
    rank = int(position)
    low, high = float(ordered[rank]), float(ordered[min(rank + 1, ordered.size - 1)])
    return _rounded(low + (high - low) * (position - rank))


def _confidence(window: _Window, probability: FloatArray, pixels: int) -> Confidence:
    if not pixels:
        return Confidence(mean_probability=None, uncertain_fraction=None)
    low, high = (np.float32(bound) for bound in UNCERTAIN_PROBABILITY)
    uncertain = int(np.count_nonzero((probability >= low) & (probability <= high)))
    return Confidence(
        mean_probability=round(float(window.probability[window.mask].mean(dtype=np.float64)), 6),
        uncertain_fraction=_share(uncertain, pixels),
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6)


def _rounded(value: float | np.floating) -> float:
    """Four decimals: finer than any CT measures, and short in the answer."""
    return round(float(value), 4)
