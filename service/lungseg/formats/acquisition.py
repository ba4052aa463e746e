"""How a scan was made, from its DICOM header: what figures of two scans compare by."""

from __future__ import annotations

import math
import re

from pydicom.dataset import Dataset

from lungseg.core.volume import Acquisition
from lungseg.formats.dicom_attributes import sequence_of

NO_AGENT = ("NONE", "NO", "WITHOUT", "N")
"""What is written for a contrast agent where there was none."""
_TEXT = re.compile(r"[\w .,:;()+/&^-]{1,64}")
"""Of kernels and manufacturers; anything else is nobody's name for one."""


def acquisition_of(header: Dataset) -> Acquisition:
    """What the header of a slice says of its acquisition; nothing of it names a patient."""
    return Acquisition(
        kernel=kernel_of(header),
        slice_thickness_mm=_positive(header, "SliceThickness"),
        kvp=_positive(header, "KVP"),
        contrast=_contrast(header),
        manufacturer=_text(header, "Manufacturer"),
    )


def kernel_of(header: Dataset) -> str | None:
    """The convolution kernel; of several names, as Siemens writes them, the first."""
    return _text(header, "ConvolutionKernel")


def _contrast(header: Dataset) -> bool | None:
    """An empty attribute says nothing: scanners send it either way."""
    if header.get("ContrastBolusAgentSequence"):
        return True
    agent = _text(header, "ContrastBolusAgent")
    return None if agent is None else agent.upper() not in NO_AGENT


def _text(header: Dataset, keyword: str) -> str | None:
    value = next(iter(sequence_of(header.get(keyword))), "")
    text = str(value).strip()
    return text if _TEXT.fullmatch(text) else None


def _positive(header: Dataset, keyword: str) -> float | None:
    try:
        number = float(str(header.get(keyword)))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
