"""CT planes by their DICOM headers: what of many files is one, and what is something else.

No pixels are read here. A file of many frames becomes as many planes, each with a header of its
own that says at the top level what functional groups say.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset

from lungseg.core.errors import UnsupportedMediaType, VolumeTooLarge
from lungseg.core.types import Orientation
from lungseg.core.volume import VolumeLimits
from lungseg.formats.archive import Member, is_hidden
from lungseg.formats.dicom_attributes import longest_value, parse_header
from lungseg.formats.dicom_deflated import inflate, is_deflated
from lungseg.formats.dicom_geometry import orientation_of, position_of, spacing_of
from lungseg.formats.dicom_kind import CT_STORAGE_CLASSES, other_kind
from lungseg.formats.sniff import DICOM, is_zip, sniff

HEAD_BYTES = 32 << 10
"""Nearly all headers of single slices are shorter; longer ones are read whole."""
MAX_VALUE_BYTES = 1 << 20
"""Of an attribute beside the pixels: a table of 16 bits has an eighth of it."""
FRAME_BYTES = 4096
"""Of the functional groups of a frame; real ones have a quarter of it."""
FRAME_READS = 200
"""Of the parser for the functional groups of a frame."""
SINGLE_FRAMES = 1000
"""A file of one frame may be as long to parse as so many functional groups."""
FAR_MM = 1e5
"""Positions beyond 100 m are none."""
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
"""Media Storage Directory: a DICOMDIR, whatever its name."""
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
PHASES = (
    ("TemporalPositionIdentifier",),
    ("TemporalPositionIndex",),
    ("AcquisitionNumber",),
    ("FrameAcquisitionNumber",),
    ("ContrastBolusAgent",),
    ("AcquisitionDate", "AcquisitionTime"),
    ("FrameAcquisitionDateTime",),
    ("TriggerTime",),
    ("NominalPercentageOfCardiacPhase",),
    ("ImageType",),
    ("FrameType",),
    ("ConvolutionKernel",),
)
"""What tells volumes at one place apart, the likeliest first."""
ATTRIBUTES = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"),
    *("SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "NumberOfFrames", "InstanceNumber"),
    *("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"),
    *("SliceThickness", "SpacingBetweenSlices"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "LossyImageCompression"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence"),
    *(keyword for keywords in PHASES for keyword in keywords),
    *("KVP", "Manufacturer", "ContrastBolusAgentSequence"),
    # of patient and study, for outputs in DICOM alone
    *("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
    *("PatientSex", "PatientBirthDate", "PatientAge", "IssuerOfPatientID"),
    *("StudyDate", "StudyTime", "StudyDescription", "ContentDate", "ContentTime"),
    *("PatientIdentityRemoved", "DeidentificationMethod"),
)
"""What is kept of a header."""
PARSED = (*ATTRIBUTES, *_GROUPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One CT plane: where its pixels are, and what its header says of its place."""

    source: Member
    frame: int
    """Its frame in the source, from 0 on."""
    frames: int
    """How many the source has."""
    header: FileDataset
    """``ATTRIBUTES`` without pixels and without functional groups."""
    series: str
    instance: str
    frame_of_reference: str
    size: tuple[int, int]
    """(rows, columns)."""
    spacing_mm: tuple[float, float] | None
    orientation: Orientation | None
    position_mm: tuple[float, float, float] | None


