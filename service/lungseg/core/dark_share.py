"""How much of a lung is darker than a level that no answer has, from what answers do have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

THRESHOLDS_HU = (950, 910, 856)
"""Of low attenuation areas, below zero."""
LEAST_APART_HU = 4.0
"""Known levels closer to each other tell the slope between them badly."""


def dark_share(region: Mapping[str, Any], level_hu: float) -> float | None:
    """The share of a region below a level near -950 HU; None where too little is known of it.

    Between known shares (of the thresholds, and where p5 and p15 lie) and a little below them
    shares are taken to grow by a constant factor per HU.
    """
    density, intensity = region["density"] or {}, region["intensity"]
    known: list[tuple[float | None, float | None]]
    known = [(-float(hu), density.get(f"laa_{hu}")) for hu in THRESHOLDS_HU]
    known += [(intensity["p5"], 0.05), (intensity["p15"], 0.15)]
    given = [(hu, share) for hu, share in known if hu is not None and share and share > 0]
    places = given[:1]
    for hu, share in sorted(given[1:]):
        if hu >= places[-1][0] + LEAST_APART_HU and share >= places[-1][1]:
            places.append((hu, share))
    if len(places) < 2 or places[0][0] != -THRESHOLDS_HU[0]:
        return None
    above = (pair for pair in pairwise(places) if level_hu <= pair[1][0])
    (low, least), (high, most) = next(above, (places[-2], places[-1]))
    grown = math.log(most / least) * (level_hu - low) / (high - low)
    return math.exp(min(0.0, math.log(least) + grown))
