"""Flags on doubtful answers, each with the named threshold that raises it.

An answer is never a silent zero: whoever reads a mask without looking at it reads these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungseg.core.measures import Statistics
from lungseg.core.types import BoolArray, Confidence, Orientation, Scan

SINGLE_LUNG_FRACTION = 0.05
"""The smaller lung has less of the mask than this: an apex, a resection or a miss."""
AREA_RANGE_MM2 = (300.0, 60_000.0)
"""Both lungs of one axial slice; a large man at full inspiration has about 50 000 mm²."""
FRACTION_RANGE = (0.002, 0.6)
"""As ``AREA_RANGE_MM2``, of the picture, where the spacing is unknown."""
MIN_MEAN_PROBABILITY = 0.9
"""A sure network's mask averages above this."""
MAX_UNCERTAIN_FRACTION = 0.25
"""Uncertain pixels line every border; more of them than this is no border."""
MEDIAN_RANGE_HU = (-980.0, -400.0)
"""Median of lung tissue: above is no aerated lung, below is air."""
SOLID_HU = -300.0
"""Between aerated lung and fat."""
LEAST_SHARE = 0.01
"""Of a chest slice, what air and body take at least."""
BODY_RANGE_HU = (-250.0, 500.0)
"""Median of all that is solid, between fat with the darkest windows and white pages."""
MAX_TILT_DEGREES = 30.0
"""Largest angle to the axial plane; CT gantries tilt up to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A reason to look twice.

    Attributes:
        code: stable name, for programs.
        message: a sentence, for people.
    """

    code: str
    message: str


def find_flags(
    scan: Scan, mask: BoolArray, statistics: Statistics, confidence: Confidence
) -> tuple[Flag, ...]:
    """All flags that the answer for one slice deserves, in a fixed order; the mask is (Y, X)."""
    raised = {
        "not_ct": "not_ct" in scan.notes,
        "not_calibrated_hu": scan.unit != "HU",
        "spacing_unknown": scan.spacing_mm is None,
        "non_axial": scan.orientation is not None
        and tilt_degrees(scan.orientation) > MAX_TILT_DEGREES,
        "empty_mask": statistics.pixels == 0,
    }
    if statistics.pixels:
        raised |= {
            "single_lung": _is_single(statistics),
            "touches_border": _touches_border(mask),
            "area_out_of_range": _area_is_odd(statistics),
            "low_confidence": _is_unsure(confidence),
        }
    raised["intensity_out_of_range"] = scan.unit == "HU" and (
        _is_outside(statistics.intensity.median, MEDIAN_RANGE_HU) or _is_miscalibrated(scan)
    )
    return tuple(Flag(code=code, message=_MESSAGES[code]) for code in raised if raised[code])


def tilt_degrees(orientation: Orientation) -> float:
    """Angle between the slice and the axial plane, 0…90."""
    return float(np.degrees(np.arccos(min(1.0, abs(orientation.normal[2])))))


def _is_single(statistics: Statistics) -> bool:
    right, left = statistics.lungs.right, statistics.lungs.left
    if right is None or left is None:
        return False
    return min(right.pixels, left.pixels) < SINGLE_LUNG_FRACTION * statistics.pixels


def _touches_border(mask: BoolArray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _area_is_odd(statistics: Statistics) -> bool:
    if statistics.area_mm2 is None:
        return _is_outside(statistics.fraction, FRACTION_RANGE)
    return _is_outside(statistics.area_mm2, AREA_RANGE_MM2)


def _is_unsure(confidence: Confidence) -> bool:
    mean, uncertain = confidence.mean_probability, confidence.uncertain_fraction
    if mean is None or uncertain is None:
        return False
    return mean < MIN_MEAN_PROBABILITY or uncertain > MAX_UNCERTAIN_FRACTION


def _is_miscalibrated(scan: Scan) -> bool:
    """Whether HU that a caller declared, not a header, leave a slice without air or body."""
    if scan.media_type == "application/dicom":
        return False
    solid = scan.values[scan.values > SOLID_HU]
    air_share = 1 - solid.size / scan.values.size
    if not LEAST_SHARE <= air_share <= 1 - LEAST_SHARE:
        return True
    return _is_outside(float(np.median(solid)), BODY_RANGE_HU)


def _is_outside(value: float | None, limits: tuple[float, float]) -> bool:
    return value is not None and not limits[0] <= value <= limits[1]


_MESSAGES = {
    "not_ct": "the DICOM header does not say that this is a CT slice",
    "not_calibrated_hu": "intensities are not in Hounsfield units: no densities are given",
    "spacing_unknown": "the pixel spacing is unknown: no areas in mm² are given",
    "non_axial": f"the slice is more than {MAX_TILT_DEGREES:g}° off the axial plane",
    "empty_mask": "no lung was found",
    "single_lung": "nearly all of the lung found is on one side",
    "touches_border": "the lung found touches the border of the picture: it may be cut off",
    "area_out_of_range": "the lung found is smaller or larger than lungs in a slice are",
    "low_confidence": "the network was unsure about much of this slice",
    "intensity_out_of_range": "the intensities of the slice, or of the lung found, are not in HU",
}
CODES = tuple(_MESSAGES)
"""Every code that a flag may have."""
