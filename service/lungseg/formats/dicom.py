"""Single-frame DICOM CT: bytes to HU, with the geometry that the header gives.

Only the attributes named in ``_ATTRIBUTES`` are parsed: nothing that identifies a patient is
ever held, so nothing can leak into a log or an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import config, uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import UID

from lungseg.core.errors import LungsegError, MultiFrame, NotCT, UndecodableImage
from lungseg.core.types import AIR_HU, FloatArray, Orientation, Reach, Scan, Unit
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom_pixels import Layout, decode_plane, inflate, read_layout, used_bits
from lungseg.formats.image import check_pixels, checked
from lungseg.formats.pieces import CountedStream
from lungseg.formats.quiet import silence_decoders

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
UNIT_TOLERANCE = 1e-2
"""How far direction cosines may be from unit length and from a right angle."""
BODY_HU = (-1100.0, 300.0)
"""Air, lung, fat and soft tissue: nearly all of a CT slice, and little of one that is inverted."""
TURNING_GAIN = 0.2
"""By how much more of a slice must be in ``BODY_HU`` before stored values count as inverted: bone
becomes soft tissue by inverting, but is never a fifth of a slice."""
LEAST_SHARE_OF_BODY = 0.3
"""With less of it in ``BODY_HU`` a slice is in no HU at all."""
PLAUSIBLE_SPACING_MM = (0.01, 20.0)
"""Pixel spacings beyond are mistakes of the header."""
LOSSY_SYNTAXES = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless)
"""Transfer syntaxes that cannot keep every value."""
MAX_VALUE_BYTES = 1 << 20
"""Of an attribute beside the pixels: a table of 16 bits has an eighth of it."""
PIXEL_DATA = 0x7FE00010
HU_RESCALE_TYPES = ("HU", "HU_MOD", "US")
"""Rescale Types of Hounsfield units; US, unspecified, is what many scanners write for them."""

_ATTRIBUTES = [
    *("SOPClassUID", "Modality", "ImageType", "NumberOfFrames", "SpecificCharacterSet"),
    *("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData", "LossyImageCompression"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


def read_dicom(
    content: bytes, max_pixels: int, *, allow_non_ct: bool, decode: DecodeFrame | None = None
) -> Scan:
    """Decodes a CT slice into HU; another modality, where it is allowed, with a note.

    Stored values go through the Modality LUT (PS3.3 C.11.1) or the Pixel Value Transformation
    of an enhanced image; padding (PS3.3 C.7.5.1.1.2) is air.

    Raises:
        ImageTooLarge, MultiFrame, NotCT, NotGrey, UndecodableImage: as their names say.
        DecoderUnavailable: there is no process for a compressed frame.
    """
    silence_decoders()
    try:
        dataset = parse(inflate(content, max_pixels), _ATTRIBUTES)
        _check_lengths(dataset)
        return _read(dataset, max_pixels, allow_non_ct=allow_non_ct, decode=decode)
    except LungsegError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises anything on broken bytes and quotes them
        raise UndecodableImage(
            "the content is DICOM, but it is damaged, incomplete or of an unknown encoding"
        ) from None


def _read(
    dataset: FileDataset, max_pixels: int, *, allow_non_ct: bool, decode: DecodeFrame | None
) -> Scan:
    notes = _check_kind(dataset, allow_non_ct=allow_non_ct)
    layout = read_layout(dataset)
    check_pixels(layout.rows, layout.columns, max_pixels)
    plane = decode_plane(dataset, layout, decode)
    if plane.shape != (layout.rows, layout.columns):
        raise UndecodableImage("expected one plane of Rows x Columns, received another shape")
    padding = _padding(dataset, plane, layout)
    values, unit = _intensities(dataset, plane, layout, padding)
    if _is_lossy(dataset):
        notes = (*notes, "lossy_compression")
    return Scan(
        values=checked(values)[None],
        unit=unit,
        media_type="application/dicom",
        spacing_mm=_spacing(dataset),
        orientation=_orientation(dataset),
        positions_mm=_position(dataset),
        reach=_reach(dataset, layout) if unit == "HU" else None,
        padding=padding[None] if padding is not None and padding.any() else None,
        notes=notes,
    )


def parse(content: bytes, attributes: list[str] | None = None) -> FileDataset:
    """Parses a file, all of it or some attributes only, without checking values.

    Checks would warn with the offending text, which may name a patient.
    """
    config.settings.reading_validation_mode = config.IGNORE
    return pydicom.dcmread(CountedStream(content), force=True, specific_tags=attributes)


def _check_lengths(dataset: FileDataset) -> None:
    """Refuses attributes whose values would be millions, before one is made of their bytes."""
    for tag in {*dataset.keys()} - {PIXEL_DATA}:
        value = dataset.get_item(tag).value
        if isinstance(value, bytes) and len(value) > MAX_VALUE_BYTES:
            _check_frames(int(dataset.get("NumberOfFrames") or 1))
            raise UndecodableImage(
                f"expected at most {MAX_VALUE_BYTES} bytes of an attribute, received more"
            )


def _check_frames(frames: int) -> None:
    if frames != 1:
        raise MultiFrame(
            f"expected one frame, received {frames}: this endpoint takes single slices, "
            "volumes will have an endpoint of their own"
        )


def _check_kind(dataset: FileDataset, *, allow_non_ct: bool) -> tuple[str, ...]:
    """Refuses what is no single CT slice; returns the notes for what is let through."""
    _check_complete(dataset)
    modality = str(dataset.get("Modality") or "").strip().upper()
    reason = _not_ct_because(dataset, modality)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    frames = max(int(dataset.get("NumberOfFrames") or 1), len(groups))
    _check_frames(frames)
    if reason and not allow_non_ct:
        raise NotCT(f"expected a CT slice, received {reason}")
    return ("not_ct",) if reason or not modality else ()


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


def _not_ct_because(dataset: FileDataset, modality: str) -> str | None:
    sop_class = _sop_class(dataset)
    frame_type = functional(dataset, "CTImageFrameTypeSequence", "FrameType")
    image_type = (*_sequence(dataset.get("ImageType")), *_sequence(frame_type))
    image_type = {str(value).strip().upper() for value in image_type}
    if "LOCALIZER" in image_type:
        return "a localizer"
    if sop_class.startswith(SECONDARY_CAPTURE_CLASS) or "SCREEN SAVE" in image_type:
        return "a secondary capture"
    if modality and modality != "CT":
        return f"Modality {modality if modality in OTHER_MODALITIES else 'of another kind'}"
    if not modality and sop_class not in CT_STORAGE_CLASSES:
        return "no Modality and no CT image storage class"
    if sop_class.startswith(STANDARD_CLASSES) and sop_class not in CT_STORAGE_CLASSES:
        return "Modality CT in a storage class of another kind"
    return None


def _sop_class(dataset: FileDataset) -> str:
    """The object's class; a file that is cut off may say it in its meta header alone."""
    meta = dataset.file_meta
    return str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")


