"""What a mask says about the slice: statistics, confidence, and flags on doubtful answers.

Every fraction of an attenuation is one of the lung's pixels (``figures``). Where nothing was
measured (``measured``), pixels count to sizes and places and to nothing else. A value that can't
be known is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lungseg.core.figures import density_of, intensity_of, rounded, share
from lungseg.core.histogram import Histogram, counted
from lungseg.core.measured import Scale, padding_within, scale_of
from lungseg.core.measures import Box, Lungs, Point, Region, Statistics
from lungseg.core.quality import Flag, find_flags
from lungseg.core.regions import bounding_box, sums
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Confidence, Scan, Segmentation


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
            area_mm2 = rounded(pixels * scan.spacing_mm[0] * scan.spacing_mm[1])
        box, centroid = self._place(part, pixels) if pixels else (None, None)
        intensity = intensity_of(values, scan.unit, self.scale)
        return Region(
            pixels=pixels,
            fraction=share(pixels, scan.size[0] * scan.size[1]),
            area_mm2=area_mm2,
            bounding_box=box,
            centroid=centroid,
            components=components,
            intensity=intensity,
            density=density_of(values, intensity.p15, self.scale)
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
            x=rounded(self.left + int(part.by_column @ np.arange(part.by_column.size)) / pixels),
            y=rounded(self.top + int(part.by_row @ np.arange(part.by_row.size)) / pixels),
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
