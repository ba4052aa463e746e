"""Flags on doubtful answers, each with the named threshold that raises it.

An answer is never a silent zero: whoever reads a mask without looking at it reads these.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from lungseg.core.measured import padding_within
from lungseg.core.measures import Density, Intensity, Region, Statistics
from lungseg.core.preprocess import percentiles
from lungseg.core.regions import rim
from lungseg.core.surroundings import look_around
from lungseg.core.types import LOSSY, BoolArray, Confidence, Orientation, Scan

SINGLE_LUNG_FRACTION = 0.05
"""The smaller lung has less of the mask than this: an apex, a resection or a miss."""
AREA_RANGE_MM2 = (300.0, 60_000.0)
"""Both lungs of one axial slice; a large man at full inspiration has about 50 000 mm²."""
FRACTION_RANGE = (0.002, 0.6)
"""As ``AREA_RANGE_MM2``, of the picture, where the spacing is unknown."""
MAX_UNCERTAIN_FRACTION = 0.4
"""Uncertain pixels line every border; more of them than this is no border. Chosen, as the next
three, on labelled slices of real patients: ``python -m training evaluate`` counts what it finds."""
MAX_EMPTY_PROBABILITY = 0.05
"""Somewhere in a slice without lung; more is a lung that was nearly found."""
MAX_UNLABELLED_MM2 = 400.0
"""Air of lung density inside the body that the mask may leave out: the colon's, folds of fat."""
MAX_OUTSIDE_MM2 = 100.0
"""Mask in the air around the body: more than the edge of a crop that cuts a lung."""
FIELD_MM2 = 350.0**2
"""A usual field of view, where the spacing is unknown."""
MEDIAN_RANGE_HU = (-980.0, -400.0)
"""Median of lung tissue: above is no aerated lung, below is air."""
TISSUE_HU = -300.0
"""Between aerated lung and fat."""
FAT_HU = -50.0
"""Between fat and water."""
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
    around, field = look_around(scan, mask), _field_mm2(scan)
    raised = {
        "not_ct": "not_ct" in scan.notes,
        "lossy_compression": LOSSY in scan.notes and scan.unit == "HU",
        "not_calibrated_hu": scan.unit != "HU",
        "spacing_unknown": scan.spacing_mm is None,
        "non_axial": scan.orientation is not None
        and tilt_degrees(scan.orientation) > MAX_TILT_DEGREES,
        "empty_mask": statistics.pixels == 0,
        "low_confidence": is_unsure(confidence),
        "air_unlabelled": around.unlabelled * field > MAX_UNLABELLED_MM2,
    }
    if statistics.pixels:
        raised |= {
            "outside_body": around.outside * field > MAX_OUTSIDE_MM2,
            "sides_unknown": statistics.laterality is None,
            "single_lung": _is_single(statistics),
            "touches_border": bool(rim(mask).any()),
            "area_out_of_range": _area_is_odd(statistics),
            "values_limited": scan.unit == "HU" and _is_limited(statistics),
        }
    raised["intensity_out_of_range"] = scan.unit == "HU" and (
        is_outside(statistics.intensity.median, MEDIAN_RANGE_HU) or is_miscalibrated(scan)
    )
    details = {
        "air_unlabelled": _amount(around.unlabelled, scan)
        + f", about row {around.place[0]}, column {around.place[1]}",
        "outside_body": _amount(around.outside, scan),
    }
    return tuple(
        Flag(code=code, message=_MESSAGES[code].format(details.get(code)))
        for code in raised
        if raised[code]
    )


def _field_mm2(scan: Scan) -> float:
    if scan.spacing_mm is None:
        return FIELD_MM2
    return scan.size[0] * scan.size[1] * scan.spacing_mm[0] * scan.spacing_mm[1]


def _amount(share: float, scan: Scan) -> str:
    if scan.spacing_mm is None:
        return f"{share:.1%} of the slice"
    return f"{share * _field_mm2(scan):.0f} mm²"


def tilt_degrees(orientation: Orientation) -> float:
    """Angle between the slice and the axial plane, 0…90."""
    return float(np.degrees(np.arccos(min(1.0, abs(orientation.normal[2])))))


