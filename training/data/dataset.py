"""Finds pairs of slices and masks in folders, and reads them through the service's own readers."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import LungsegError, NotGrey
from lungseg.core.types import Scan
from lungseg.formats.read import read_scan
from training.config import PATIENT_PATTERN
from training.data.layouts import HINT, find_partners
from training.data.masks import lung_and_ignored, read_one_colour
from training.data.patients import patient_of
from training.data.volumes import count_slices, is_volume, read_slice
from training.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One slice with its mask, not yet read.

    Attributes:
        name: unique within its source, the stem of the image's file name.
        image: path of the slice, or of the volume that holds it.
        mask: path of the mask.
        hu_slope: HU = slope · value, where that is known of an uncalibrated file; else None.
        weight: how often the slice is drawn in an epoch, times its source's weight.
        airway: path of a mask of trachea and main bronchi, None where nobody drew them.
        patient: slices of one patient never stand on both sides of a split.
        source: name of the data set.
        group: what it is an example of (a disease, a posture), to report it by; empty for none.
        index: of the axial slice in a volume, None for a file of one slice.
    """

    name: str
    image: Path
    mask: Path
    patient: str
    source: str
    index: int | None = None
    airway: Path | None = None
    hu_slope: float | None = None
    weight: float = 1.0
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a folder holds.

    Attributes:
        pairs: sorted by name.
        unmatched: names of files that have no partner, relative to the folder.
        unknown: slices whose patient nothing tells, as ``source/name``: each counts as one of its
            own.
    """

    pairs: tuple[Pair, ...]
    unmatched: tuple[str, ...]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One slice with its mask, read.

    Attributes:
        pair: where it came from.
        scan: the slice, Z = 1.
        mask: bool, shape (Y, X) of the slice.
        ignored: what neither trains nor counts, bool of the same shape, apart from the mask.
    """

    pair: Pair
    scan: Scan
    mask: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def list_pairs(
    folder: Path, *, patient_pattern: str = PATIENT_PATTERN, source: str | None = None
) -> Listing:
    """Pairs images with masks by name.

    Args:
        folder: a data set in one of the known layouts.
        patient_pattern: regular expression whose match in the stem names the patient.
        source: name of the data set, the folder's by default.

    Raises:
        DataError: the folder is missing or holds no pair.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of images and masks, found none")
    found = find_partners(folder)
    source = source or folder.resolve().name
    pairs: list[Pair] = []
    unknown: list[str] = []
    for stem, (image, mask) in found.pairs.items():
        patient = patient_of(stem, image, patient_pattern, volume=is_volume(image))
        if patient is None:
            unknown.append(f"{source}/{stem}")
        pairs += slices_of(
            Pair(name=stem, image=image, mask=mask, patient=patient or stem, source=source)
        )
    if not pairs:
        raise DataError(f"{folder}: {HINT}, found {len(found.lonely)} unmatched files")
    unmatched = tuple(sorted(str(path.relative_to(folder)) for path in found.lonely))
    return Listing(pairs=tuple(pairs), unmatched=unmatched, unknown=tuple(unknown))


def slices_of(pair: Pair) -> list[Pair]:
    """The axial slices of a pair of volumes; the pair itself when it is one slice already."""
    if not is_volume(pair.image):
        return [pair]
    try:
        count = count_slices(pair.image)
    except DataError:
        return [replace(pair, index=0)]  # whoever reads it learns what is wrong
    return [replace(pair, name=f"{pair.name}_z{index:04d}", index=index) for index in range(count)]


def read_sample(pair: Pair) -> Sample:
    """Reads a slice and its mask, whose values ``masks`` explains.

    Raises:
        DataError: a file can't be read, mask and slice differ in size, or what is lung in the
            mask can't be told.
    """
    if pair.index is not None:
        _expect_same_slices(pair)
    scan, mask_values = _read(pair.image, pair.index), read_raw_mask(pair)
    if mask_values.shape != scan.size:
        raise DataError(
            f"{pair.mask.name}: expected a mask of {scan.size[0]} x {scan.size[1]} like its "
            f"image, found {mask_values.shape[0]} x {mask_values.shape[1]}; export it again "
            "at the image's size"
        )
    if pair.hu_slope is not None:
        scan = replace(scan, values=scan.values * np.float32(pair.hu_slope), unit="HU", white=None)
    try:
        mask, ignored = lung_and_ignored(mask_values)
    except DataError as error:
        raise DataError(f"{pair.mask.name}: {error}") from error
    return Sample(pair=pair, scan=scan, mask=mask, ignored=ignored)


def read_airway(pair: Pair) -> NDArray[np.bool_] | None:
    """Trachea and main bronchi of a slice, None where nobody drew them.

    Raises:
        DataError: the file can't be read.
    """
    if pair.airway is None:
        return None
    return _read(pair.airway, pair.index).values[0] > 0


def _expect_same_slices(pair: Pair) -> None:
    slices, found = count_slices(pair.image), count_slices(pair.mask)
    if slices != found:
        raise DataError(
            f"{pair.mask.name}: expected {slices} slices like its image, found {found}; export it "
            "again on the image's grid"
        )


def read_raw_mask(pair: Pair) -> NDArray[np.float32]:
    """The values of the mask's file, shape (Y, X).

    Raises:
        DataError: the file can't be read.
    """
    return _read_mask(pair).values[0]


def data_hash(pairs: Iterable[Pair]) -> str:
    """SHA-256 over the names and bytes of all pairs, in order: what a run was trained on."""
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.image, pair.mask):
            digest.update(f"{pair.source}/{path.name}\0".encode())
            digest.update(file_hash(path))
    return digest.hexdigest()


def file_hash(path: Path) -> bytes:
    """SHA-256 of a file's content, remembered as long as the file does not change."""
    state = path.stat()
    return _file_hash(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: Path, _size: int, _modified_ns: int) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def write_pairs(path: Path, rows: Iterable[tuple[Pair, str]]) -> None:
    """Writes a CSV of pairs with one remark each (their side of the split, a reason)."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("source", "name", "patient", "remark"))
        for pair, remark in rows:
            writer.writerow((pair.source, pair.name, pair.patient, remark))


def _read_mask(pair: Pair) -> Scan:
    try:
        return _read(pair.mask, pair.index)
    except DataError as error:
        if not isinstance(error.__cause__, NotGrey):
            raise
    try:
        return Scan(
            values=read_one_colour(pair.mask)[None], unit="grey level", media_type="image/png"
        )
    except DataError as error:
        raise DataError(f"{pair.mask.name}: {error}") from error


def _read(path: Path, index: int | None) -> Scan:
    if index is not None:
        return read_slice(path, index)
    try:
        return read_scan(path.read_bytes(), allow_non_ct=True)
    except (OSError, LungsegError) as error:
        raise DataError(f"{path.name}: {error}; repair the file or take it out") from error
