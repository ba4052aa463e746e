"""Pictures: bytes to grey levels."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lungseg.core.errors import ImageTooLarge, LungsegError, MultiFrame, NotGrey, UndecodableImage
from lungseg.core.types import LOSSY, FloatArray, Scan
from lungseg.formats.pieces import check_jpeg, check_png
from lungseg.formats.quiet import silence_decoders

PICTURE_FORMATS = {f"image/{name.lower()}": name for name in ("PNG", "JPEG", "BMP")}
"""Pillow's names by media type."""
COLOUR_TOLERANCE = 24
"""Spread between channels, in 8-bit levels, that JPEG's chroma coding may leave in grey."""
COLOUR_FRACTION = 0.001
"""Share of pixels that may spread more: a small mark, not a colour picture."""
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue in Rec. 601, what JPEG's own grey channel is."""
MAX_SIDE = 65_535
"""Longest side in pixels: DICOM and JPEG count rows and columns in 16 bits. Resampling a line of
all the pixels that a slice may have would cost far more memory than the slice itself."""
MAX_INTENSITY = 1e9
"""Intensities beyond are no measurements, and their squares would overflow."""
WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
"""Grey level of white in arrays of whole numbers, where their kind fixes it."""
_PNG_SIZE = slice(16, 24)


def read_picture(content: bytes, format_name: str, max_pixels: int) -> Scan:
    """Decodes a PNG, JPEG or BMP into grey levels.

    Colour is accepted when the channels are equal or nearly so; transparency lies on black;
    an EXIF orientation is applied. Pillow tries the format of that name alone.

    Raises:
        ImageTooLarge, MultiFrame, NotGrey, UndecodableImage: as their names say.
    """
    silence_decoders()
    if format_name == "PNG" and len(content) >= _PNG_SIZE.stop:
        # Pillow opens no PNG without pixels, but a header alone tells enough to refuse it.
        width, height = struct.unpack(">LL", content[_PNG_SIZE])
        check_pixels(height, width, max_pixels)
        check_png(content)
    if format_name == "JPEG":
        check_jpeg(content)
    try:
        with Image.open(io.BytesIO(content), formats=[format_name]) as picture:
            check_pixels(picture.height, picture.width, max_pixels)
            if getattr(picture, "is_animated", False):
                raise MultiFrame("expected one picture in the file, received several")
            ImageOps.exif_transpose(picture, in_place=True)
            grey, white = picture_levels(picture)
    except LungsegError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(
            f"expected at most {max_pixels} pixels, the header announces far more"
        ) from None
    except Exception:  # noqa: BLE001 - decoders raise anything on broken bytes and quote them
        raise UndecodableImage(
            f"the content is {format_name}, but it is damaged or of an unknown variant"
        ) from None
    return Scan(
        values=checked(grey)[None],
        unit="grey level",
        media_type=Image.MIME[format_name],
        white=white,
        notes=(LOSSY,) if format_name == "JPEG" else (),
    )


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Refuses a size beyond the limit or without pixels, before anything is decoded.

    Raises:
        ImageTooLarge: more than ``max_pixels``, or a side longer than ``MAX_SIDE``.
        UndecodableImage: no pixels.
    """
    if max(height, width) > MAX_SIDE:
        raise ImageTooLarge(f"expected sides of at most {MAX_SIDE}, received {height} x {width}")
    if height * width > max_pixels:
        raise ImageTooLarge(f"expected at most {max_pixels} pixels, received {height} x {width}")
    if height <= 0 or width <= 0:
        raise UndecodableImage("expected at least one pixel, received none")


def picture_levels(picture: Image.Image) -> tuple[NDArray[np.generic], float | None]:
    """Grey levels of a decoded picture and the level of white, where its mode fixes it."""
    mode = picture.mode
    if mode in ("1", "L"):
        return np.asarray(picture if mode == "L" else picture.convert("L")), 255.0
    if mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return np.asarray(picture).astype(np.uint16), 65535.0
    if mode in ("I", "F"):
        return np.asarray(picture), None
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        *channels, opacity = (np.asarray(band) for band in picture.convert("RGBA").split())
        if opacity.min() < 255:
            channels = [(band * opacity.astype(np.uint16) + 127) // 255 for band in channels]
        return equal_channels(channels), 255.0
    return equal_channels([np.asarray(band) for band in picture.convert("RGB").split()]), 255.0


def equal_channels(channels: Sequence[NDArray[Any]], white: float | None = 255.0) -> NDArray[Any]:
    """The one grey channel of red, green and blue that are nearly equal, each of shape (Y, X).

    White is their highest level; where it is unknown, their range stands in its place.

    Raises:
        NotGrey: they differ by more than lossy coding does.
    """
    red, green, blue = channels
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    if np.array_equal(highest, lowest):
        return red
    # In unsigned numbers nothing can overflow.
    spread = (
        highest - lowest if red.dtype.kind == "u" else np.subtract(highest, lowest, dtype=float)
    )
    scale = (float(highest.max()) - float(lowest.min()) if white is None else white) / 255.0
    if np.count_nonzero(spread > COLOUR_TOLERANCE * scale) > COLOUR_FRACTION * spread.size:
        raise NotGrey("expected a grey picture, received colours")
    grey = np.zeros(red.shape, np.float32)
    for channel, weight in zip(channels, LUMA_WEIGHTS, strict=True):
        grey += channel * np.float32(weight)
    return grey


def checked(values: NDArray[np.generic]) -> FloatArray:
    """Intensities as float32, refused where they are no numbers.

    Raises:
        UndecodableImage: NaN, infinity or absurdly large values.
    """
    low, high = float(values.min()), float(values.max())
    if not -MAX_INTENSITY <= low <= high <= MAX_INTENSITY:  # false for NaN
        raise UndecodableImage(f"expected finite intensities of at most ±{MAX_INTENSITY:.0e}")
    return np.ascontiguousarray(values, np.float32)