def _is_single(statistics: Statistics) -> bool:
    right, left = statistics.lungs.right, statistics.lungs.left
    if right is None or left is None:
        return False
    return min(right.pixels, left.pixels) < SINGLE_LUNG_FRACTION * statistics.pixels


def _area_is_odd(statistics: Statistics) -> bool:
    if statistics.area_mm2 is None:
        return is_outside(statistics.fraction, FRACTION_RANGE)
    return is_outside(statistics.area_mm2, AREA_RANGE_MM2)


def is_unsure(confidence: Confidence) -> bool:
    """Whether the network was unsure, of lung that it found or of having found none."""
    if confidence.uncertain_fraction is None:
        return confidence.max_probability > MAX_EMPTY_PROBABILITY
    return confidence.uncertain_fraction > MAX_UNCERTAIN_FRACTION


def _is_limited(statistics: Statistics) -> bool:
    """Whether a figure is missing although there is lung of HU."""
    regions: tuple[Region | None, ...] = (
        statistics,
        statistics.lungs.right,
        statistics.lungs.left,
    )
    return any(
        lacks_figures(region.intensity, region.density)
        for region in regions
        if region and region.pixels
    )


def lacks_figures(intensity: Intensity, density: Density | None) -> bool:
    """Whether a figure of lung is missing that values in HU have."""
    if density is None:
        return True
    parts = (density, intensity)
    return any(getattr(part, item.name) is None for part in parts for item in fields(part))


def is_miscalibrated(scan: Scan) -> bool:
    """Whether a slice in HU lacks air, or body.

    Of a header's HU more is needed to doubt them than of those that a caller declared: a DICOM
    slice may be of air alone, and a small field within the body shows none, but fat.
    """
    shown = scan.values[:, ::2, ::2]  # a quarter of the pixels tells as much
    solid = shown[shown > TISSUE_HU]
    air = shown.size - solid.size
    of_header = scan.media_type == "application/dicom"
    if solid.size < LEAST_SHARE * shown.size:
        return not of_header
    has_fat = np.count_nonzero(solid <= FAT_HU) >= LEAST_SHARE * solid.size
    if air < LEAST_SHARE * shown.size:
        return not (of_header and has_fat)
    if not has_fat and air - _padding(scan) < LEAST_SHARE * shown.size:
        return True
    return is_outside(percentiles(solid, (50.0,))[0], BODY_RANGE_HU)


def _padding(scan: Scan) -> int:
    """How many pixels of the same quarter are dark because nothing was measured there."""
    padding = padding_within(scan, (slice(None), slice(None)))
    return 0 if padding is None else int(np.count_nonzero(padding[::2, ::2]))


def is_outside(value: float | None, limits: tuple[float, float]) -> bool:
    """Whether a value is known, and below or above its limits."""
    return value is not None and not limits[0] <= value <= limits[1]


_MESSAGES = {
    "not_ct": "the DICOM header does not say that this is a CT slice",
    "lossy_compression": "the file was compressed with loss: densities are approximate",
    "not_calibrated_hu": "intensities are not in Hounsfield units: no densities are given",
    "spacing_unknown": "the pixel spacing is unknown: no areas in mm² are given",
    "non_axial": f"the slice is more than {MAX_TILT_DEGREES:g}° off the axial plane",
    "empty_mask": "no lung was found",
    "single_lung": "nearly all of the lung found is on one side",
    "touches_border": "the lung found touches the border of the picture: it may be cut off",
    "area_out_of_range": "the lung found is smaller or larger than lungs in a slice are",
    "low_confidence": "the network was unsure about this slice",
    "air_unlabelled": "air of lung density inside the body is not in the mask: {}",
    "outside_body": "the mask reaches into the air around the body: {}",
    "sides_unknown": "right and left cannot be told apart",
    "intensity_out_of_range": "the intensities of the slice, or of the lung found, are not in HU",
    "values_limited": "the file's values end, lie too far apart or are padding: what they cannot "
    "show is null",
}
CODES = tuple(_MESSAGES)
"""Every code that a flag may have."""
