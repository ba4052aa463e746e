"""NRRD volumes: a header of text lines, an empty line, and the values.

By Teem's definition of the format (teem.sourceforge.net/nrrd/format.html). Coordinates are those
of the space that the header names.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import NotGrey, UndecodableImage
from lungseg.core.volume import Volume
from lungseg.formats.grid import Grid, GridOptions, read_values
from lungseg.formats.source import GZIP, Source

MEDIA_TYPE = "application/x-nrrd"
MAGIC = b"NRRD000"
MAX_HEADER_BYTES = 1 << 20
"""Segmentations have long ones; a megabyte is none."""
_SPACES = {
    "left-posterior-superior": (1, 1),
    "right-anterior-superior": (-1, -1),
    "left-anterior-superior": (1, -1),
}
"""By the name of a space: signs that bring x and y to DICOM's."""
_NAMED = _SPACES | {f"{name}-time": to for name, to in _SPACES.items()}
_SIDES = _NAMED | {"".join(re.findall(r"\b\w", name)): to for name, to in _NAMED.items()}
"""The same with time as another axis, and by initials, too."""
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}
_UNITS_MM = {"mm": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001, "µm": 0.001}
_VOLUMES = ("list", "time")
"""Kinds of an axis along which volumes lie; others are parts of a colour or of a vector."""
_LINE = re.compile(r"([^:]+):(?!=)\s*(.*)")
"""A field; pairs of keys and values have := and are anybody's."""
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_VECTOR = re.compile(r"none|\([^()]*\)")
_Vectors = list[tuple[float, ...] | None]


def is_nrrd(head: bytes) -> bool:
    """Whether a file begins as NRRD does."""
    return head.startswith(MAGIC)


def read_nrrd(source: Source, options: GridOptions) -> Volume:
    """Reads a file that ``is_nrrd``, with its values behind its header, raw or packed by gzip.

    Raises:
        NotGrey: its voxels are colours or vectors.
        UndecodableImage: the values are elsewhere or in another form, or the file is damaged.
        VolumeTooLarge, SeveralVolumes, InvalidParameter: see ``read_values``.
    """
    head = source.head(MAX_HEADER_BYTES)
    empty_line = _EMPTY_LINE.search(head)
    if empty_line is None:
        raise UndecodableImage("expected an empty line behind the NRRD header, received none")
    fields = _fields(head[: empty_line.start()])
    grid = _grid(fields)
    source.skip(empty_line.end())
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise UndecodableImage("expected the NRRD encoding raw or gzip, received another")
    return read_values(source if encoding == "raw" else source.unpacked(GZIP), grid, options)


def _fields(head: bytes) -> dict[str, str]:
    lines = [line.rstrip("\r") for line in head.decode("utf-8", "replace").split("\n")]
    found = {m[1].strip().lower(): m[2].strip() for m in map(_LINE.fullmatch, lines) if m}
    for name in ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"):
        if found.get(name, "0") != "0":
            raise UndecodableImage("expected the values right behind the NRRD header")
    return found


def _grid(fields: dict[str, str]) -> Grid:
    code = _CODES.get(fields.get("type", "").lower())
    if code is None:
        raise UndecodableImage("expected NRRD values of integers or real numbers")
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
        vectors = _vectors(fields, len(sizes))
        axes = _spatial(fields, sizes, vectors)
        affine, spacing = _affine(fields, vectors[axes]), _spacing(fields, vectors[axes], axes)
    except (KeyError, ValueError):
        raise UndecodableImage("expected sound sizes and directions in the NRRD header") from None
    before, after = sizes[: axes.start], sizes[axes.stop :]
    kind = (fields.get("kinds", "").split() or [""])[0].lower()
    if any(size != 1 for size in before) and kind not in _VOLUMES:
        raise NotGrey("expected grey voxels, received colours or vectors")
    width, height, depth = (*sizes[axes], 1, 1)[:3]
    order = ">" if fields.get("endian", "").lower() == "big" else "<"
    return Grid(
        media_type=MEDIA_TYPE,
        size=(depth, height, width),
        dtype=np.dtype(order + code),
        volumes=math.prod(after),
        interleaved=math.prod(before),
        affine=affine,
        spacing_mm=spacing,
    )


def _vectors(fields: dict[str, str], count: int) -> _Vectors:
    """The direction of each axis, fastest first, None of those that lie in no space."""
    given = _VECTOR.findall(fields.get("space directions", ""))
    if not given:
        return [None] * count
    if len(given) != count:
        raise ValueError
    return [None if one == "none" else _in_space(_numbers(one[1:-1])) for one in given]


def _in_space(vector: tuple[float, ...]) -> tuple[float, ...] | None:
    """A direction without its part along time, None of one that runs along time alone."""
    *place, time = vector
    if len(place) != 3:
        return vector
    if any(place) and time:
        raise ValueError
    return (*place,) if any(place) else None


def _spatial(fields: dict[str, str], sizes: list[int], vectors: _Vectors) -> slice:
    """Which axes are columns, rows and slices: those with a direction, else by their kinds."""
    kinds = fields.get("kinds", "").lower().split()
    places = [place for place, vector in enumerate(vectors) if vector is not None]
    if not places and len(kinds) == len(sizes):
        places = [place for place, kind in enumerate(kinds) if kind in ("domain", "space")][:3]
    places = places or list(range(min(3, len(sizes))))
    if not (2 <= len(places) <= 3 and places == list(range(places[0], places[-1] + 1))):
        raise UndecodableImage(f"expected three dimensions in space, received {len(places)}")
    return slice(places[0], places[-1] + 1)


def _affine(fields: dict[str, str], vectors: _Vectors) -> NDArray[np.float64] | None:
    """(4, 4) from (slice, row, column, 1) to LPS mm, None where no space is named."""
    sides = _SIDES.get(fields.get("space", "").lower())
    directions = [vector for vector in vectors if vector is not None and len(vector) == 3]
    origin = _numbers(fields.get("space origin", "(0,0,0)").strip("()"))[:3]
    if sides is None or len(directions) != 3 or len(origin) != 3:
        return None
    matrix = np.eye(4)
    matrix[:3] = np.array([*directions[::-1], origin]).T * _unit_mm(fields)
    return np.diag([*sides, 1, 1]) @ matrix


def _spacing(
    fields: dict[str, str], vectors: _Vectors, axes: slice
) -> tuple[float, float, float] | None:
    """(slice, row, column) spacing, from directions in whatever space, or as such."""
    lengths = [float(np.linalg.norm(vector)) for vector in vectors if vector is not None]
    if not lengths and "spacings" in fields:
        lengths = list(_numbers(",".join(fields["spacings"].split())))[axes]
    if len(lengths) != 3:
        return None
    column, row, between = (length * _unit_mm(fields) for length in lengths)
    return between, row, column


def _unit_mm(fields: dict[str, str]) -> float:
    units = fields.get("space units", "").replace('"', " ").split() or ["mm"]
    return _UNITS_MM.get(units[0].lower(), 1.0)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
