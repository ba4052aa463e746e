"""What a mask says about the slice: statistics, confidence, and flags on doubtful answers.

Definitions follow the Chest Imaging Platform (``parenchyma_phenotypes.py``): low attenuation
areas lie strictly below, high attenuation areas strictly above their threshold, and every
fraction is one of the lung's pixels. Where nothing was measured (``measured``), pixels count to
sizes and places and to nothing else. A value that can't be known is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lungseg.core.histogram import Histogram, Percentile, counted
from lungseg.core.measured import Scale, padding_within, scale_of
from lungseg.core.measures import Box, Density, Intensity, Lungs, Point, Region, Statistics
from lungseg.core.quality import Flag, find_flags
from lungseg.core.regions import bounding_box, sums
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Confidence, Scan, Segmentation, Unit

PERCENTILES = {"min": 0, "p5": 5, "p15": 15, "median": 50, "p95": 95, "max": 100}
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
    """Its fields, and theirs, are the members of the HTTP answer."""

    statistics: Statistics
    confidence: Confidence
    quality: Quality


@dataclass(frozen=True, slots=True)
class _Part:
    """What is counted of one part of the lung; parts add up."""

    by_row: NDArray[np.int64]
    """Pixels in each row of the window."""
    by_column: NDArray[np.int64]
    counts: NDArray[np.int64]
    """How often each level occurs where something was measured."""

    def __add__(self, other: _Part) -> _Part:
        return _Part(
            self.by_row + other.by_row,
            self.by_column + other.by_column,
            self.counts + other.counts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The part of the slice that holds all its lung: everything is counted in there once."""

    scan: Scan
    scale: Scale
    levels: NDArray[np.float64]
    top: int
    left: int

    def region(self, part: _Part, components: int) -> Region:
        """Measures a part of the window."""
        scan, pixels = self.scan, int(part.by_row.sum())
        values = Histogram.of_counts(self.levels, part.counts)
        area_mm2 = None
        if scan.spacing_mm is not None:
            area_mm2 = _rounded(pixels * scan.spacing_mm[0] * scan.spacing_mm[1])
        box, centroid = self._place(part, pixels) if pixels else (None, None)
        intensity = _intensity(values, scan.unit, self.scale)
        return Region(
            pixels=pixels,
            fraction=_share(pixels, scan.size[0] * scan.size[1]),
            area_mm2=area_mm2,
            bounding_box=box,
            centroid=centroid,
            components=components,
            intensity=intensity,
            density=_density(values, intensity.p15, self.scale)
            if scan.unit == "HU" and values.size
            else None,
        )

    def _place(self, part: _Part, pixels: int) -> tuple[Box, Point]:
        rows, columns = np.flatnonzero(part.by_row), np.flatnonzero(part.by_column)
        box = Box(
            x=self.left + int(columns[0]),
            y=self.top + int(rows[0]),
            width=int(columns[-1] - columns[0]) + 1,
            height=int(rows[-1] - rows[0]) + 1,
        )
        centroid = Point(
            x=_rounded(self.left + int(part.by_column @ np.arange(part.by_column.size)) / pixels),
            y=_rounded(self.top + int(part.by_row @ np.arange(part.by_row.size)) / pixels),
        )
        return box, centroid


def measure(scan: Scan, segmentation: Segmentation) -> Report:
    """Measures the lungs of one slice, Z = 1.

    Raises:
        ValueError: more than one slice.
    """
    if segmentation.components is None:
        raise ValueError(f"expected one slice, received {len(scan.values)}")
    mask = segmentation.mask[0]
    statistics = _statistics(scan, segmentation, segmentation.components, bounding_box(mask))
    return Report(
        statistics=statistics,
        confidence=segmentation.confidence,
        quality=Quality(flags=find_flags(scan, mask, statistics, segmentation.confidence)),
    )


def _statistics(
    scan: Scan,
    segmentation: Segmentation,
    components: tuple[int, int, int],
    box: tuple[slice, slice],
) -> Statistics:
    labels = segmentation.labels[0][box]
    lung = labels > 0
    padding = padding_within(scan, box, lung) if labels.size else None
    measured = lung if padding is None else lung & ~padding
    levels, counts = counted(scan.values[0][box][measured], labels[measured], UNSIDED + 1)
    window = _Window(
        scan=scan, scale=scale_of(scan), levels=levels, top=box[0].start, left=box[1].start
    )
    right = left = None
    if segmentation.laterality is None:
        both = _Part(*sums(lung), counts[RIGHT:].sum(axis=0))
    else:
        first, second = (_Part(*sums(labels == side), counts[side]) for side in (RIGHT, LEFT))
        right = window.region(first, components[1])
        left = window.region(second, components[2])
        both = first + second
    whole = window.region(both, components[0])
    return Statistics(
        **{item.name: getattr(whole, item.name) for item in fields(whole)},
        total_pixels=scan.size[0] * scan.size[1],
        lungs=Lungs(right=right, left=left),
        laterality=segmentation.laterality,
    )


def _intensity(values: Histogram, unit: Unit, scale: Scale) -> Intensity:
    if not values.size:
        return Intensity(unit=unit)
    averaged = scale.shows_mean(values)
    found = values.percentiles(tuple(PERCENTILES.values()))
    shown = zip(PERCENTILES, (_shown(percentile, scale) for percentile in found), strict=True)
    return Intensity(
        unit=unit,
        mean=_rounded(values.mean) if averaged else None,
        std=_rounded(values.std) if averaged else None,
        **dict(shown),
    )


def _density(values: Histogram, perc15: float | None, scale: Scale) -> Density:
    shares: dict[str, float | None] = {}
    for level in LAA_HU:
        shown = scale.shows_below(-level)
        shares[f"laa_{level}"] = _share(values.below(-level), values.size) if shown else None
    for level in HAA_HU:
        shown = scale.shows_above(-level)
        shares[f"haa_{level}"] = _share(values.above(-level), values.size) if shown else None
    return Density(**shares, perc15=perc15)


def _shown(percentile: Percentile, scale: Scale) -> float | None:
    """A percentile, None where one of the values that it lies between is unknown."""
    if not (scale.shows(percentile.lower) and scale.shows(percentile.upper)):
        return None
    return _rounded(percentile.value)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6)


def _rounded(value: float | np.floating) -> float:
    """Four decimals: finer than any CT measures, and short in the answer."""
    return round(float(value), 4)
