"""The tags of TIFF and BigTIFF, read without trust: nothing lies outside the file."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import numpy as np

from lungseg.core.errors import UndecodableImage

MAX_DIRECTORIES = 64
"""More pages than a picture has smaller copies; what lies behind them is not looked at."""
MAX_TAGS = 65_535
"""Of a page, as many as the classic form can count; BigTIFF counts to any number."""
MAX_VALUES = 1 << 18
"""Most values of one tag: a segment for each row, or 16 × 16 tiles of the largest slice."""
MAX_TEXT_BYTES = 4096
"""Of a description that are looked at."""
_TYPES = {
    **dict(enumerate(["B", "B", "H", "I", "I", "b", "B", "h", "i", "i", "f", "d", "I"], start=1)),
    16: "u8",
    17: "i8",
    18: "u8",
}
"""NumPy's codes of the TIFF types; those of fractions are of numerator and denominator."""
_RATIONALS = (5, 10)


class Tag(IntEnum):
    """Tags that are read (TIFF 6.0; ImageDepth is an extension by SGI)."""

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    DESCRIPTION = 270
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_COUNTS = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    IMAGE_DEPTH = 32997


_WANTED = frozenset(Tag)


class _Form(NamedTuple):
    """What classic and big files write in other widths."""

    order: Literal["<", ">"]
    length: str
    entry: str
    offset: str


class Directory:
    """The tags of one page."""

    def __init__(self, order: Literal["<", ">"], tags: dict[int, tuple[int, Any]]) -> None:
        self.order: Literal["<", ">"] = order
        self._tags = tags

    def __contains__(self, tag: Tag) -> bool:
        return tag in self._tags

    def numbers(self, tag: Tag, *default: int) -> list[int]:
        """The whole numbers of a tag, the default where there is none."""
        if tag not in self._tags:
            return list(default)
        return [int(value) for value in self._tags[tag][1]]

    def number(self, tag: Tag, default: int | None = None) -> int:
        """The first number of a tag.

        Raises:
            UndecodableImage: there is none, and no default.
        """
        if tag in self._tags:
            return int(self._tags[tag][1][0])
        if default is None:
            raise UndecodableImage("the content is TIFF, but it lacks its picture's size")
        return default

    def ratio(self, tag: Tag) -> float:
        """A fraction, 0 where there is none."""
        if tag not in self._tags:
            return 0.0
        kind, values = self._tags[tag]
        if kind in _RATIONALS:
            return float(values[0]) / float(values[1]) if values[1] else 0.0
        return float(values[0])

    def text(self, tag: Tag) -> bytes:
        """The beginning of a text, nothing where there is none."""
        return self._tags[tag][1].tobytes()[:MAX_TEXT_BYTES] if tag in self._tags else b""


def read_directories(content: bytes) -> list[Directory]:
    """All pages in their order, at least one, until the chain ends, breaks off or bites its tail.

    Raises:
        UndecodableImage: there is no whole page, or a tag's values lie outside the file.
        struct.error: the file breaks off within its first page.
    """
    form, offset = _form(content)
    found: list[Directory] = []
    seen: set[int] = set()
    while 0 < offset < len(content) and offset not in seen and len(found) < MAX_DIRECTORIES:
        seen.add(offset)
        directory, offset = _read(content, offset, form)
        found.append(directory)
    if not found:
        raise UndecodableImage("the content is TIFF, but without a picture")
    return found


def _form(content: bytes) -> tuple[_Form, int]:
    """The file's widths and the offset of its first page."""
    order: Literal["<", ">"] = "<" if content.startswith(b"II") else ">"
    (version,) = struct.unpack_from(f"{order}H", content, 2)
    if version == 42:
        form = _Form(order, "H", "HHI4s", "I")
        return form, struct.unpack_from(f"{order}I", content, 4)[0]
    width, _, offset = struct.unpack_from(f"{order}HHQ", content, 4)
    if width != 8:
        raise UndecodableImage("the content is TIFF, but its offsets are of an unknown width")
    return _Form(order, "Q", "HHQ8s", "Q"), offset


def _read(content: bytes, offset: int, form: _Form) -> tuple[Directory, int]:
    """One page, and the offset of the next."""
    (count,) = struct.unpack_from(form.order + form.length, content, offset)
    place = offset + struct.calcsize(form.order + form.length)
    entry = struct.Struct(form.order + form.entry)
    if count > min(MAX_TAGS, (len(content) - place) // entry.size):
        raise UndecodableImage("the content is TIFF, but its tags are cut off, or too many")
    tags: dict[int, tuple[int, Any]] = {}
    for tag, kind, length, value in entry.iter_unpack(content[place : place + count * entry.size]):
        if tag in _WANTED and kind in _TYPES and length and tag not in tags:
            tags[tag] = kind, _values(content, form, kind, length, value)
    end = place + count * entry.size
    following = content[end : end + struct.calcsize(form.order + form.offset)]
    try:
        return Directory(form.order, tags), struct.unpack(form.order + form.offset, following)[0]
    except struct.error:  # the file ends here
        return Directory(form.order, tags), 0


def _values(content: bytes, form: _Form, kind: int, length: int, value: bytes) -> Any:
    dtype = np.dtype(_TYPES[kind]).newbyteorder(form.order)
    count = length * 2 if kind in _RATIONALS else length
    place = 0
    if count * dtype.itemsize > len(value):
        (place,) = struct.unpack(form.order + form.offset, value)
        value = content
    if (kind != 2 and count > MAX_VALUES) or count * dtype.itemsize > len(value) - place:
        raise UndecodableImage("the content is TIFF, but a tag's values lie outside of it")
    return np.frombuffer(value, dtype, count, place)
