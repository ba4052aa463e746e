"""MetaImage volumes in one file (``.mha``): a header of text lines, and the values.

By the documentation of MetaIO. Coordinates are DICOM's: to the left, the back and the head.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import NotGrey, UndecodableImage
from lungseg.core.volume import Volume
from lungseg.formats.grid import Grid, GridOptions, read_values
from lungseg.formats.source import ZLIB, Source

MEDIA_TYPE = "application/x-metaimage"
MAX_HEADER_BYTES = 1 << 16
SNIFFED_BYTES = 256
"""Within these a header names its dimensions."""
_CODES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_FIRST = re.compile(rb"(ObjectType|NDims|Comment)\s*=")
_IMAGE = re.compile(rb"(?m)^NDims\s*=")
_LAST = re.compile(rb"(?m)^ElementDataFile\s*=[^\n]*\n")
_LINE = re.compile(r"([A-Za-z]+)\s*=\s*(.*)")
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
_OFFSETS = ("Offset", "Position", "Origin")
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


def is_metaimage(head: bytes) -> bool:
    """Whether a file begins as MetaImage does."""
    return bool(_FIRST.match(head) and _IMAGE.search(head[:SNIFFED_BYTES]))


def read_metaimage(source: Source, options: GridOptions) -> Volume:
    """Reads a file that ``is_metaimage``, with its values behind its header, perhaps packed.

    Raises:
        NotGrey: its voxels are colours or vectors.
        UndecodableImage: the values are elsewhere or in another form, or the file is damaged.
        VolumeTooLarge, SeveralVolumes, InvalidParameter: see ``read_values``.
    """
    head = source.head(MAX_HEADER_BYTES)
    last = _LAST.search(head)
    if last is None:
        raise UndecodableImage("expected ElementDataFile in the MetaImage header, received none")
    lines = head[: last.end()].decode("utf-8", "replace").splitlines()
    fields = {m[1]: m[2].strip() for m in map(_LINE.fullmatch, lines) if m}
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise UndecodableImage("expected the values in the MetaImage itself (LOCAL)")
    grid = _grid(fields)
    source.skip(last.end())
    return read_values(
        source.unpacked(ZLIB) if _is(fields, "CompressedData") else source, grid, options
    )


def _grid(fields: dict[str, str]) -> Grid:
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise NotGrey("expected grey voxels, received colours or vectors")
    code = _CODES.get(fields.get("ElementType", "").upper())
    if code is None or fields.get("BinaryData", "True").lower() == "false":
        raise UndecodableImage("expected a MetaImage of binary integers or real numbers")
    try:
        sizes = [int(size) for size in fields["DimSize"].split()]
        if len(sizes) != int(fields["NDims"]) or len(sizes) < 2:
            raise ValueError
        affine, spacing = _affine(fields, len(sizes)), _spacing(fields)
    except (KeyError, ValueError):
        raise UndecodableImage("expected sound sizes and places in the MetaImage header") from None
    width, height, depth, *more = [*sizes, 1]
    big = any(_is(fields, name) for name in _BIG_ENDIAN)
    return Grid(
        media_type=MEDIA_TYPE,
        size=(depth, height, width),
        dtype=np.dtype((">" if big else "<") + code),
        volumes=math.prod(more),
        affine=affine,
        spacing_mm=spacing,
    )


def _affine(fields: dict[str, str], count: int) -> NDArray[np.float64] | None:
    """(4, 4) from (slice, row, column, 1) to LPS mm, None where no directions are given."""
    spacing, directions = _spacing(fields), _numbers(fields, *_DIRECTIONS)
    if count < 3 or spacing is None or len(directions) != count * count:
        return None
    origin = [*_numbers(fields, *_OFFSETS), *[0.0] * count]
    matrix = np.eye(4)
    axes = np.array(directions).reshape(count, count)[:3, :3]  # of each axis a row
    matrix[:3, :3] = (axes[::-1] * np.array(spacing)[:, None]).T
    matrix[:3, 3] = origin[:3]
    return matrix


def _spacing(fields: dict[str, str]) -> tuple[float, float, float] | None:
    lengths = _numbers(fields, "ElementSpacing", "ElementSize")
    return None if len(lengths) < 3 else (lengths[2], lengths[1], lengths[0])


def _numbers(fields: dict[str, str], *names: str) -> list[float]:
    """Those of the first of these names that the header has."""
    text = next((fields[name] for name in names if name in fields), "")
    return [float(part) for part in text.split()]


def _is(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "").lower() == "true"
