"""Bytes to ``Scan``: finds the format in the content, checks limits, dispatches."""

from __future__ import annotations

from dataclasses import replace

from lungseg.core.errors import InvalidParameter, MalformedRequest, UnsupportedMediaType
from lungseg.core.types import Reach, Scan, Unit
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom import read_dicom
from lungseg.formats.image import PICTURE_FORMATS, read_picture
from lungseg.formats.npy import read_npy
from lungseg.formats.sniff import DICOM, NPY, TIFF, sniff
from lungseg.formats.tiff import read_tiff

MAX_PIXELS = 4096 * 4096
"""Rows × columns of the largest slice that is accepted unless somebody says otherwise."""


def read_scan(  # noqa: PLR0913 - what callers may say of a slice, and how it is read
    content: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    spacing_mm: tuple[float, float] | None = None,
    window_hu: tuple[float, float] | None = None,
    unit: Unit = "grey level",
    allow_non_ct: bool = False,
    decode: DecodeFrame | None = None,
) -> Scan:
    """Decodes one CT slice.

    Args:
        content: a whole file: PNG, JPEG, TIFF, BMP, NPY or single-frame DICOM.
        max_pixels: rows × columns accepted; more is refused before decoding.
        spacing_mm: (row, column) spacing of a file that carries none; ignored where it does.
        window_hu: HU that black and white of an 8/16-bit picture stand for; ignored for DICOM.
        unit: of the values of an array, or of a signed or floating-point picture; ignored for
            DICOM.
        allow_non_ct: accept DICOM images that are no CT slices: another Modality, localizers,
            secondary captures, and neither a Modality nor a storage class of CT. A CT storage
            class without a Modality is always accepted.
        decode: decodes compressed DICOM frames; None for the decoder processes that all share.

    Returns:
        The slice with Z = 1. Of DICOM the header alone says what its values are; what it does
        not call a CT slice carries the note ``not_ct``.

    Raises:
        MalformedRequest: there are no bytes at all.
        UnsupportedMediaType: the content is of none of these formats.
        ImageTooLarge, UndecodableImage, MultiFrame, NotCT, NotGrey: see ``core.errors``.
        DecoderUnavailable: there is no process for a compressed DICOM frame.
        InvalidParameter: ``window_hu`` or ``unit`` was given for intensities it can't calibrate.
    """
    if not content:
        raise MalformedRequest("expected the bytes of a CT slice, received an empty body")
    media_type = sniff(content)
    if media_type is None:
        raise UnsupportedMediaType(
            "expected PNG, JPEG, TIFF, BMP, NPY or DICOM content, received none of these"
        )
    if media_type == DICOM:
        scan = read_dicom(content, max_pixels, allow_non_ct=allow_non_ct, decode=decode)
    else:
        scan = _read_picture(content, media_type, max_pixels, as_stored=unit == "HU")
    if scan.spacing_mm is None and spacing_mm is not None:
        scan = replace(scan, spacing_mm=spacing_mm)
    if media_type == DICOM:
        return scan
    if unit == "HU":
        if window_hu is not None:
            raise InvalidParameter("expected unit=hu or window_hu, received both")
        return _as_hu(scan)
    return scan if window_hu is None else calibrate(scan, window_hu)


def _read_picture(content: bytes, media_type: str, max_pixels: int, *, as_stored: bool) -> Scan:
    if media_type == NPY:
        return read_npy(content, max_pixels)
    if media_type == TIFF:
        return read_tiff(content, max_pixels, as_stored=as_stored)
    return read_picture(content, PICTURE_FORMATS[media_type], max_pixels)


def _as_hu(scan: Scan) -> Scan:
    if scan.media_type != NPY and scan.white is not None:
        raise InvalidParameter(
            "unit=hu needs an array, or a signed or floating-point picture; "
            "an 8 or 16 bit picture needs window_hu"
        )
    # Unsigned arrays hold nothing below 0 HU; of others the values show where they end.
    reach = None if scan.white is None else Reach(low=0.0, high=scan.white, step=1.0)
    return replace(scan, unit="HU", white=None, reach=reach)


def calibrate(scan: Scan, window_hu: tuple[float, float]) -> Scan:
    """Turns the grey levels of an integer picture into HU, given those of black and of white.

    Raises:
        InvalidParameter: the picture's black and white are unknown (floating point, 32 bit).
    """
    if scan.white is None:
        raise InvalidParameter(
            "window_hu needs an 8 or 16 bit picture, whose black and white are known"
        )
    low, high = window_hu
    level_hu = (high - low) / scan.white
    return replace(
        scan,
        values=low + scan.values * level_hu,
        unit="HU",
        reach=Reach(low=low, high=high, step=level_hu),
    )
