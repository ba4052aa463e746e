"""What a mask says about the slice: statistics, confidence, and flags on doubtful answers.

Definitions follow the Chest Imaging Platform (``parenchyma_phenotypes.py``): low attenuation
areas lie strictly below, high attenuation areas strictly above their threshold, and every
fraction is one of the lung's pixels. Where nothing was measured (``measured``), pixels count to
sizes and places and to nothing else. A value that can't be known is None, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from lungseg.core.measured import Scale, padding_within, scale_of
from lungseg.core.measures import Box, Density, Intensity, Lungs, Point, Region, Statistics
from lungseg.core.preprocess import percentile
from lungseg.core.quality import Flag, find_flags
from lungseg.core.regions import bounding_box, column_sums
from lungseg.core.types import (
    LEFT,
    RIGHT,
    BoolArray,
    Confidence,
    FloatArray,
    LabelArray,
    Scan,
    Segmentation,
    Unit,
)

PERCENTILES = {"p5": 5, "p15": 15, "median": 50, "p95": 95}
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

    labels: LabelArray
    values: FloatArray
    padding: BoolArray | None
    """Where nothing was measured; None = nowhere."""
    scale: Scale
    top: int
    left: int

    def measured(self, mask: BoolArray) -> FloatArray:
        """The values in a part of the window, sorted."""
        return _ordered(self.values[mask if self.padding is None else mask & ~self.padding])


def measure(scan: Scan, segmentation: Segmentation) -> Report:
    """Measures the lungs of one slice, Z = 1.

    Raises:
        ValueError: more than one slice.
    """
    if segmentation.components is None:
        raise ValueError(f"expected one slice, received {len(scan.values)}")
    mask = segmentation.mask[0]
    rows, columns = box = bounding_box(mask)
    window = _Window(
        labels=segmentation.labels[0][box],
        values=scan.values[0][box].astype(np.float32, copy=False),
        padding=padding_within(scan, box) if mask.any() else None,
        scale=scale_of(scan),
        top=rows.start,
        left=columns.start,
    )
    statistics = _statistics(scan, segmentation, segmentation.components, window)
    return Report(
        statistics=statistics,
        confidence=segmentation.confidence,
        quality=Quality(flags=find_flags(scan, mask, statistics, segmentation.confidence)),
    )


def _statistics(
    scan: Scan, segmentation: Segmentation, components: tuple[int, int, int], window: _Window
) -> Statistics:
    mask = window.labels > 0
    right = left = None
    if segmentation.laterality is None:
        ordered = window.measured(mask)
    else:
        sides = window.labels == RIGHT, window.labels == LEFT
        first, second = map(window.measured, sides)
        right = _region(scan, window, sides[0], first, components[1])
        left = _region(scan, window, sides[1], second, components[2])
        # two sorted halves: a stable sort merges them in one pass
        ordered = np.sort(np.concatenate([first, second]), kind="stable")
    whole = _region(scan, window, mask, ordered, components[0])
    return Statistics(
        **{item.name: getattr(whole, item.name) for item in fields(whole)},
        total_pixels=scan.size[0] * scan.size[1],
        lungs=Lungs(right=right, left=left),
        laterality=segmentation.laterality,
    )


def _region(
    scan: Scan, window: _Window, mask: BoolArray, ordered: FloatArray, components: int
) -> Region:
    """Measures one part of the window, whose measured intensities come sorted."""
    pixels = int(np.count_nonzero(mask))
    area_mm2 = None
    if scan.spacing_mm is not None:
        area_mm2 = _rounded(pixels * scan.spacing_mm[0] * scan.spacing_mm[1])
    box, centroid = _place(mask, window) if pixels else (None, None)
    return Region(
        pixels=pixels,
        fraction=_share(pixels, scan.size[0] * scan.size[1]),
        area_mm2=area_mm2,
        bounding_box=box,
        centroid=centroid,
        components=components,
        intensity=_intensity(ordered, scan.unit, window.scale),
        density=_density(ordered, window.scale) if scan.unit == "HU" and ordered.size else None,
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


def _intensity(ordered: FloatArray, unit: Unit, scale: Scale) -> Intensity:
    if not ordered.size:
        return Intensity(unit=unit)
    averaged = scale.shows_mean(ordered)
    return Intensity(
        unit=unit,
        mean=_rounded(ordered.mean(dtype=np.float64)) if averaged else None,
        std=_rounded(ordered.std(dtype=np.float64)) if averaged else None,
        min=_percentile(ordered, 0, scale),
        max=_percentile(ordered, 100, scale),
        **{name: _percentile(ordered, part, scale) for name, part in PERCENTILES.items()},
    )


def _density(ordered: FloatArray, scale: Scale) -> Density:
    shares: dict[str, float | None] = {}
    for level in LAA_HU:
        count = int(np.searchsorted(ordered, np.float32(-level), "left"))
        shown = scale.shows_below(-level)
        shares[f"laa_{level}"] = _share(count, ordered.size) if shown else None
    for level in HAA_HU:
        count = ordered.size - int(np.searchsorted(ordered, np.float32(-level), "right"))
        shown = scale.shows_above(-level)
        shares[f"haa_{level}"] = _share(count, ordered.size) if shown else None
    return Density(**shares, perc15=_percentile(ordered, 15, scale))


def _percentile(ordered: FloatArray, percent: float, scale: Scale) -> float | None:
    """A percentile of sorted values, None where one that it lies between is unknown."""
    position = (ordered.size - 1) * percent / 100
    nearest = ordered[[math.floor(position), math.ceil(position)]]
    if not all(scale.shows(float(value)) for value in nearest):
        return None
    return _rounded(percentile(ordered, percent))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6)


def _rounded(value: float | np.floating) -> float:
    """Four decimals: finer than any CT measures, and short in the answer."""
    return round(float(value), 4)
