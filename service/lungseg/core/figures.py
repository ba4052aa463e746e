"""Figures of the intensities in a part of the lung, the same for one slice and for a volume.

Definitions follow the Chest Imaging Platform (``parenchyma_phenotypes.py``): low attenuation
areas lie strictly below, high attenuation areas strictly above their threshold. What the file's
values cannot show (``Scale``) is None, never 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.core.histogram import Histogram, Percentile
from lungseg.core.measured import Scale
from lungseg.core.measures import Density, Intensity
from lungseg.core.types import AIR_HU, Unit

PERCENTILES = {"min": 0, "p5": 5, "p15": 15, "median": 50, "p95": 95, "max": 100}
LAA_HU = (950, 910, 856)
"""Low attenuation areas lie strictly below minus these HU."""
HAA_HU = (700, 600, 250)
"""High attenuation areas lie strictly above minus these HU."""
DENSITY_HU = (AIR_HU, -98.0, 18.0, 100.0)
"""Where the lines of tissue density meet: air, the end of lung and fat, water, soft tissue."""
AIR_G_PER_ML, FAT_G_PER_ML = 0.00121, 0.93
"""Density at the two ends of the first line."""
DENSITY_LINES = ((1.018, 0.893e-3), (1.003, 1.169e-3), (1.017, 0.592e-3))
"""g/ml at 0 HU and g/ml by HU of the lines above it (Schneider et al. 2000, Phys Med Biol
45:459, as the Chest Imaging Platform has them)."""


def intensity_of(values: Histogram, unit: Unit, scale: Scale) -> Intensity:
    """Mean, spread and percentiles."""
    if not values.size:
        return Intensity(unit=unit)
    averaged = scale.shows_mean(values)
    found = values.percentiles(tuple(PERCENTILES.values()))
    shown = zip(PERCENTILES, (_shown(percentile, scale) for percentile in found), strict=True)
    return Intensity(
        unit=unit,
        mean=rounded(values.mean) if averaged else None,
        std=rounded(values.std) if averaged else None,
        **dict(shown),
    )


def density_of(values: Histogram, perc15: float | None, scale: Scale) -> Density:
    """Shares of low and high attenuation of at least one value in HU."""
    shares: dict[str, float | None] = {}
    for level in LAA_HU:
        shown = scale.shows_below(-level)
        shares[f"laa_{level}"] = share(values.below(-level), values.size) if shown else None
    for level in HAA_HU:
        shown = scale.shows_above(-level)
        shares[f"haa_{level}"] = share(values.above(-level), values.size) if shown else None
    return Density(**shares, perc15=perc15)


def grams_per_ml(values: Histogram, scale: Scale) -> float | None:
    """Mean density of at least one value in HU, which times the volume is the mass."""
    if not scale.shows_mean(values):
        return None
    return float(_densities(values.levels) @ values.counts) / values.size


def _densities(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """g/ml of each level in HU: lung lies on a line from air to fat, and nothing below air."""
    air, fat, water, soft = DENSITY_HU
    slope = (FAT_G_PER_ML - AIR_G_PER_ML) / (fat - air)
    lowest = AIR_G_PER_ML + slope * (np.maximum(levels, air) - air)
    lines = [at_zero + by_hu * levels for at_zero, by_hu in DENSITY_LINES]
    return np.select(
        [levels <= fat, levels <= water, levels <= soft], [lowest, *lines[:2]], lines[2]
    )


def _shown(percentile: Percentile, scale: Scale) -> float | None:
    """A percentile, None where one of the values that it lies between is unknown."""
    if not (scale.shows(percentile.lower) and scale.shows(percentile.upper)):
        return None
    return rounded(percentile.value)


def share(part: int, whole: int) -> float:
    """A fraction of six decimals."""
    return round(part / whole, 6)


def rounded(value: float | np.floating) -> float:
    """Four decimals: finer than any CT measures, and short in the answer."""
    return round(float(value), 4)
