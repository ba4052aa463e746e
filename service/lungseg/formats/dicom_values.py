"""From stored values to HU, or to grey levels where the header does not say what they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.processing import apply_modality_lut

from lungseg.core.types import AIR_HU, IntensityArray, Reach, Unit
from lungseg.formats.dicom_attributes import floats, functional
from lungseg.formats.dicom_kind import is_of_ct
from lungseg.formats.dicom_pixels import Layout, used_bits

BODY_HU = (-1100.0, 300.0)
"""Air, lung, fat and soft tissue: nearly all of a CT slice, and little of one that is inverted."""
TURNING_GAIN = 0.2
"""By how much more of a slice must be in ``BODY_HU`` before stored values count as inverted: bone
becomes soft tissue by inverting, but is never a fifth of a slice."""
LEAST_SHARE_OF_BODY = 0.3
"""With less of it in ``BODY_HU`` a slice is in no HU at all."""
HU_RESCALE_TYPES = ("HU", "HU_MOD", "US")
"""Rescale Types of Hounsfield units; US, unspecified, is what many scanners write for them."""
INT16 = np.iinfo(np.int16)


def intensities(
    dataset: FileDataset,
    plane: NDArray[np.integer],
    layout: Layout,
    padding: NDArray[np.bool_] | None,
    *,
    whole: bool = False,
) -> tuple[IntensityArray, Unit]:
    """HU where the header calibrates the stored values, else grey levels.

    They are float32, or int16 where ``whole`` asks for it and all of them fit.
    """
    stored = used_bits(plane, layout)
    values, calibrated = _rescaled(dataset, stored, whole=whole)
    inverted = str(dataset.get("PhotometricInterpretation")).strip() == "MONOCHROME1"
    if inverted:
        # By the standard HU are HU however they are shown; but files exist whose stored
        # values were inverted with the display. What the body is made of tells them apart.
        extremes = -1 if layout.signed else (1 << layout.bits_stored) - 1
        turned, _ = _rescaled(dataset, extremes - stored.astype(np.int64), whole=whole)
        inside = _inside(stored, padding)
        share = _share_of_body(values[inside]) if calibrated else 0.0
        gain = _share_of_body(turned[inside]) - share
        if gain > TURNING_GAIN or share < LEAST_SHARE_OF_BODY:
            values, calibrated = turned, calibrated and share + gain >= LEAST_SHARE_OF_BODY
    if padding is not None:
        kept = values[~padding]
        darkest = float(kept.min()) if kept.size else 0.0
        values[padding] = AIR_HU if calibrated else darkest
    return values, "HU" if calibrated else "grey level"


def padding_of(
    dataset: FileDataset, plane: NDArray[np.integer], layout: Layout
) -> NDArray[np.bool_] | None:
    """Where stored values are Pixel Padding: a value, or a range up to its limit.

    The value may lie beyond Bits Stored, and may be written with the other sign.
    """
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    bounds = np.array([value, limit if isinstance(limit, int) else value], np.int64)
    low, high = np.sort(bounds.astype(layout.dtype))
    return (plane >= low) & (plane <= high)


def reach_of(dataset: FileDataset, layout: Layout) -> Reach | None:
    """What the stored bits can hold, in HU; of a table that only its values say."""
    if dataset.get("ModalityLUTSequence"):
        return None
    lowest = -(1 << layout.bits_stored - 1) if layout.signed else 0
    ends = np.array([lowest, lowest + (1 << layout.bits_stored) - 1])
    low, high = sorted(float(value) for value in _rescaled(dataset, ends)[0])
    return Reach(low=low, high=high, step=(high - low) / ((1 << layout.bits_stored) - 1))


def _rescaled(
    dataset: FileDataset, stored: NDArray[np.integer], *, whole: bool = False
) -> tuple[IntensityArray, bool]:
    """Values after the modality transformation, and whether the header says they are HU."""
    table = dataset.get("ModalityLUTSequence")
    if table:
        kind = str(table[0].get("ModalityLUTType") or "").strip().upper()
        looked_up = np.asarray(apply_modality_lut(stored, dataset))
        return looked_up.astype(np.float32), is_of_ct(dataset) and kind == "HU"
    macro = "PixelValueTransformationSequence"
    slope = floats(dataset, macro, "RescaleSlope", 1)
    intercept = floats(dataset, macro, "RescaleIntercept", 1)
    if slope is None or slope[0] == 0 or intercept is None:
        return _linear(stored, 1.0, 0.0, whole=whole), False
    kind = functional(dataset, macro, "RescaleType")
    calibrated = is_of_ct(dataset) and str(kind or "HU").strip().upper() in HU_RESCALE_TYPES
    return _linear(stored, slope[0], intercept[0], whole=whole), calibrated


def _linear(
    stored: NDArray[np.integer], slope: float, intercept: float, *, whole: bool
) -> IntensityArray:
    """Values by slope and intercept: float32, or int16 where that is asked for and exact."""
    if whole and slope.is_integer() and intercept.is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
        if INT16.min <= min(ends) <= max(ends) <= INT16.max:
            factor, summand = (
                np.array(int(n) % 65536).astype(np.int16) for n in (slope, intercept)
            )
            small = stored.astype(np.int16)  # modulo 2 to the 16th, as all that follows
            if slope != 1:
                small *= factor
            small += summand
            return small
    values = stored.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(intercept)
    return values


def _inside(stored: NDArray[np.integer], padding: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Where a slice shows more than its padding: what is marked, or one value in all corners."""
    corners = stored[[0, 0, -1, -1], [0, -1, 0, -1]]
    inside = stored != corners[0] if (corners == corners[0]).all() else np.ones(stored.shape, bool)
    return inside if padding is None else inside & ~padding


def _share_of_body(values: IntensityArray) -> float:
    """How many of some values are HU of air and soft tissue; 0 of none."""
    low, high = BODY_HU
    return np.count_nonzero((values >= low) & (values <= high)) / max(1, values.size)
