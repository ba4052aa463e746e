"""DICOM Segmentation objects (PS3.3 A.51) of one slice, by highdicom: the extra ``dicom-seg``.

The mask refers to its source by UID and frame of reference and lies on the same pixels, so
that viewers draw it where it belongs whatever the slice's orientation. UIDs and dates follow
from the input: the same slice and model give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from lungseg.core.errors import InvalidParameter
from lungseg.core.types import LEFT, RIGHT, BoolArray, Scan, Segmentation
from lungseg.formats.dicom import functional, parse
from lungseg.formats.dicom_pixels import inflate
from lungseg.formats.quiet import silence_decoders

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

MANUFACTURER = "lungseg"
SERIES_NUMBER = 300
"""Beyond the numbers that scanners give."""
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_NEEDED_PLANE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_LATERALITY = {
    "Right lung": ("24028007", "SCT", "Right"),
    "Left lung": ("7771000", "SCT", "Left"),
}
_DATE, _TIME = re.compile(r"\d{8}"), re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_NO_DATE, _NO_TIME = "19000101", "000000"
_MAY_BE_EMPTY = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName")
_EMPTY_UNLESS = {
    "PatientBirthDate": _DATE,
    "PatientSex": re.compile("[MFO]"),
    "StudyDate": _DATE,
    "StudyTime": _TIME,
}
"""Attributes that become empty where they are not of this form."""


NOT_INSTALLED = "dicom-seg is not installed here: it is the extra of that name"


def check_installed() -> None:
    """Makes sure that the extra ``dicom-seg`` is there.

    Raises:
        InvalidParameter: it is not; the sentence is ``NOT_INSTALLED``.
    """
    if find_spec("highdicom") is None:
        raise InvalidParameter(NOT_INSTALLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What found the mask: the model's name, version and digest."""

    name: str
    version: str
    sha256: str


def dicom_seg(
    content: bytes, scan: Scan, segmentation: Segmentation, algorithm: Algorithm
) -> bytes:
    """Writes a mask as a BINARY segmentation: right and left lung, or one lung segment.

    Args:
        content: the DICOM file that was read and segmented.
        scan: the slice read.
        segmentation: its lungs.
        algorithm: recorded with every segment.

    Raises:
        InvalidParameter: the input was no DICOM file, it lacks attributes that a segmentation
            needs (they are named), or highdicom is not installed.
    """
    if scan.media_type != "application/dicom":
        raise InvalidParameter("dicom-seg needs a DICOM slice, received another format")
    check_installed()
    silence_decoders()
    source = parse(inflate(content, segmentation.labels.size))
    _check(source)
    planes, names = _segments(segmentation)
    try:
        return _write(source, planes, names, algorithm)
    except Exception:  # noqa: BLE001 - highdicom checks and quotes the patient's attributes
        raise InvalidParameter(
            "the DICOM file has attributes whose values a segmentation may not have"
        ) from None


def _check(source: FileDataset) -> None:
    missing = [keyword for keyword in (*_NEEDED, "FrameOfReferenceUID") if not source.get(keyword)]
    plane = _NEEDED_PLANE.items()
    missing += [keyword for keyword, macro in plane if not functional(source, macro, keyword)]
    if missing:
        raise InvalidParameter(
            f"dicom-seg needs attributes that this file lacks: {', '.join(missing)}"
        )


def _segments(segmentation: Segmentation) -> tuple[list[BoolArray], list[str]]:
    labels = segmentation.labels[0]
    if segmentation.laterality is None:
        return [labels > 0], ["Lung"]
    return [labels == RIGHT, labels == LEFT], ["Right lung", "Left lung"]


def _write(
    source: FileDataset, planes: list[BoolArray], names: list[str], algorithm: Algorithm
) -> bytes:
    import highdicom  # half a second that only callers of this format pay

    pixels = np.stack(planes, axis=-1)[None]  # (frame, row, column, segment)
    digest = hashlib.sha256(pixels.tobytes() + algorithm.sha256.encode()).hexdigest()
    entropy = [str(source.SOPInstanceUID), digest]
    cleaned = _clean(source)
    date, time = _moment(source)
    position, orientation, spacing = (
        [float(item) for item in functional(source, macro, keyword)]
        for keyword, macro in _NEEDED_PLANE.items()
    )
    thickness = functional(source, "PixelMeasuresSequence", "SliceThickness")
    coordinates = highdicom.CoordinateSystemNames.PATIENT
    result = highdicom.seg.Segmentation(
        source_images=[cleaned],
        pixel_array=pixels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, name, algorithm, entropy)
            for number, name in enumerate(names, start=1)
        ],
        series_instance_uid=_uid(entropy, "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(entropy, "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.sha256[:16],
        content_label="LUNGS",
        content_description="Lungs, research use only",
        pixel_measures=highdicom.PixelMeasuresSequence(
            spacing, float(thickness) if thickness else None
        ),
        plane_orientation=highdicom.PlaneOrientationSequence(coordinates, orientation),
        plane_positions=[highdicom.PlanePositionSequence(coordinates, position)],
        omit_empty_frames=False,  # an empty lung is an answer, too
        content_date=date,
        content_time=time,
    )
    _settle(result, entropy, date, time)
    stream = io.BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _description(
    number: int, name: str, algorithm: Algorithm, entropy: list[str]
) -> SegmentDescription:
    """One segment, coded by SNOMED CT as lung with its laterality."""
    import highdicom
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=CodedConcept("39607008", "SCT", "Lung"),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name, family=codes.DCM.ArtificialIntelligence, version=algorithm.version
        ),
        tracking_id=f"{MANUFACTURER} {name}",
        tracking_uid=_uid(entropy, name),
    )
    if name in _LATERALITY:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(*_LATERALITY[name])]
    return description


def _clean(source: FileDataset) -> FileDataset:
    """The source without pixels, and without values that its type 2 attributes may not have."""
    for keyword in ("PixelData", "FailedAttributesSequence"):
        source.pop(keyword, None)
    for frame in source.get("PerFrameFunctionalGroupsSequence") or ():
        if "PlanePositionSequence" not in frame:  # highdicom looks for it there alone
            shared = source.SharedFunctionalGroupsSequence[0]
            frame.PlanePositionSequence = shared.PlanePositionSequence
    for keyword in _MAY_BE_EMPTY:
        source.setdefault(keyword, "")
    for keyword, pattern in _EMPTY_UNLESS.items():
        if not pattern.fullmatch(str(source.get(keyword) or "")):
            setattr(source, keyword, "")
    return source


def _moment(source: Dataset) -> tuple[str, str]:
    """Date and time of the slice: those of now would make every answer another."""
    dates = (source.get(keyword) for keyword in ("ContentDate", "AcquisitionDate", "StudyDate"))
    date = next((str(day) for day in dates if _DATE.fullmatch(str(day or ""))), _NO_DATE)
    times = (source.get(keyword) for keyword in ("ContentTime", "AcquisitionTime", "StudyTime"))
    time = next((str(hour) for hour in times if _TIME.fullmatch(str(hour or ""))), _NO_TIME)
    return date, time


def _settle(result: Any, entropy: list[str], date: str, time: str) -> None:
    """Replaces what highdicom took from the clock and from chance."""
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    for equipment in result.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = date + time
    dimension = _uid(entropy, "dimension")
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension


def _uid(entropy: list[str], what: str) -> str:
    return uid.generate_uid(entropy_srcs=[*entropy, what])
