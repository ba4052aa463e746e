"""What changed between two scans of one patient: differences, raw and adjusted for the volume.

Both scans come as answers for volumes. Nothing is registered: both lungs, each lung and each third
are compared as wholes. A deeper breath makes lung less dense without any loss of it. By the sponge
model its tissue only spreads: density (g/l = HU + 1000) times volume stays the same, so that the
scan after is brought to the volume before by

    HU' = (HU + 1000) · V_after / V_before - 1000

which follows from that alone. Shaker et al. 2004, Acta Radiol 45:417, and Stoel et al. 2008, Proc
Am Thorac Soc 5:919, correct densities so; they are cited from memory, and were not at hand. Real
lungs follow the model roughly: Parr et al. 2008, Respir Res 9:21, ascribe nearly half of the fall
in density over two years to volume. Whether a change lies within what rescans differ by is told
where that is published; what a change means for a patient is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lungseg.core.comparable import is_cut, warnings_of
from lungseg.core.compared import checked_answer
from lungseg.core.dark_share import dark_share
from lungseg.core.figures import HAA_HU, LAA_HU, rounded
from lungseg.core.repeatability import ADJUSTED_PERC15, RESCANS, Limits

FORMULA = "HU' = (HU + 1000) * V_after / V_before - 1000"
"""As it stands in the answer."""
ADJUSTED_FIGURES = ("mean_hu", "perc15")
"""Figures in HU that the formula holds for as it stands."""
MAX_LAA_STRETCH = 0.15
"""Change of volume, as a share, up to which LAA-950 is adjusted (``dark_share``)."""
THIRDS = ("lower", "middle", "upper")
UNITS = {"volume_ml": "ml", "mass_g": "g", "mean_hu": "HU", "perc15": "HU"}
"""Of what is no share; shares are in percent, and their changes in points of these."""


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Compares two answers for volumes.

    Args:
        before: the answer for the earlier scan.
        after: the answer for the later one.

    Returns:
        Differences with the layout of ``statistics``, and named warnings where scans do not
        compare. A figure that either scan lacks is None.

    Raises:
        InvalidParameter: one of them is no answer for a volume.
    """
    first, second = checked_answer(before, "before"), checked_answer(after, "after")
    cut = is_cut(first) or is_cut(second)
    one, other = first["statistics"], second["statistics"]
    lungs = {
        side: _region(one["lungs"][side], other["lungs"][side], cut=cut)
        for side in ("right", "left")
    }
    return {
        "differences": {
            "both": _region(one, other, cut=cut, limits=RESCANS),
            "lungs": lungs,
            "thirds": {side: _thirds(one, other, side, cut=cut) for side in ("right", "left")},
        },
        "adjustment": {"model": "sponge", "formula": FORMULA, "reference": "before"},
        "warnings": warnings_of(first, second),
    }


def _thirds(
    before: Mapping[str, Any], after: Mapping[str, Any], side: str, *, cut: bool
) -> dict[str, Any] | None:
    """Of one lung; they are adjusted by the volumes of the lung, of which they are a third each."""
    one, other = before["lungs"][side], after["lungs"][side]
    first, second = ((answer["thirds"] or {}).get(side) for answer in (before, after))
    if one is None or other is None or first is None or second is None:
        return None
    ratio = None if cut else _ratio(one, other)
    return {name: _region(first[name], second[name], cut=cut, ratio=ratio) for name in THIRDS}


def _region(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    cut: bool,
    limits: Mapping[str, Limits] | None = None,
    ratio: float | None = None,
) -> dict[str, Any] | None:
    """Differences of one part of the lungs; of lungs that are cut off nothing is adjusted."""
    if before is None or after is None:
        return None
    first, second = _figures(before), _figures(after)
    if ratio is None and not cut:
        ratio = _ratio(before, after)
    found: dict[str, Any] = {}
    for name, value in first.items():
        figure = _difference(name, value, second[name], cut=cut)
        limit = (limits or {}).get(name)
        figure |= _judged(figure["change"], limit, withheld=cut)
        adjusted = _adjusted(name, after, ratio)
        figure["adjusted"] = _adjusted_difference(name, value, adjusted, limit, cut=cut)
        found[name] = figure
    return found


def _figures(region: Mapping[str, Any]) -> dict[str, float | None]:
    """What is compared of a region, by name; shares in percent."""
    intensity, density = region["intensity"], region["density"] or {}
    in_hu = intensity["unit"] == "HU"
    figures: dict[str, float | None] = {
        "volume_ml": region["volume_ml"],
        "mass_g": region["mass_g"],
        "mean_hu": intensity["mean"] if in_hu else None,
        "perc15": density.get("perc15"),
    }
    names = (*(f"laa_{level}" for level in LAA_HU), *(f"haa_{level}" for level in HAA_HU))
    shares = {name: density.get(name) for name in names}
    return figures | {k: None if share is None else 100 * share for k, share in shares.items()}


def _difference(
    name: str, before: float | None, after: float | None, *, cut: bool
) -> dict[str, Any]:
    change = None if before is None or after is None else rounded(after - before)
    percent = None
    if change is not None and before and name in ("volume_ml", "mass_g") and not cut:
        percent = rounded(100 * change / before)
    return {
        "unit": UNITS.get(name, "points"),
        "before": None if before is None else rounded(before),
        "after": None if after is None else rounded(after),
        "change": change,
        "percent": percent,
    }


def _adjusted_difference(
    name: str, before: float | None, after: float | None, limit: Limits | None, *, cut: bool
) -> dict[str, Any] | None:
    """As a difference; of Perc15, in percent of its density too, as its limits are published."""
    if before is None or after is None:
        return None
    figure = _difference(name, before, after, cut=cut)
    if name != "perc15" or before <= -1000:
        return figure | _judged(None, None, withheld=cut)
    figure["percent"] = rounded(100 * (after - before) / (before + 1000))
    return figure | _judged(figure["percent"], limit and ADJUSTED_PERC15, withheld=cut)


def _judged(change: float | None, limits: Limits | None, *, withheld: bool) -> dict[str, Any]:
    """The published limits and on which side of them a change lies."""
    if limits is None:
        return {"repeatability": None, "verdict": None}
    verdict = None if change is None or withheld else limits.verdict(change)
    return {"repeatability": asdict(limits), "verdict": verdict}


def _ratio(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """The volume after over the volume before."""
    first, second = before["volume_ml"] or 0.0, after["volume_ml"] or 0.0
    return second / first if first > 0 and second > 0 else None


def _adjusted(name: str, after: Mapping[str, Any], ratio: float | None) -> float | None:
    """A figure of the region after, as it would be at the volume before."""
    value = _figures(after)[name]
    if ratio is None or value is None:
        return None
    if name in ADJUSTED_FIGURES:
        return (value + 1000) * ratio - 1000
    if name != "laa_950" or abs(ratio - 1) > MAX_LAA_STRETCH:
        return None
    # What is below -950 HU when it is brought to the volume before is below this now.
    share = dark_share(after, 50 / ratio - 1000)
    return None if share is None else 100 * share