class LeftOut(Exception):
    """A file has no CT plane; the answer counts such files by reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def planes_of(member: Member, limits: VolumeLimits) -> list[Plane]:
    """The planes of a file.

    Raises:
        LeftOut: it has none.
        VolumeTooLarge: it has more frames than a volume may have slices.
    """
    if is_hidden(member.filename):
        raise LeftOut("hidden_file")
    try:
        head = member.head(HEAD_BYTES)
        if is_zip(head):
            raise LeftOut("archive")
        if sniff(head) != DICOM:
            raise LeftOut("not_dicom")
        return _planes(member, _header(member, head, limits), limits)
    except (LeftOut, VolumeTooLarge):
        raise
    except UnsupportedMediaType:
        raise LeftOut("other_compression") from None
    except Exception:  # noqa: BLE001 - pydicom raises anything on broken bytes and quotes them
        raise LeftOut("damaged") from None


def _header(member: Member, head: bytes, limits: VolumeLimits) -> FileDataset:
    """What stands before the pixels: from the head if that has it all."""
    reads = FRAME_READS * max(SINGLE_FRAMES, limits.max_slices)
    whole = len(head) >= member.size_bytes
    if not whole and not is_deflated(head):
        with suppress(Exception):  # the head may end anywhere
            dataset, reached = parse_header(head, PARSED, reads)
            if reached:
                return dataset
    content = head if whole else member.read()
    dataset, reached = parse_header(inflate(content, limits.max_pixels), PARSED, reads)
    if not reached:
        raise LeftOut(_kind_without_pixels(dataset))
    return dataset


def _kind_without_pixels(dataset: FileDataset) -> str:
    named = {_text(dataset, "SOPClassUID"), _text(dataset.file_meta, "MediaStorageSOPClassUID")}
    if DIRECTORY_CLASS in named:
        return "dicomdir"
    return "damaged" if "Rows" in dataset or named & {*CT_STORAGE_CLASSES} else "no_image"


def _planes(member: Member, dataset: FileDataset, limits: VolumeLimits) -> list[Plane]:
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    if frames > limits.max_slices:
        if _text(dataset, "Modality").upper() not in ("CT", ""):
            raise LeftOut("other_modality")
        raise VolumeTooLarge(f"expected at most {limits.max_slices} frames, received {frames}")
    if longest_value(dataset) > MAX_VALUE_BYTES + FRAME_BYTES * frames:
        raise LeftOut("damaged")
    headers = _frame_headers(dataset, frames)
    for header in headers:
        if other := other_kind(header):
            raise LeftOut(other.code)
        if int(header.get("SamplesPerPixel") or 1) != 1:
            raise LeftOut("colour")
    return [_plane(member, header, frame, frames) for frame, header in enumerate(headers)]


def _frame_headers(dataset: FileDataset, frames: int) -> Sequence[FileDataset]:
    """A header for each frame: the file's, what all frames share, and what this one has."""
    shared = dataset.get(_GROUPS[0]) or ()
    own = dataset.get(_GROUPS[1]) or ()
    for keyword in _GROUPS:
        if keyword in dataset:
            delattr(dataset, keyword)
    if frames == 1 and not shared and not own:
        return [dataset]
    if own and len(own) != frames:
        raise LeftOut("damaged")
    common = [element for element in dataset if element.keyword in ATTRIBUTES]
    common += _elements(shared[0]) if shared else []
    headers: list[FileDataset] = []
    for group in own or [Dataset()] * frames:
        header = FileDataset("", {}, None, dataset.file_meta)
        for element in (*common, *_elements(group)):
            header[element.tag] = element
        headers.append(header)
    return headers


def _elements(group: Dataset) -> list[DataElement]:
    """What the macros of a functional group say."""
    items = [item for macro in group if macro.VR == "SQ" for item in (macro.value or ())[:1]]
    return [element for item in items for element in item if element.keyword in ATTRIBUTES]


def _plane(member: Member, header: FileDataset, frame: int, frames: int) -> Plane:
    position = position_of(header)
    x, y, z = position[0].tolist() if position is not None else (FAR_MM, FAR_MM, FAR_MM)
    return Plane(
        source=member,
        frame=frame,
        frames=frames,
        header=header,
        series=_text(header, "SeriesInstanceUID"),
        instance=_text(header, "SOPInstanceUID"),
        frame_of_reference=_text(header, "FrameOfReferenceUID"),
        size=(int(header.Rows), int(header.Columns)),
        spacing_mm=spacing_of(header),
        orientation=orientation_of(header),
        position_mm=(x, y, z) if max(abs(x), abs(y), abs(z)) < FAR_MM else None,
    )


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()
