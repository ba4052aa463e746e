"""How far two scans of one unchanged lung may differ: published figures, each with its source.

Rescans of 24 patients with emphysema one week apart, same scanner and protocol, full inspiration,
differed on average (without sign) by what ``RESCANS`` holds. Of normal differences 95% lie within
2.46 times that. It is what scanning alone does, and no word on whether a change matters.
"""

from __future__ import annotations

from dataclasses import dataclass

NORMAL_LIMIT = 2.46
"""1.96 standard deviations over the mean absolute value of a normal distribution, 0.798 of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Between which changes of an unchanged lung lie in 95% of pairs."""

    low: float
    high: float
    unit: str
    source: str

    def verdict(self, change: float) -> str:
        """``within`` or ``beyond``."""
        return "within" if self.low <= change <= self.high else "beyond"


def _rescans(mean_absolute: float, unit: str) -> Limits:
    limit = round(NORMAL_LIMIT * mean_absolute, 2)
    return Limits(
        low=-limit,
        high=limit,
        unit=unit,
        source=f"{NORMAL_LIMIT:g} times the mean absolute difference of rescans after a week, "
        f"{mean_absolute:g} {unit} (Chong et al. 2011, doi 10.1117/12.878240)",
    )


RESCANS = {
    "volume_ml": _rescans(169.0, "ml"),
    "mass_g": _rescans(14.5, "g"),
    "mean_hu": _rescans(5.0, "HU"),
    "perc15": _rescans(2.4, "HU"),
    "laa_950": _rescans(0.66, "points"),
}
"""Of both lungs together; nothing as sound is published of one lung or a third."""
ADJUSTED_PERC15 = Limits(
    low=-14.7,
    high=17.3,
    unit="%",
    source="95% limits of volume-corrected Perc15 over three months, the wider of two screening "
    "trials (Diciotti et al. 2011, doi 10.1016/j.acra.2011.08.001); percent of g/l = HU + 1000",
)
