"""DICOM slices in order: series by their geometry, contiguous runs as volumes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from lungseg.core.errors import LungsegError
from lungseg.formats.read import read_scan
from training.errors import DataError

LEAST_VOLUME_SLICES = 4
"""Fewer neighbours are labelled as single slices: they say too little about connections."""
LARGEST_STEP_MM = 8.0
"""Slices farther apart are not neighbours: a bronchus or a vessel may lie between them."""
STEP_TOLERANCE = 1.5
"""How many times the smallest step of a series a gap may be within one volume."""
DIGEST_LENGTH = 16
"""Hexadecimal digits of SHA-256 that guard a decision."""
AXIAL = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
"""Directions of rows and columns, where a header tells none."""
HEADER = (
    "SeriesInstanceUID",
    "PatientID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One decoded slice.

    Attributes:
        name: stem of the file, which names the slice in decisions and masks.
        path: the file.
        patient: the header's PatientID, empty where it has none: one patient a folder then.
        group: what slices of one series share: UID, size, spacing, direction, whether placed.
        position_mm: along the normal, growing to the head in axial slices.
        spacing_mm: (row, column) spacing.
        hu: int16, shape (Y, X).
    """

    name: str
    path: Path
    patient: str
    group: tuple[object, ...]
    position_mm: float
    spacing_mm: tuple[float, float]
    hu: NDArray[np.int16]

    @property
    def digest(self) -> str:
        """A hash of the slice's HU, which decisions name."""
        return digest_of(self.hu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Neighbouring slices in order, or one slice alone.

    Attributes:
        slices: ordered by position, feet first in axial series.
        hu: int16, shape (Z, Y, X).
        spacing_mm: (slice, row, column); a single slice has 1 mm between slices, of no meaning.
    """

    slices: tuple[Slice, ...]
    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]

    @property
    def is_volume(self) -> bool:
        """Whether the slices say something about each other."""
        return len(self.slices) > 1


def read_stacks(folder: Path) -> list[Stack]:
    """Reads all slices of a folder.

    Args:
        folder: DICOM files, of one series or of many.

    Returns:
        Volumes and single slices, by the name of their first slice.

    Raises:
        DataError: no folder, no slice in it, or a file that can't be read as CT in HU.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of DICOM slices, found none")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    slices = [_read(path) for path in files]
    if not slices:
        raise DataError(f"{folder}: expected DICOM slices, found no file")
    names = [item.name for item in slices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{folder}: expected different names, found two files called {twice!r}")
    groups: dict[tuple[object, ...], list[Slice]] = {}
    for item in slices:
        groups.setdefault(item.group, []).append(item)
    stacks = [stack for group in groups.values() for stack in _stacks(group)]
    return sorted(stacks, key=lambda stack: min(item.name for item in stack.slices))


def digest_of(array: NDArray[np.generic]) -> str:
    """A short hash of an array's size and values, the same on every machine."""
    content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{array.shape}".encode() + content.tobytes()).hexdigest()[:DIGEST_LENGTH]


def _read(path: Path) -> Slice:
    content = path.read_bytes()
    try:
        scan = read_scan(content, allow_non_ct=True)
    except LungsegError as error:
        raise DataError(f"{path.name}: {error}; take the file out") from error
    if scan.unit != "HU" or scan.spacing_mm is None:
        raise DataError(f"{path.name}: expected HU and pixel spacing, found a slice without")
    header = pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=list(HEADER))
    position = _numbers(path, header, "ImagePositionPatient", 3)
    direction = _numbers(path, header, "ImageOrientationPatient", 6)
    row, column = np.split(AXIAL if direction is None else direction, 2)
    return Slice(
        name=path.stem,
        path=path,
        patient=str(header.get("PatientID") or ""),
        group=(
            str(header.get("SeriesInstanceUID") or ""),
            scan.size,
            tuple(round(value, 4) for value in scan.spacing_mm),
            tuple(np.round([*row, *column], 2).tolist()),
            position is not None,
        ),
        position_mm=0.0 if position is None else float(position @ np.cross(row, column)),
        spacing_mm=scan.spacing_mm,
        hu=np.clip(np.rint(scan.values[0]), -2048, 4095).astype(np.int16),
    )


def _numbers(
    path: Path, header: pydicom.Dataset, keyword: str, count: int
) -> NDArray[np.float64] | None:
    """The numbers of a header's element; None where there is none."""
    try:
        given = header.get(keyword)
        if not given:
            return None
        numbers = np.array([float(value) for value in given])
        if numbers.size == count and np.isfinite(numbers).all():
            return numbers
    except (TypeError, ValueError):
        pass  # no number, or a single one
    raise DataError(f"{path.name}: expected {count} numbers as {keyword}; take the file out")


def _stacks(group: Iterable[Slice]) -> list[Stack]:
    """Cuts a series wherever the next slice is no neighbour."""
    ordered = sorted(group, key=lambda item: (item.position_mm, item.name))
    steps = [after.position_mm - before.position_mm for before, after in pairwise(ordered)]
    smallest = min((step for step in steps if step > 0), default=0.0)
    largest = min(STEP_TOLERANCE * smallest, LARGEST_STEP_MM)
    runs = [[ordered[0]]]
    for item, step in zip(ordered[1:], steps, strict=True):
        if 0 < step <= largest:
            runs[-1].append(item)
        else:
            runs.append([item])
    stacks: list[Stack] = []
    for run in runs:
        parts = [run] if len(run) >= LEAST_VOLUME_SLICES else [[item] for item in run]
        stacks += [_stack(part) for part in parts]
    return stacks


def _stack(slices: list[Slice]) -> Stack:
    positions = [item.position_mm for item in slices]
    step = float(np.median(np.diff(positions))) if len(slices) > 1 else 1.0
    return Stack(
        slices=tuple(slices),
        hu=np.stack([item.hu for item in slices]),
        spacing_mm=(step, *slices[0].spacing_mm),
    )