def _intensities(
    dataset: FileDataset,
    plane: NDArray[np.integer],
    layout: Layout,
    padding: NDArray[np.bool_] | None,
) -> tuple[FloatArray, Unit]:
    """HU where the header calibrates the stored values, else grey levels."""
    stored = used_bits(plane, layout)
    values, calibrated = _rescaled(dataset, stored)
    inverted = str(dataset.get("PhotometricInterpretation")).strip() == "MONOCHROME1"
    if inverted:
        # By the standard HU are HU however they are shown; but files exist whose stored
        # values were inverted with the display. What the body is made of tells them apart.
        extremes = -1 if layout.signed else (1 << layout.bits_stored) - 1
        turned, _ = _rescaled(dataset, extremes - stored.astype(np.int64))
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


def _rescaled(dataset: FileDataset, stored: NDArray[np.integer]) -> tuple[FloatArray, bool]:
    """Values after the modality transformation, and whether the header says they are HU."""
    table = dataset.get("ModalityLUTSequence")
    if table:
        kind = str(table[0].get("ModalityLUTType") or "").strip().upper()
        looked_up = np.asarray(apply_modality_lut(stored, dataset))
        return looked_up.astype(np.float32), _is_of_ct(dataset) and kind == "HU"
    macro = "PixelValueTransformationSequence"
    slope = _floats(dataset, macro, "RescaleSlope", 1)
    intercept = _floats(dataset, macro, "RescaleIntercept", 1)
    values = stored.astype(np.float32)
    if slope is None or slope[0] == 0 or intercept is None:
        return values, False
    values *= np.float32(slope[0])
    values += np.float32(intercept[0])
    kind = functional(dataset, macro, "RescaleType")
    return values, _is_of_ct(dataset) and str(kind or "HU").strip().upper() in HU_RESCALE_TYPES


