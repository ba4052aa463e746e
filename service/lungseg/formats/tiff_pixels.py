"""The pixels of a TIFF page: strips or tiles to grey levels, of any kind of number.

Numbers are what the tags say, not what fits the few modes that Pillow has. JPEG, fax codes and
palettes, whose meaning is theirs, are Pillow's altogether.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lungseg.core.errors import UndecodableImage
from lungseg.formats.image import equal_channels, picture_levels
from lungseg.formats.tiff_segments import RAW, Page, packed_plane

MIN_IS_WHITE, _RGB = 0, 2
_GREY = (MIN_IS_WHITE, 1, 4)
"""Photometric interpretations of one channel; 4 is a mask."""
_PALETTE_OR_COLOUR_SPACE = (3, 5, 6, 8)
_PREDICTED = (5, 8, 32946, 34925, 50000)
"""Compressions of bytes with which a predictor counts: LZW, Deflate twice, LZMA, Zstandard."""
_OF_BYTES = (RAW, 32773, *_PREDICTED)
"""PackBits, too, says nothing of what the bytes mean."""
JPEG = 7
_OF_PICTURES = (2, 3, 4, JPEG)
"""Fax codes and JPEG."""
_NAMES = {
    6: "old-style JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
}
_ALPHA = (1, 2)
_UNASSOCIATED_ALPHA = 2
_EIGHT_BITS = 8
_KNOWN_WHITE_BITS = 16
_CHUNK_SAMPLES = 1 << 20
"""Samples of odd widths that are unpacked at a time: each bit takes a byte meanwhile."""


def is_pillows(page: Page) -> bool:
    """Whether the codec decides what the samples mean."""
    return page.compression in _OF_PICTURES or page.photometric in _PALETTE_OR_COLOUR_SPACE


def grey_levels(content: bytes, page: Page) -> tuple[NDArray[np.generic], float | None]:
    """The grey levels of a page, shape (Y, X) as stored, and that of white where it is fixed.

    Raises:
        NotGrey: the picture has colours.
        UndecodableImage: it is damaged, or written in a way that is not read, which is named.
    """
    _check(page)
    if is_pillows(page):
        with Image.open(io.BytesIO(content), formats=["TIFF"]) as picture:
            picture.seek(page.index)
            return picture_levels(ImageOps.exif_transpose(picture))
    planes = [_plane(content, page, plane) for plane in range(page.samples // page.channels)]
    samples = [channel for plane in planes for channel in np.moveaxis(plane, 2, 0)]
    colours = 1 if page.photometric in _GREY else 3
    white = float(2**page.bits - 1) if page.kind == "u" and page.bits <= _KNOWN_WHITE_BITS else None
    grey = equal_channels(samples[:colours], white) if colours > 1 else samples[0]
    for channel, meaning in enumerate(page.extra[: page.samples - colours], start=colours):
        if meaning in _ALPHA:
            grey = _on_black(grey, samples[channel], meaning, white)
    if page.photometric == MIN_IS_WHITE:
        # Without a known white, order is all that inverting has to keep.
        grey = -grey.astype(np.float64) if white is None else np.float32(white) - grey
    if white is not None and page.bits < _EIGHT_BITS:  # as pictures of few levels are shown
        return grey * (255.0 / white), 255.0
    return grey, white


def turned(grey: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """As the orientation tag wants it looked at (1 to 8; others change nothing)."""
    if orientation in (2, 3, 6, 7):
        grey = grey[:, ::-1] if orientation in (2, 3) else grey[::-1]
    if orientation in (3, 4, 7, 8):
        grey = grey[::-1] if orientation in (3, 4) else grey[:, ::-1]
    return grey.T if orientation in (5, 6, 7, 8) else grey


def _check(page: Page) -> None:
    """Refuses by name what cannot be read right."""
    if page.compression not in (*_OF_BYTES, *_OF_PICTURES):
        name = _NAMES.get(page.compression, f"number {page.compression}")
        raise UndecodableImage(f"expected a TIFF of a common compression, received {name}")
    if is_pillows(page):
        if page.kind != "u" or page.bits > _EIGHT_BITS:
            raise UndecodableImage(
                "expected at most 8 bits without a sign in a TIFF of a palette, another colour "
                "space or a compression of pictures, received others"
            )
        return
    if page.photometric not in (*_GREY, _RGB):
        raise UndecodableImage(
            f"expected a TIFF of grey or RGB, received interpretation {page.photometric}"
        )
    if not 1 <= page.samples <= 4 or (page.photometric == _RGB and page.samples < 3):
        raise UndecodableImage(f"expected 1 to 4 channels, received {page.samples}")
    if page.compression in _PREDICTED and page.predictor not in (1, 2, 3):
        raise UndecodableImage(f"expected predictor 1, 2 or 3, received {page.predictor}")
    if page.predictor == 3 and page.kind != "f" and page.compression in _PREDICTED:
        raise UndecodableImage("expected a floating-point predictor with such samples only")


def _on_black(
    grey: NDArray[Any], alpha: NDArray[Any], meaning: int, white: float | None
) -> NDArray[Any]:
    if white is None:
        if np.ptp(alpha):
            raise UndecodableImage("expected an opaque TIFF, received samples of unknown opacity")
        return grey
    if meaning != _UNASSOCIATED_ALPHA or alpha.min() == white:
        return grey
    return np.rint(grey * (alpha / np.float32(white)))


def _plane(content: bytes, page: Page, plane: int) -> NDArray[Any]:
    """Samples of one plane, shape (Y, X, channels)."""
    packed = packed_plane(content, page, plane)  # (rows, segments across, bytes of a row)
    predictor = page.predictor if page.compression in _PREDICTED else 1
    if page.bits % 8:
        numbers = _odd_numbers(packed, page)
    elif predictor == 3:
        numbers = _float_predicted(packed, page)
    else:
        dtype = np.dtype(f"{page.order}{page.kind}{page.bits // 8}")
        numbers = packed.view(dtype).astype(dtype.newbyteorder("="), copy=False)
    rows, across = packed.shape[:2]
    columns = page.segment[1]
    numbers = numbers.reshape(rows, across, columns, page.channels)
    if predictor == 2:
        whole = np.dtype(f"u{numbers.dtype.itemsize}")
        summed = np.cumsum(numbers.view(whole), axis=2, dtype=whole)
        if page.bits % 8:
            summed &= whole.type((1 << page.bits) - 1)
        numbers = summed.view(numbers.dtype)
    height, width = page.size
    return numbers.reshape(rows, across * columns, page.channels)[:height, :width]


def _odd_numbers(packed: NDArray[np.uint8], page: Page) -> NDArray[np.uint16]:
    """Unsigned numbers of up to 15 bits, the highest bit first, whatever the byte order."""
    count = page.segment[1] * page.channels
    lines = packed.reshape(-1, packed.shape[2])
    numbers = np.empty((len(lines), count), np.uint16)
    weights = 1 << np.arange(page.bits, dtype=np.uint16)[::-1]
    step = max(1, _CHUNK_SAMPLES // count)
    for start in range(0, len(lines), step):
        bits = np.unpackbits(lines[start : start + step], axis=1)[:, : count * page.bits]
        numbers[start : start + step] = bits.reshape(-1, count, page.bits) @ weights
    return numbers


def _float_predicted(packed: NDArray[np.uint8], page: Page) -> NDArray[Any]:
    """Undoes predictor 3 (Adobe's TIFF technical note 3): rows of bytes, the highest first."""
    rows, across, _ = packed.shape
    step = page.channels
    summed = np.cumsum(packed.reshape(rows, across, -1, step), axis=2, dtype=np.uint8)
    size = page.bits // 8
    highest_first = summed.reshape(rows, across, size, -1).swapaxes(2, 3)
    dtype = np.dtype(f">f{size}")
    return np.ascontiguousarray(highest_first).view(dtype).astype(dtype.newbyteorder("="))
