"""Whose slice it is: by a table, a pattern, the DICOM header, or a number at the name's end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from training.config import PATIENT_PATTERN
from training.data.layouts import is_dicom
from training.errors import DataError

IDENTITIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Attributes that slices of one patient share, the first that has a value."""
SLICE_NUMBER = re.compile(r"^(.*\d.*)[_ -][A-Za-z]{0,5}\d+$")
"""``case_001_0004`` is a slice of ``case_001``; ``slice_0004`` names nobody."""


def patient_of(stem: str, image: Path, pattern: str, *, volume: bool) -> str | None:
    """The patient of an image that no table names.

    A pattern of the user's comes first, then the DICOM header, then the built-in pattern, then
    what stands before a slice's number. A volume is a patient.

    Args:
        stem: the image's name.
        image: its file.
        pattern: regular expression whose match in the name is the patient.
        volume: whether the file holds a patient's whole stack.

    Returns:
        None where nothing tells.
    """
    given = re.search(pattern, stem)
    if given and pattern != PATIENT_PATTERN:
        return given.group(0)
    match = re.search(PATIENT_PATTERN, stem)
    if volume:
        return match.group(0) if match else stem
    named = _header_identity(image)
    if named:
        return named
    if match:
        return match.group(0)
    number = SLICE_NUMBER.match(stem)
    return number.group(1) if number else None


def expect_match(pattern: str, names: Iterable[str]) -> None:
    """Refuses a pattern of the user's that finds nobody.

    Raises:
        DataError: with the pattern and a name.
    """
    names = list(names)
    if pattern != PATIENT_PATTERN and names and not any(re.search(pattern, n) for n in names):
        raise DataError(
            f"--patient-pattern: {pattern!r} matches none of the {len(names)} names, as "
            f"{names[0]!r}; it is searched in the image's name without its suffix"
        )


def _header_identity(image: Path) -> str:
    if not is_dicom(image):
        return ""
    try:
        header = pydicom.dcmread(image, stop_before_pixels=True, specific_tags=list(IDENTITIES))
        found = (str(header.get(name) or "").strip() for name in IDENTITIES)
        return next((value for value in found if value), "")
    except (OSError, InvalidDicomError, ValueError, TypeError, KeyError):
        return ""  # whoever reads the slice learns what is wrong with it
