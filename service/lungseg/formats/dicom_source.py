"""What a derived DICOM object takes over from its source: patient, study and place, in order.

Files of the field lack attributes, spell values as the standard does not, and are written in a
dozen character sets. What is taken over is a short list, each value checked, texts as Unicode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DS

from lungseg.core.errors import InvalidParameter
from lungseg.formats.dicom_attributes import floats

UNICODE = "ISO_IR 192"
NO_DATE, NO_TIME = "19000101", "000000"
_UID = re.compile(r"[0-9.]{1,64}")
_IMAGE_CLASS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.[0-9.]{1,30}")
_UIDS = {
    **dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), _UID),
    "SOPClassUID": _IMAGE_CLASS,
    "FrameOfReferenceUID": _UID,
}
_MEASURES = "PixelMeasuresSequence"
_PLANE = {
    "ImagePositionPatient": ("PlanePositionSequence", 3),
    "ImageOrientationPatient": ("PlaneOrientationSequence", 6),
    "PixelSpacing": (_MEASURES, 2),
}
"""With the functional group that holds it in enhanced objects, and how many numbers it has."""
_ALIKE = ("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID")
"""What slices of one series have in common; removing identities gives each a frame of its own."""
_IDENTITY = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName")
"""Taken as they are, however long, or viewers would find another patient; else empty."""
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_TEXT = re.compile(r"[^\\\x00-\x1f]{1,64}")
_EMPTY_UNLESS = {"PatientSex": re.compile("[MFO]"), "StudyTime": _TIME}
_DATES = ("PatientBirthDate", "StudyDate")
_ABSENT_UNLESS = {
    "IssuerOfPatientID": _TEXT,
    "PatientAge": re.compile(r"\d{3}[DWMY]"),
    "StudyDescription": _TEXT,
}
_IS_IDENTITY_REMOVED, _HOW_REMOVED = "PatientIdentityRemoved", "DeidentificationMethod"


def derivation_sources(
    headers: Iterable[FileDataset], *, step_mm: float | None = None
) -> list[Dataset]:
    """The sources as derived objects may refer to them, without their pixels.

    Args:
        headers: of each slice, in their order; of frames, each with what is true of it alone.
        step_mm: distance of the slices, which are as thick where their headers say nothing else.

    Returns:
        UIDs, patient, study, size and geometry, all at the top level; texts in Unicode.

    Raises:
        InvalidParameter: attributes are missing, or have values, that leave no place in the
            patient or no study; they are named.
    """
    sources = [_source(header, step_mm) for header in headers]
    for source in sources[1:]:  # headers round each for itself, and readers want them equal
        for keyword in _ALIKE:
            setattr(source, keyword, sources[0][keyword].value)
    return sources


def _source(given: FileDataset, step_mm: float | None) -> Dataset:
    source = Dataset()
    source.SpecificCharacterSet = UNICODE
    lacking = [
        keyword for keyword, form in _UIDS.items() if not form.fullmatch(_text(given, keyword))
    ]
    for keyword in _UIDS:
        setattr(source, keyword, _text(given, keyword))
    for keyword, (macro, count) in _PLANE.items():
        numbers = _numbers(given, keyword, macro, count)
        if not numbers:
            lacking.append(keyword)
        setattr(source, keyword, numbers)
    thickness = _thickness(given, step_mm)
    if thickness is None:
        lacking.append("SliceThickness")
    source.SliceThickness = thickness
    if lacking:
        raise InvalidParameter(
            f"a DICOM result needs attributes that this file lacks, or has no sound values of: "
            f"{', '.join(lacking)}"
        )
    source.Rows, source.Columns, source.Modality = given.Rows, given.Columns, "CT"
    _take_patient_and_study(given, source)
    return source


def moment(given: FileDataset) -> tuple[str, str]:
    """Date and time of the slice: those of now would make every answer another."""
    dates = [_text(given, keyword) for keyword in ("ContentDate", "AcquisitionDate", "StudyDate")]
    times = [_text(given, keyword) for keyword in ("ContentTime", "AcquisitionTime", "StudyTime")]
    date = next((day for day in dates if _is_date(day)), NO_DATE)
    return date, next((hour for hour in times if _TIME.fullmatch(hour)), NO_TIME)


def instance_number(given: FileDataset) -> int:
    """The slice's number within its series; 1 where it has none that may be repeated."""
    text = _text(given, "InstanceNumber")
    return int(text) if re.fullmatch(r"[1-9]\d{0,8}", text) else 1


def _take_patient_and_study(given: FileDataset, source: Dataset) -> None:
    for keyword in _IDENTITY:
        setattr(source, keyword, _text(given, keyword))
    for keyword, pattern in _EMPTY_UNLESS.items():
        text = _text(given, keyword)
        setattr(source, keyword, text if pattern.fullmatch(text) else "")
    for keyword in _DATES:
        setattr(source, keyword, text if _is_date(text := _text(given, keyword)) else "")
    for keyword, pattern in _ABSENT_UNLESS.items():
        if pattern.fullmatch(text := _text(given, keyword)):
            setattr(source, keyword, text)
    how = _text(given, _HOW_REMOVED)
    if _text(given, _IS_IDENTITY_REMOVED) == "YES" and _TEXT.fullmatch(how):
        setattr(source, _IS_IDENTITY_REMOVED, "YES")
        setattr(source, _HOW_REMOVED, how)


def _thickness(given: FileDataset, step_mm: float | None) -> Any:
    """That of the slice, else the distance to the next one, which may be written with a sign."""
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        numbers = _numbers(given, keyword, _MEASURES, 1)
        if numbers and (numbers[0] > 0 or (numbers[0] and keyword == "SpacingBetweenSlices")):
            return DS(abs(numbers[0]), auto_format=True)
    return None if step_mm is None else DS(step_mm, auto_format=True)


def _numbers(given: FileDataset, keyword: str, macro: str, count: int) -> list[Any]:
    """Numbers in the sixteen characters that they may have; none where one is unsound."""
    try:
        return [DS(n, auto_format=True) for n in floats(given, macro, keyword, count) or ()]
    except Exception:  # noqa: BLE001 - pydicom raises anything on broken values
        return []


def _text(given: FileDataset, keyword: str) -> str:
    """The text of an attribute as Unicode, as it is stored; empty where it is missing or broken."""
    try:
        value = given.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises anything on broken values
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return "" if value is None else str(value).strip()


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - only whether there is such a day
    except ValueError:
        return False
    return len(text) == len(NO_DATE)
