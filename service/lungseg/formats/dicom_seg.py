"""DICOM Segmentation objects (PS3.3 A.51) of one slice, by highdicom: the extra ``dicom-seg``.

The mask refers to its source by UID and frame of reference and lies on the same pixels, so
that viewers draw it where it belongs whatever the slice's orientation. UIDs and dates follow
from the input: the same slice and model give the same bytes, and the slices of a series one.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from lungseg.core.errors import InvalidParameter, LungsegError
from lungseg.core.types import LEFT, RIGHT, BoolArray, Scan, Segmentation
from lungseg.formats.dicom_attributes import parse
from lungseg.formats.dicom_pixels import inflate
from lungseg.formats.dicom_source import derivation_source, instance_number, moment
from lungseg.formats.quiet import silence_decoders

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

MANUFACTURER = "lungseg"
SERIES_NUMBER = 300
"""Beyond the numbers that scanners give."""
_LATERALITY = {
    "Right lung": ("24028007", "SCT", "Right"),
    "Left lung": ("7771000", "SCT", "Left"),
}


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
    """What found the mask: the model's name, version and digest, and what it was told."""

    name: str
    version: str
    sha256: str
    largest_components: int

    def settings(self, threshold: float) -> dict[str, str]:
        """What changes masks besides the model."""
        return {"threshold": f"{threshold:g}", "largest_components": str(self.largest_components)}


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
    try:
        given = parse(inflate(content, segmentation.labels.size))
        return _write(given, derivation_source(given), segmentation, algorithm)
    except LungsegError:
        raise
    except Exception:  # noqa: BLE001 - pydicom and highdicom quote the patient's attributes
        raise InvalidParameter(
            "the DICOM file has attributes whose values a segmentation may not have"
        ) from None


def _segments(segmentation: Segmentation) -> tuple[list[BoolArray], list[str]]:
    labels = segmentation.labels[0]
    if segmentation.laterality is None:
        return [labels > 0], ["Lung"]
    return [labels == RIGHT, labels == LEFT], ["Right lung", "Left lung"]


def _write(
    given: FileDataset, source: Dataset, segmentation: Segmentation, algorithm: Algorithm
) -> bytes:
    import highdicom  # half a second that only callers of this format pay

    planes, names = _segments(segmentation)
    pixels = np.stack(planes, axis=-1)[None]  # (frame, row, column, segment)
    settings = algorithm.settings(segmentation.threshold)
    # One series for all slices of a series, by one model with the same settings.
    series = [source.SeriesInstanceUID, algorithm.sha256, algorithm.name, algorithm.version]
    series += [*settings.values()]
    entropy = [*series, source.SOPInstanceUID, hashlib.sha256(pixels.tobytes()).hexdigest()]
    date, time = moment(given)
    coordinates = highdicom.CoordinateSystemNames.PATIENT
    result = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=pixels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, name, algorithm, settings, _uid(series, name))
            for number, name in enumerate(names, start=1)
        ],
        series_instance_uid=_uid(series, "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(entropy, "instance"),
        instance_number=instance_number(given),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.sha256[:16],
        content_label="LUNGS",
        content_description="Lungs, research use only",
        pixel_measures=highdicom.PixelMeasuresSequence(source.PixelSpacing, source.SliceThickness),
        plane_orientation=highdicom.PlaneOrientationSequence(
            coordinates, source.ImageOrientationPatient
        ),
        plane_positions=[highdicom.PlanePositionSequence(coordinates, source.ImagePositionPatient)],
        omit_empty_frames=False,  # an empty lung is an answer, too
        content_date=date,
        content_time=time,
    )
    _settle(result, entropy, date, time)
    stream = io.BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _description(
    number: int, name: str, algorithm: Algorithm, settings: dict[str, str], tracking_uid: str
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
            name=algorithm.name,
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version,
            parameters=settings,
        ),
        tracking_id=f"{MANUFACTURER} {name}",
        tracking_uid=tracking_uid,
    )
    if name in _LATERALITY:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(*_LATERALITY[name])]
    return description


def _settle(result: Any, entropy: list[str], date: str, time: str) -> None:
    """Replaces what highdicom took from the clock and from chance, and what it made up."""
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    for equipment in result.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = date + time
    measures = result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.pop("SpacingBetweenSlices", None)  # one slice has none
    dimension = _uid(entropy, "dimension")
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension


def _uid(entropy: list[str], what: str) -> str:
    return uid.generate_uid(entropy_srcs=[*entropy, what])
