"""What is measured of a mask: the frozen values of the report, without its flags."""

from __future__ import annotations

from dataclasses import dataclass

from lungseg.core.types import Laterality, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """The smallest upright rectangle around the mask, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A position in pixels; (0, 0) is the centre of the top left one."""

    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """Distribution of the intensities in the mask; percentiles interpolate linearly.

    A figure is None where nothing was measured, or where the file's values cannot show it.
    """

    unit: Unit
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    p5: float | None = None
    p15: float | None = None
    median: float | None = None
    p95: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Fractions of the mask below −t HU (``laa_t``) or above −t HU (``haa_t``), and Perc15.

    A figure is None where the file's values cannot show it.
    """

    laa_950: float | None
    laa_910: float | None
    laa_856: float | None
    haa_700: float | None
    haa_600: float | None
    haa_250: float | None
    perc15: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Size, place and intensities of a part of the mask."""

    pixels: int
    fraction: float
    area_mm2: float | None
    bounding_box: Box | None
    centroid: Point | None
    components: int
    intensity: Intensity
    density: Density | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lungs:
    """The patient's right and left lung; None where sides cannot be told."""

    right: Region | None
    left: Region | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics(Region):
    """The whole mask, and each lung by itself."""

    total_pixels: int
    lungs: Lungs
    laterality: Laterality | None