def _is_lossy(dataset: FileDataset) -> bool:
    """Whether values were changed to save space, now or before."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if dataset.file_meta else None
    said = str(dataset.get("LossyImageCompression") or "").strip() == "01"
    return said or syntax in LOSSY_SYNTAXES


def _reach(dataset: FileDataset, layout: Layout) -> Reach | None:
    """What the stored bits can hold, in HU; of a table that only its values say."""
    if dataset.get("ModalityLUTSequence"):
        return None
    lowest = -(1 << layout.bits_stored - 1) if layout.signed else 0
    ends = np.array([lowest, lowest + (1 << layout.bits_stored) - 1])
    low, high = sorted(float(value) for value in _rescaled(dataset, ends)[0])
    return Reach(low=low, high=high, step=(high - low) / ((1 << layout.bits_stored) - 1))


def _is_of_ct(dataset: FileDataset) -> bool:
    """Whether neither Modality nor storage class speaks against HU, and one speaks for them."""
    modality, sop_class = str(dataset.get("Modality") or "").strip().upper(), _sop_class(dataset)
    if sop_class in CT_STORAGE_CLASSES:
        return modality in ("CT", "")
    captured = sop_class.startswith(SECONDARY_CAPTURE_CLASS)
    return modality == "CT" and (captured or not sop_class.startswith(STANDARD_CLASSES))


def _inside(stored: NDArray[np.integer], padding: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Where a slice shows more than its padding: what is marked, or one value in all corners."""
    corners = stored[[0, 0, -1, -1], [0, -1, 0, -1]]
    inside = stored != corners[0] if (corners == corners[0]).all() else np.ones(stored.shape, bool)
    return inside if padding is None else inside & ~padding


def _share_of_body(values: FloatArray) -> float:
    """How many of some values are HU of air and soft tissue; 0 of none."""
    low, high = BODY_HU
    return np.count_nonzero((values >= low) & (values <= high)) / max(1, values.size)


def _padding(
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


def _spacing(dataset: FileDataset) -> tuple[float, float] | None:
    values = _floats(dataset, "PixelMeasuresSequence", "PixelSpacing", 2)
    low, high = PLAUSIBLE_SPACING_MM
    if values is None or not low <= min(values) <= max(values) <= high:
        return None
    return values[0], values[1]


def _orientation(dataset: FileDataset) -> Orientation | None:
    """Direction cosines, None when they are missing or not two orthogonal unit vectors."""
    values = _floats(dataset, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if values is None:
        return None
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1)
    if max(*lengths, abs(float(row @ column))) > UNIT_TOLERANCE:
        return None
    return Orientation(
        row_direction=(values[0], values[1], values[2]),
        column_direction=(values[3], values[4], values[5]),
    )


def _position(dataset: FileDataset) -> NDArray[np.float64] | None:
    """Patient position of the slice's first pixel, shape (1, 3); None when it is missing."""
    values = _floats(dataset, "PlanePositionSequence", "ImagePositionPatient", 3)
    return None if values is None else np.array([values])


def functional(dataset: FileDataset, macro: str, keyword: str) -> Any:
    """An attribute of the image, else of its only frame, else one shared by all frames."""
    places: list[Dataset] = [dataset]
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or ())[:1]:
            places += (group.get(macro) or ())[:1]
    try:
        return next((place.get(keyword) for place in places if keyword in place), None)
    except (TypeError, ValueError):  # not a number where one belongs: unknown
        return None


def _floats(dataset: FileDataset, macro: str, keyword: str, count: int) -> list[float] | None:
    """``count`` finite numbers of an attribute that ``functional`` finds, None if it has others."""
    try:
        numbers = [float(str(item)) for item in _sequence(functional(dataset, macro, keyword))]
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _sequence(value: object) -> Sequence[object]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,)
    return value
