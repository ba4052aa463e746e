"""Single-frame DICOM CT: bytes to HU, with the geometry that the header gives.

Only the attributes named in ``_ATTRIBUTES`` are parsed: nothing that identifies a patient is
ever held, so nothing can leak into a log or an error.
"""

from __future__ import annotations

from pydicom.dataset import FileDataset

from lungseg.core.errors import LungsegError, UndecodableImage
from lungseg.core.types import LOSSY, Scan
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom_attributes import longest_value, parse
from lungseg.formats.dicom_deflated import inflate
from lungseg.formats.dicom_geometry import orientation_of, position_of, spacing_of
from lungseg.formats.dicom_kind import check_frames, check_kind, is_lossy
from lungseg.formats.dicom_pixels import decode_plane, read_layout
from lungseg.formats.dicom_values import intensities, padding_of, reach_of
from lungseg.formats.image import check_pixels, checked
from lungseg.formats.quiet import silence_decoders

MAX_VALUE_BYTES = 1 << 20
"""Of an attribute beside the pixels: a table of 16 bits has an eighth of it."""
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
    notes = check_kind(dataset, allow_non_ct=allow_non_ct)
    layout = read_layout(dataset)
    check_pixels(layout.rows, layout.columns, max_pixels)
    plane = decode_plane(dataset, layout, decode)
    if plane.shape != (layout.rows, layout.columns):
        raise UndecodableImage("expected one plane of Rows x Columns, received another shape")
    padding = padding_of(dataset, plane, layout)
    values, unit = intensities(dataset, plane, layout, padding)
    if is_lossy(dataset):
        notes = (*notes, LOSSY)
    return Scan(
        values=checked(values)[None],
        unit=unit,
        media_type="application/dicom",
        spacing_mm=spacing_of(dataset),
        orientation=orientation_of(dataset),
        positions_mm=position_of(dataset),
        reach=reach_of(dataset, layout) if unit == "HU" else None,
        padding=padding[None] if padding is not None and padding.any() else None,
        notes=notes,
    )


def _check_lengths(dataset: FileDataset) -> None:
    """Refuses attributes whose values would be millions, before one is made of their bytes."""
    if longest_value(dataset) > MAX_VALUE_BYTES:
        check_frames(int(dataset.get("NumberOfFrames") or 1))
        raise UndecodableImage(
            f"expected at most {MAX_VALUE_BYTES} bytes of an attribute, received more"
        )
