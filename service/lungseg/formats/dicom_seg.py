"""DICOM Segmentation objects (PS3.3 A.51), by highdicom: the extra ``dicom-seg``.

The mask refers to its sources by UID and frame of reference and lies on the same pixels, so
that viewers draw it where it belongs, whatever the slices' orientation and distances.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydicom import uid
from pydicom.dataset import Dataset

from lungseg.core.errors import InvalidParameter, LungsegError
from lungseg.core.types import LEFT, RIGHT, Scan, Segmentation
from lungseg.core.volume import Volume
from lungseg.formats.dicom_derived import (
    MANUFACTURER,
    NAMES,
    Algorithm,
    Derived,
    derived_of_slice,
    derived_of_volume,
)
from lungseg.formats.quiet import silence_decoders
from lungseg.formats.write import COLOURS_RGB

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

SERIES_NUMBER = 300
"""Beyond the numbers that scanners give."""
LATERALITY = {
    NAMES[RIGHT]: ("24028007", "SCT", "Right"),
    NAMES[LEFT]: ("7771000", "SCT", "Left"),
}
FRAMED_CLASSES = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
"""Objects whose slices are frames, even where there is but one."""
SegKind = Literal["BINARY", "LABELMAP"]


def dicom_seg(
    content: bytes, scan: Scan, segmentation: Segmentation, algorithm: Algorithm
) -> bytes:
    """Writes a slice's mask as a BINARY segmentation: right and left lung, or one lung segment.

    Args:
        content: the DICOM file that was read and segmented.
        scan: the slice read.
        segmentation: its lungs.
        algorithm: recorded with every segment.

    Raises:
        InvalidParameter: the input was no DICOM file, it lacks attributes that a segmentation
            needs (they are named), or highdicom is not installed.
    """
    return in_dicom(
        lambda: _write(derived_of_slice(content, scan, segmentation, algorithm), "BINARY")
    )


def volume_seg(
    volume: Volume, segmentation: Segmentation, algorithm: Algorithm, kind: SegKind = "BINARY"
) -> bytes:
    """Writes a volume's mask as a segmentation: a frame for each slice that shows a segment.

    Args:
        volume: of DICOM slices, or of the frames of one object.
        segmentation: its lungs.
        algorithm: recorded with every segment.
        kind: BINARY, which all viewers know, or LABELMAP, which is far smaller.

    Raises:
        InvalidParameter: see ``dicom_seg``.
    """
    return in_dicom(lambda: _write(derived_of_volume(volume, segmentation, algorithm), kind))


def in_dicom(write: Callable[[], bytes]) -> bytes:
    """Calls what writes a DICOM object, and keeps the patient's attributes out of its errors.

    Raises:
        InvalidParameter: the sources have values that it may not have.
    """
    silence_decoders()
    try:
        return write()
    except LungsegError:
        raise
    except Exception:  # noqa: BLE001 - pydicom and highdicom quote the patient's attributes
        raise InvalidParameter(
            "the DICOM file has attributes whose values a DICOM result may not have"
        ) from None


def seg_identity(derived: Derived, kind: SegKind) -> tuple[str, str]:
    """UIDs of a segmentation's series and of itself."""
    what = "" if kind == "BINARY" else " label map"
    return derived.series_uid(f"series{what}"), derived.uid(f"instance{what}")


def _write(derived: Derived, kind: SegKind) -> bytes:
    import highdicom  # half a second that only callers of this format pay

    source, count = derived.sources[0], len(derived.labels)
    series_uid, instance_uid = seg_identity(derived, kind)
    date, time = derived.moment
    result = highdicom.seg.Segmentation(
        source_images=_stand_ins(derived),
        pixel_array=derived.labels,
        segmentation_type=highdicom.seg.SegmentationTypeValues(kind),
        segment_descriptions=[_description(number, derived) for number in derived.names],
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=instance_uid,
        instance_number=derived.instance_number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=derived.algorithm.name,
        software_versions=derived.algorithm.version,
        device_serial_number=derived.algorithm.sha256[:16],
        content_label="LUNGS",
        content_description="Lungs, research use only",
        transfer_syntax_uid=uid.ExplicitVRLittleEndian if kind == "BINARY" else uid.RLELossless,
        pixel_measures=highdicom.PixelMeasuresSequence(source.PixelSpacing, source.SliceThickness),
        omit_empty_frames=count > 1,  # of a slice an empty lung is an answer, too
        content_date=date,
        content_time=time,
    )
    _settle(result, derived)
    stream = io.BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _description(number: int, derived: Derived) -> SegmentDescription:
    """One segment, coded by SNOMED CT as lung with its laterality."""
    import highdicom
    from highdicom.sr import CodedConcept

    name = derived.names[number]
    label = next(label for label, of in NAMES.items() if of == name)
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=CodedConcept("39607008", "SCT", "Lung"),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=derived.identification(),
        tracking_id=derived.tracking_id(number),
        tracking_uid=derived.tracking_uid(number),
        display_color=highdicom.color.CIELabColor.from_rgb(*COLOURS_RGB[label]),
    )
    if name in LATERALITY:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(*LATERALITY[name])]
    return description


def _settle(result: Any, derived: Derived) -> None:
    """Replaces what highdicom took from the clock and from chance, and what it made up."""
    derived.settle(result)
    if len(derived.labels) > 1:  # so that readers see of what it is, should slices come late
        result.SeriesDescription = f"Lungs, of {len(derived.labels)} slices"
    else:  # one slice has no distance to another
        measures = result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.pop("SpacingBetweenSlices", None)
    dimension = derived.uid("dimension")
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension
    _refer(result, derived)


def _stand_ins(derived: Derived) -> list[Dataset]:
    """The slices as single images, each with a UID of its own.

    Of frames highdicom takes those of one object only, all of them, in its order.
    """
    stand_ins: list[Dataset] = []
    for number, source in enumerate(derived.sources):
        stand_in = Dataset()
        stand_in.update(source)
        stand_in.add_new("SOPClassUID", "UI", uid.CTImageStorage)
        stand_in.add_new("SOPInstanceUID", "UI", f"2.25.{number}")
        stand_ins.append(stand_in)
    return stand_ins


def _refer(result: Any, derived: Derived) -> None:
    """Puts the sources themselves in the place of their stand-ins."""
    seen: dict[str, Dataset] = {}
    for image in result.SourceImageSequence:
        source = derived.sources[_number_of(image)]
        if source.SOPInstanceUID not in seen:
            seen[source.SOPInstanceUID] = _named(image, source)
    result.SourceImageSequence = list(seen.values())
    result.ReferencedSeriesSequence[0].ReferencedInstanceSequence = list(seen.values())
    images = {  # each once, though frames of several segments share it
        id(image): image
        for group in result.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for image in derivation.SourceImageSequence
    }
    for image in images.values():
        number = _number_of(image)
        source = derived.sources[number]
        if source.SOPClassUID in FRAMED_CLASSES:
            image.ReferencedFrameNumber = derived.frames[number] if derived.frames else 1
        _named(image, source)


def _number_of(image: Dataset) -> int:
    """Which slice a reference to its stand-in means."""
    return int(str(image.ReferencedSOPInstanceUID).rpartition(".")[2])


def _named(image: Dataset, source: Dataset) -> Dataset:
    image.ReferencedSOPClassUID = source.SOPClassUID
    image.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return image
