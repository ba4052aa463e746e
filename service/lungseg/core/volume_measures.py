"""What is measured of a volume's mask: the frozen values of the report, without its flags."""

from __future__ import annotations

from dataclasses import dataclass

from lungseg.core.measures import Density, Intensity
from lungseg.core.types import Laterality

EQUAL_VOLUME = "equal volume per lung"
"""The definition of thirds: a third of the volume each, not of the height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRegion:
    """Size and intensities of a part of the lungs."""

    voxels: int
    volume_ml: float | None
    """None where the distance of slices or pixels is unknown. It is no total lung capacity."""
    mass_g: float | None
    intensity: Intensity
    density: Density | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeLungs:
    """The patient's right and left lung; None where sides cannot be told."""

    right: VolumeRegion | None
    left: VolumeRegion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LungThirds:
    """One lung in three, from the diaphragm to the apex."""

    lower: VolumeRegion
    middle: VolumeRegion
    upper: VolumeRegion


@dataclass(frozen=True, slots=True, kw_only=True)
class Thirds:
    """Both lungs in thirds; a lung that is not there has none."""

    definition: str
    right: LungThirds | None
    left: LungThirds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaProfile:
    """mm² of each lung in each axial plane; None where areas or sides are unknown."""

    right: tuple[float, ...] | None
    left: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Figures of each axial plane, from the feet to the head; all have one length."""

    position_mm: tuple[float, ...] | None
    """Towards the head in the patient's coordinates, at the middle of the plane."""
    area_mm2: AreaProfile
    mean_hu: tuple[float | None, ...]
    laa_950: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStatistics(VolumeRegion):
    """All lung, each lung by itself, and how it is spread from the feet to the head."""

    right_left_ratio: float | None
    lungs: VolumeLungs
    thirds: Thirds | None
    """None where sides, or which end is the head's, cannot be told."""
    profile: Profile
    laterality: Laterality | None
