"""What a volume's mask says: litres, grams and densities of lungs and thirds, and their profile.

Volumes are sums of areas times what each slice stands for, so that they hold with missing slices,
steps that change and a tilted gantry. Intensities are those of ``figures``; planes that stand for
more height count for more. A value that can't be known is None, never 0. CT lung volume, of lying
patients, is no total lung capacity, and is not called so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median_low

import numpy as np

from lungseg.core.axial import AxialPlanes
from lungseg.core.figures import density_of, grams_per_ml, intensity_of, rounded, share
from lungseg.core.measured import Scale, scale_of
from lungseg.core.report import Quality
from lungseg.core.types import LEFT, RIGHT, Confidence, Segmentation
from lungseg.core.volume import Volume
from lungseg.core.volume_counts import ALL_KINDS, KINDS, LungCounts, PlaneLung
from lungseg.core.volume_measures import (
    EQUAL_VOLUME,
    AreaProfile,
    LungThirds,
    Profile,
    Thirds,
    VolumeLungs,
    VolumeRegion,
    VolumeStatistics,
)
from lungseg.core.volume_quality import find_volume_flags

GAS_HU = -950
"""Of the profile's ``laa_950``: strictly below."""
SCALED_PLANES = 9
"""So many planes with lung, evenly apart, tell what the values of the volume can show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReport:
    """Its fields, and theirs, are the members of the HTTP answer."""

    statistics: VolumeStatistics
    confidence: Confidence
    quality: Quality


def measure_volume(volume: Volume, segmentation: Segmentation) -> VolumeReport:
    """Measures the lungs of a volume; the labels are those of its scan."""
    planes = AxialPlanes.of(volume.scan)
    labels = planes.view.apply(segmentation.labels)
    found = [PlaneLung.of(planes, *plane) for plane in zip(planes, labels, strict=True)]
    lungs = _Lungs(
        planes=planes,
        found=found,
        counts=LungCounts.of(planes, found),
        scale=_scale(planes, found),
        sided=segmentation.laterality is not None,
    )
    statistics = lungs.statistics(segmentation)
    flags = find_volume_flags(planes, segmentation, statistics)
    return VolumeReport(
        statistics=statistics, confidence=segmentation.confidence, quality=Quality(flags=flags)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lungs:
    """What the counted lung of all planes makes."""

    planes: AxialPlanes
    found: list[PlaneLung]
    counts: LungCounts
    scale: Scale
    sided: bool

    def statistics(self, segmentation: Segmentation) -> VolumeStatistics:
        whole = self.region(ALL_KINDS)
        right, left = (self.region(KINDS[side]) if self.sided else None for side in (RIGHT, LEFT))
        thirds = None
        if self.sided and self.planes.cranial:
            thirds = Thirds(
                definition=EQUAL_VOLUME, right=self.thirds(RIGHT), left=self.thirds(LEFT)
            )
        return VolumeStatistics(
            **{item.name: getattr(whole, item.name) for item in fields(whole)},
            right_left_ratio=_ratio(right, left),
            lungs=VolumeLungs(right=right, left=left),
            thirds=thirds,
            profile=self.profile(),
            laterality=segmentation.laterality,
        )

    def region(self, kinds: Sequence[int]) -> VolumeRegion:
        """Measures some kinds together."""
        chosen = list(kinds)
        voxels = int(self.counts.voxels[chosen].sum())
        volume_ml = float(self.counts.volumes_ml[chosen].sum())
        unit, values = self.planes.scan.unit, self.counts.tally.histogram(chosen)
        in_hu = unit == "HU" and values.size > 0
        grams = grams_per_ml(values, self.scale) if in_hu else None
        if not voxels:
            grams = 0.0
        known = math.isfinite(volume_ml)
        intensity = intensity_of(values, unit, self.scale)
        return VolumeRegion(
            voxels=voxels,
            volume_ml=rounded(volume_ml) if known else None,
            mass_g=rounded(volume_ml * grams) if known and grams is not None else None,
            intensity=intensity,
            density=density_of(values, intensity.p15, self.scale) if in_hu else None,
        )

    def thirds(self, side: int) -> LungThirds | None:
        """One lung's, None where that has no voxel."""
        if not self.counts.voxels[list(KINDS[side])].any():
            return None
        lower, middle, upper = (self.region([kind]) for kind in KINDS[side])
        return LungThirds(lower=lower, middle=middle, upper=upper)

    def profile(self) -> Profile:
        """Figures of each plane."""
        positions = self.planes.positions_mm
        in_hu = self.planes.scan.unit == "HU"
        shown = in_hu and self.scale.shows_below(GAS_HU)
        return Profile(
            position_mm=None if positions is None else tuple(map(rounded, positions.tolist())),
            area_mm2=AreaProfile(right=self._areas(RIGHT), left=self._areas(LEFT)),
            mean_hu=tuple(
                rounded(lung.values.mean(dtype=np.float64)) if in_hu and lung.values.size else None
                for lung in self.found
            ),
            laa_950=tuple(
                share(int(np.count_nonzero(lung.values < GAS_HU)), lung.values.size)
                if shown and lung.values.size
                else None
                for lung in self.found
            ),
        )

    def _areas(self, side: int) -> tuple[float, ...] | None:
        areas = [float(lung.areas_mm2[side]) for lung in self.found]
        if not self.sided or self.planes.rows_mm is None or self.planes.columns_mm is None:
            return None
        return tuple(map(rounded, areas))


def _ratio(right: VolumeRegion | None, left: VolumeRegion | None) -> float | None:
    """Right to left, by volumes where they are known."""
    if right is None or left is None or not left.voxels:
        return None
    if right.volume_ml is None or not left.volume_ml:
        return rounded(right.voxels / left.voxels)
    return rounded(right.volume_ml / left.volume_ml)


def _scale(planes: AxialPlanes, found: list[PlaneLung]) -> Scale:
    """What the values of a volume can show: what those of most of its planes can."""
    with_lung = [index for index, lung in enumerate(found) if lung.values.size]
    if not with_lung:
        return Scale()
    places = np.linspace(0, len(with_lung) - 1, min(SCALED_PLANES, len(with_lung)))
    scales = [scale_of(planes[with_lung[place]]) for place in np.rint(places).astype(int)]
    return Scale(
        low=median_low(scale.low for scale in scales),
        high=median_low(scale.high for scale in scales),
        coarse=median_low(scale.coarse for scale in scales),
    )
