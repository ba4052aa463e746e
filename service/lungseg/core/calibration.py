"""Whether values look like Hounsfield units, where no header says what they are."""

from __future__ import annotations

import numpy as np

from lungseg.core.types import IntensityArray

AIR_BELOW_HU = -300.0
"""Air and lung lie below, even where noise or fat is near."""
TISSUE_HU = (-300.0, 300.0)
"""Fat, water, soft tissue and blood with contrast."""
LEAST_SHARE = 0.01
"""Of a volume's values, the least that air and soft tissue have each in any scan of the chest."""
BYTE_MAX, SCANNER_MAX = 255.0, 4095.0
"""Highest values of pictures, and of what scanners store in 12 bits before an offset is taken."""


def why_not_hu(values: IntensityArray) -> str | None:
    """Says why values are hardly HU: half a sentence, None where they look like them.

    Args:
        values: measured ones of a whole volume, or a fair sample, any shape.
    """
    if values.size == 0:
        return "none of them was measured"
    low, high = TISSUE_HU
    air = np.count_nonzero(values < AIR_BELOW_HU) / values.size
    tissue = np.count_nonzero((values >= low) & (values <= high)) / values.size
    if air < LEAST_SHARE:
        return f"hardly any is as low as air{_likely(float(values.min()), float(values.max()))}"
    return "hardly any is that of soft tissue" if tissue < LEAST_SHARE else None


def has_offset(values: IntensityArray) -> bool:
    """Whether values said to be HU may be what a scanner stored: then none is as low as air."""
    return bool(np.count_nonzero(values < AIR_BELOW_HU) < LEAST_SHARE * values.size)


def _likely(lowest: float, highest: float) -> str:
    if lowest < 0:
        return ""
    if highest <= 1:
        return ": they lie between 0 and 1"
    if highest <= BYTE_MAX:
        return ": they look like grey levels"
    return ": they look like HU + 1024" if highest <= SCANNER_MAX else ""
