"""Whether a DICOM file is one CT slice, by what its header says of its kind."""

from __future__ import annotations

from typing import NamedTuple

from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from lungseg.core.errors import MultiFrame, NotCT, UndecodableImage
from lungseg.formats.dicom_attributes import functional, sequence_of

CT_STORAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
STANDARD_CLASSES = "1.2.840.10008."
"""What the standard's own classes begin with; others are manufacturers'."""
SECONDARY_CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture, and as a prefix its multi-frame kin."""
OTHER_MODALITIES = ("CR", "DX", "MG", "MR", "NM", "OT", "PT", "RF", "RTDOSE", "SC", "US", "XA")
"""Those an error may name: anything else in that attribute could be any text."""
LOSSY_SYNTAXES = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless)
"""Transfer syntaxes that cannot keep every value."""


class OtherKind(NamedTuple):
    """Why an image is no CT slice."""

    code: str
    """Of those that a volume leaves out."""
    sentence: str
    """What was received instead."""


def check_kind(dataset: FileDataset, *, allow_non_ct: bool) -> tuple[str, ...]:
    """Refuses what is no single CT slice; returns the notes for what is let through."""
    _check_complete(dataset)
    other = other_kind(dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    frames = max(int(dataset.get("NumberOfFrames") or 1), len(groups))
    check_frames(frames)
    if other and not allow_non_ct:
        raise NotCT(f"expected a CT slice, received {other.sentence}")
    return ("not_ct",) if other or lacks_modality(dataset) else ()


def lacks_modality(dataset: FileDataset) -> bool:
    """Whether nothing but the storage class says that this is CT."""
    return not _modality(dataset)


def check_frames(frames: int) -> None:
    """Refuses an image of several frames, whose number is given."""
    if frames != 1:
        raise MultiFrame(
            f"expected one frame, received {frames}: this endpoint takes single slices, "
            "volumes will have an endpoint of their own"
        )


def _check_complete(dataset: FileDataset) -> None:
    """Tells an image that ends before its pixels from an object that never had any."""
    if "Rows" in dataset and "PixelData" in dataset:
        return
    meta = dataset.get("file_meta") or {}
    named = {str(dataset.get("SOPClassUID")), str(meta.get("MediaStorageSOPClassUID"))}
    # A file that ends within its first attributes says of no class that it is another.
    others = {name for name in named if UID(name).type == "SOP Class"} - {*CT_STORAGE_CLASSES}
    if "Rows" in dataset or not others:
        raise UndecodableImage("expected an image with pixels, received a file that has none")
    raise NotCT("expected a CT image, received a DICOM object without pixels")


def other_kind(dataset: FileDataset) -> OtherKind | None:
    """What an image is if it is no CT slice, by its header."""
    modality, sop_class = _modality(dataset), _sop_class(dataset)
    frame_type = functional(dataset, "CTImageFrameTypeSequence", "FrameType")
    image_type = (*sequence_of(dataset.get("ImageType")), *sequence_of(frame_type))
    image_type = {str(value).strip().upper() for value in image_type}
    if "LOCALIZER" in image_type:
        return OtherKind("localizer", "a localizer")
    if sop_class.startswith(SECONDARY_CAPTURE_CLASS) or "SCREEN SAVE" in image_type:
        return OtherKind("secondary_capture", "a secondary capture")
    if modality and modality != "CT":
        named = modality if modality in OTHER_MODALITIES else "of another kind"
        return OtherKind("other_modality", f"Modality {named}")
    if not modality and sop_class not in CT_STORAGE_CLASSES:
        return OtherKind("other_modality", "no Modality and no CT image storage class")
    if sop_class.startswith(STANDARD_CLASSES) and sop_class not in CT_STORAGE_CLASSES:
        return OtherKind("other_modality", "Modality CT in a storage class of another kind")
    return None


def _modality(dataset: FileDataset) -> str:
    return str(dataset.get("Modality") or "").strip().upper()


def is_of_ct(dataset: FileDataset) -> bool:
    """Whether neither Modality nor storage class speaks against HU, and one speaks for them."""
    modality, sop_class = _modality(dataset), _sop_class(dataset)
    if sop_class in CT_STORAGE_CLASSES:
        return modality in ("CT", "")
    captured = sop_class.startswith(SECONDARY_CAPTURE_CLASS)
    return modality == "CT" and (captured or not sop_class.startswith(STANDARD_CLASSES))


def is_lossy(dataset: FileDataset) -> bool:
    """Whether values were changed to save space, now or before."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if dataset.file_meta else None
    said = str(dataset.get("LossyImageCompression") or "").strip() == "01"
    return said or syntax in LOSSY_SYNTAXES


def _sop_class(dataset: FileDataset) -> str:
    """The object's class; a file that is cut off may say it in its meta header alone."""
    meta = dataset.file_meta
    return str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
