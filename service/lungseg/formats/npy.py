"""NumPy's ``.npy`` arrays: a slice of two dimensions, a volume of three; never a pickle."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from lungseg.core.errors import MultiFrame, UndecodableImage
from lungseg.core.types import Scan
from lungseg.core.volume import Volume
from lungseg.formats.grid import Grid, GridOptions, check_size, read_values, volume_of
from lungseg.formats.image import check_pixels, checked
from lungseg.formats.source import Source

MEDIA_TYPE = "application/x-npy"
MAGIC = b"\x93NUMPY"
HEADER_BYTES = 1 << 14
"""More than NumPy accepts of a header."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype[Any]
    end: int
    """Where the values begin."""


def is_npy(head: bytes) -> bool:
    """Whether a file begins as an array does."""
    return head.startswith(MAGIC)


def read_npy(content: bytes, max_pixels: int) -> Scan:
    """Decodes a two-dimensional numeric array.

    Raises:
        ImageTooLarge, MultiFrame, UndecodableImage: as their names say.
    """
    shape, _, dtype, end = _header(content[:HEADER_BYTES])
    if len(shape) == 3 and 1 not in shape:
        raise MultiFrame(f"expected a 2-D NPY array, received {len(shape)} dimensions")
    if len(shape) != 2:
        raise UndecodableImage(f"expected a 2-D NPY array, received {len(shape)} dimensions")
    check_pixels(shape[0], shape[1], max_pixels)
    if len(content) - end < shape[0] * shape[1] * dtype.itemsize:
        raise UndecodableImage("the content is NPY, but it is truncated")
    array = npy.read_array(io.BytesIO(content), allow_pickle=False)
    white = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(array.dtype)
    return Scan(values=checked(array)[None], unit="grey level", media_type=MEDIA_TYPE, white=white)


def read_npy_volume(source: Source, options: GridOptions) -> Volume:
    """Decodes a numeric array of shape (slices, rows, columns).

    Raises:
        UndecodableImage: it has other dimensions, or is no array of numbers, or is damaged.
        VolumeTooLarge, InvalidParameter: see ``read_values``.
    """
    shape, columns_first, dtype, end = _header(source.head(HEADER_BYTES))
    if len(shape) != 3:
        raise UndecodableImage(f"expected a 3-D NPY array, received {len(shape)} dimensions")
    grid = Grid(media_type=MEDIA_TYPE, size=shape, dtype=dtype)
    source.skip(end)
    if not columns_first:
        return read_values(source, grid, options)
    check_size(grid, options.limits)
    count = int(np.prod(shape)) * dtype.itemsize
    source.check_room(count)
    planes = np.frombuffer(source.take(count), dtype).reshape(shape, order="F")
    return volume_of(planes, grid, options)


def _header(head: bytes) -> _Header:
    stream = io.BytesIO(head)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns_first, dtype = read(stream)
    except Exception:  # noqa: BLE001 - the header is a Python literal, and may fail as any can
        raise UndecodableImage("the content is NPY, but its header is damaged") from None
    if any(isinstance(length, bool) for length in shape):  # NumPy takes True for a length
        raise UndecodableImage("expected whole numbers as the shape of an NPY array")
    if dtype.kind not in "biuf":
        raise UndecodableImage("expected an NPY array of numbers, received another type")
    return _Header(shape, columns_first, dtype, stream.tell())
