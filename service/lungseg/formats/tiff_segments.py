"""The bytes of a TIFF page: its strips or tiles, unpacked and put side by side.

Compressed bytes are unpacked by the libtiff inside Pillow, to which each plane is shown as a
picture of bytes; what these mean ``tiff_pixels`` decides.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lungseg.core.errors import ImageTooLarge, UndecodableImage
from lungseg.formats.tiff_directory import Tag

RAW = 1
MAX_PLANE_BYTES = 160 << 20
"""Eight bytes for each pixel of the largest slice, and more; Pillow takes no larger pictures."""
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """How the pixels of one page are written, checked by ``tiff``; sizes are (rows, columns)."""

    index: int
    """Among all pages of the file."""
    order: Literal["<", ">"]
    size: tuple[int, int]
    samples: int
    """Channels of a pixel."""
    bits: int
    """Of a sample."""
    kind: Literal["u", "i", "f"]
    photometric: int
    compression: int
    predictor: int
    bits_reversed: bool
    separate: bool
    """Whether each channel has a plane of its own."""
    extra: tuple[int, ...]
    """What the channels beyond the picture's are."""
    tiled: bool
    segment: tuple[int, int]
    """Of a tile, or of a strip."""
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def channels(self) -> int:
        """Samples of a pixel that lie beside each other."""
        return 1 if self.separate else self.samples

    @property
    def segments(self) -> tuple[int, int]:
        """How many (down, across) make a plane."""
        sides = zip(self.size, self.segment, strict=True)
        down, across = (-(-side // step) for side, step in sides)
        return down, across

    @property
    def row_bytes(self) -> int:
        """Of one segment; rows begin at whole bytes."""
        return -(-self.segment[1] * self.channels * self.bits // 8)


def packed_plane(content: bytes, page: Page, plane: int) -> NDArray[np.uint8]:
    """The bytes of a plane, unpacked, shape (rows, segments across, bytes of a segment's row)."""
    down, across = page.segments
    part = slice(plane * down * across, (plane + 1) * down * across)
    offsets, counts = page.offsets[part], page.counts[part]
    if len(offsets) < down * across or (len(counts) and len(counts) < len(offsets)):
        raise UndecodableImage("the content is TIFF, but parts of its picture are missing")
    rows = down * page.segment[0] if page.tiled else page.size[0]
    if page.compression == RAW:
        packed = _raw(content, page, offsets, rows)
    else:
        if not len(counts):
            counts = np.array([len(content)]) - offsets
        packed = _unpacked(content, page, (offsets, counts), rows)
    return packed.reshape(rows, across, page.row_bytes)


def _raw(content: bytes, page: Page, offsets: NDArray[np.int64], rows: int) -> NDArray[np.uint8]:
    across = page.segments[1]
    packed = np.empty((rows, across, page.row_bytes), np.uint8)
    for number, offset in enumerate(offsets.tolist()):
        top, column = number // across * page.segment[0], number % across
        height = min(page.segment[0], rows - top)
        # raises where the file ends before
        part = np.frombuffer(content, np.uint8, height * page.row_bytes, offset)
        packed[top : top + height, column] = part.reshape(height, page.row_bytes)
    if page.bits_reversed:
        packed = np.frombuffer(_BITS_REVERSED, np.uint8)[packed]
    return packed


def _unpacked(
    content: bytes, page: Page, places: tuple[NDArray[np.int64], NDArray[np.int64]], rows: int
) -> NDArray[np.uint8]:
    """Lets libtiff unpack the segments, as those of an 8-bit picture with a pixel for each byte."""
    offsets, counts = places
    if counts.min() < 0 or offsets.min() < 0 or counts.sum() > 2 * len(content):
        raise UndecodableImage("the content is TIFF, but parts of its picture lie outside of it")
    columns = page.segments[1] * page.row_bytes
    if rows * columns > MAX_PLANE_BYTES:
        raise ImageTooLarge(f"expected at most {MAX_PLANE_BYTES} bytes of unpacked pixels")
    tags: dict[Tag, int | NDArray[np.int64]] = {
        Tag.WIDTH: columns,
        Tag.HEIGHT: rows,
        Tag.BITS: 8,
        Tag.COMPRESSION: page.compression,
        Tag.PHOTOMETRIC: 1,
        Tag.FILL_ORDER: 2 if page.bits_reversed else 1,
        Tag.STRIP_OFFSETS: offsets,
        Tag.SAMPLES: 1,
        Tag.ROWS_PER_STRIP: page.segment[0],
        Tag.STRIP_COUNTS: counts,
    }
    if page.tiled:
        for tag in (Tag.STRIP_OFFSETS, Tag.ROWS_PER_STRIP, Tag.STRIP_COUNTS):
            del tags[tag]
        tags |= {Tag.TILE_WIDTH: page.row_bytes, Tag.TILE_LENGTH: page.segment[0]}
        tags |= {Tag.TILE_OFFSETS: offsets, Tag.TILE_COUNTS: counts}
    with Image.open(io.BytesIO(_file(tags, content)), formats=["TIFF"]) as picture:
        return np.asarray(picture)


def _file(tags: dict[Tag, int | NDArray[np.int64]], content: bytes) -> bytes:
    """A little-endian TIFF of these tags, with the content behind it; offsets count from there."""
    lists = {tag: value for tag, value in tags.items() if not isinstance(value, int)}
    lists = {tag: value for tag, value in lists.items() if len(value) > 1}
    place = 8 + 2 + 12 * len(tags) + 4
    end = place + 4 * sum(map(len, lists.values()))
    entries, behind = b"", b""
    for tag, value in sorted(tags.items()):
        numbers = np.atleast_1d(value)
        if tag in (Tag.STRIP_OFFSETS, Tag.TILE_OFFSETS):
            numbers = numbers + end
        stored = numbers.astype("<u4").tobytes()
        if tag in lists:
            behind += stored
            stored = struct.pack("<I", place + len(behind) - len(stored))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + stored
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return header + entries + b"\0" * 4 + behind + content
