"""Label maps and volumes on their source's grid: NIfTI-1, NRRD, NPZ, the same bytes every time.

Labels are 1 for the patient's right lung and 2 for the left. What a source's header says of
anything but its grid is left out: free text may name the patient.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.full_grid import FullGrid, full_grid
from lungseg.core.geometry import step_mm
from lungseg.core.types import LabelArray
from lungseg.core.volume import Volume
from lungseg.formats.nifti_header import (
    CODES,
    header_like,
    header_of_grid,
    write_header,
)

LEVEL = 1
"""Noise hardly packs any better with eight times the effort."""
_PIECE_BYTES = 1 << 22
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"
"""Deflated, without a name or a time, at the fastest level, by a system that is not told."""


def label_nifti(volume: Volume, labels: LabelArray, threads: int = 1) -> bytes:
    """A label map as ``.nii.gz``, uint8, on the grid of its source, geometry as that had it.

    Args:
        volume: the source.
        labels: its lungs, shape (Z, Y, X).
        threads: how many pack at a time.
    """
    grid = full_grid(volume)
    return _nifti(volume, grid, grid.labels(labels), threads)


def volume_nifti(volume: Volume, threads: int = 1) -> bytes:
    """The volume itself as ``.nii.gz``, int16 or float32, on the same grid as its label map."""
    grid = full_grid(volume)
    return _nifti(volume, grid, grid.values(volume.scan.values), threads)


def label_nrrd(
    volume: Volume, labels: LabelArray, threads: int = 1, *, packed: bool = True
) -> bytes:
    """A label map as NRRD, uint8, on the grid of its source; gzip, which not all read, packs it."""
    grid = full_grid(volume)
    mapped = grid.labels(labels)
    lines = [
        "NRRD0004",
        "type: uint8",
        "dimension: 3",
        f"sizes: {' '.join(map(str, mapped.shape[::-1]))}",
        "kinds: domain domain domain",
        f"encoding: {'gzip' if packed else 'raw'}",
        *_places(volume, grid.affine),
    ]
    head = "\n".join([*lines, "", ""]).encode("ascii")
    content = _bytes_of(mapped)
    return head + (_gzip([content], threads) if packed else content)


def label_npz(labels: LabelArray) -> bytes:
    """Labels slice by slice as they were sent, whatever is missing there, for ``numpy.load``.

    Args:
        labels: uint8, shape (Z, Y, X).
    """
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive,
        archive.open("labels.npy", "w") as member,  # of 1980: no time makes it another
    ):
        np.lib.format.write_array(member, labels, allow_pickle=False)
    return stream.getvalue()


def _places(volume: Volume, affine: NDArray[np.float64] | None) -> list[str]:
    """Lines of a NRRD header that say where voxels lie."""
    if affine is None:
        spacing = _spacing_mm(volume)
        return [] if spacing is None else [f"spacings: {' '.join(map(repr, spacing[::-1]))}"]
    columns = [",".join(repr(float(number)) for number in column) for column in affine[:3].T]
    directions = " ".join(f"({column})" for column in columns[2::-1])
    return [
        "space: left-posterior-superior",
        f"space directions: {directions}",
        f"space origin: ({columns[3]})",
    ]


def _nifti(volume: Volume, grid: FullGrid, values: NDArray[Any], threads: int) -> bytes:
    code = next(code for code, kind in CODES.items() if np.dtype(kind) == values.dtype)
    if volume.nifti_header is not None:
        fields = header_like(volume.nifti_header)
    else:
        fields = header_of_grid(grid.affine, _spacing_mm(volume))
    values = values.astype(
        values.dtype.newbyteorder(fields.dtype["dim"].base.byteorder), copy=False
    )
    depth, height, width = values.shape
    head = write_header(fields, (depth, height, width), code)
    return _gzip([memoryview(head), _bytes_of(values)], threads)


def _spacing_mm(volume: Volume) -> tuple[float, float, float] | None:
    between, within = step_mm(volume.scan), volume.scan.spacing_mm
    return None if between is None or within is None else (between, *within)


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _gzip(contents: list[memoryview], threads: int) -> bytes:
    """One gzip stream of several contents, packed piece by piece on several threads."""
    pieces = [
        content[start : start + _PIECE_BYTES]
        for content in contents
        for start in range(0, len(content), _PIECE_BYTES)
    ]
    checksum = 0
    with ThreadPoolExecutor(threads) as pool:
        packed = pool.map(_deflated, pieces)
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        size = sum(map(len, contents))
        tail = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
        end = struct.pack("<LL", checksum, size & 0xFFFFFFFF)
        return b"".join([_GZIP_HEAD, *packed, tail, end])


def _deflated(piece: memoryview) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
