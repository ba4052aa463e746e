"""Finds pairs of slices and masks in folders, and reads them through the service's own readers."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import LungsegError
from lungseg.core.types import Scan
from lungseg.formats.names import SLICE_SUFFIXES
from lungseg.formats.names import stem_of as stem_of_name
from lungseg.formats.read import read_scan
from training.config import PATIENT_PATTERN
from training.data.volumes import VOLUME_SUFFIXES, count_slices, is_volume, read_slice
from training.errors import DataError

IMAGE_FOLDERS = (("images", "masks"), ("2d_images", "2d_masks"))
"""Folder layouts understood without configuration: our own and Kaggle's."""
MASK_SUFFIX = "_mask"
"""Layout of one folder: ``x.png`` beside ``x_mask.png``; a folder of masks may use it too."""
SUFFIXES = (*SLICE_SUFFIXES, *VOLUME_SUFFIXES)
LABELS = 32
"""Masks of whole numbers below this hold labels (lungs, lobes), not grey: any label is lung."""
IGNORED, LUNG = 128, 255
"""Of a mask of three values: what nobody can tell, which neither trains nor counts, and lung."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a folder holds.

    Attributes:
        pairs: sorted by name.
        unmatched: names of files that have no partner, relative to the folder.
    """

    pairs: tuple[Pair, ...]
    unmatched: tuple[str, ...]


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
    images, masks = _image_and_mask_files(folder)
    stems = sorted(images.keys() & masks.keys())
    pattern = re.compile(patient_pattern)
    name = source or folder.resolve().name
    pairs: list[Pair] = []
    for stem in stems:
        match = pattern.search(stem)
        patient = match.group(0) if match else stem
        pair = Pair(name=stem, image=images[stem], mask=masks[stem], patient=patient, source=name)
        pairs += slices_of(pair)
    lonely = [images[stem] for stem in images.keys() - masks.keys()]
    lonely += [masks[stem] for stem in masks.keys() - images.keys()]
    unmatched = tuple(sorted(str(path.relative_to(folder)) for path in lonely))
    if not pairs:
        raise DataError(
            f"{folder}: expected images/ and masks/ (or 2d_images/ and 2d_masks/, or files with "
            f"the suffix {MASK_SUFFIX}) with equal names, found {len(unmatched)} unmatched files"
        )
    return Listing(pairs=tuple(pairs), unmatched=unmatched)


def slices_of(pair: Pair) -> list[Pair]:
    """The axial slices of a pair of volumes; the pair itself when it is one slice already."""
    if not is_volume(pair.image):
        return [pair]
    try:
        count = count_slices(pair.image)
    except DataError:
        return [replace(pair, index=0)]  # whoever reads it learns what is wrong
    return [replace(pair, name=f"{pair.name}_z{index:04d}", index=index) for index in range(count)]


def stem_of(path: Path) -> str:
    """The file's name without its suffix; the points of a DICOM UID are none."""
    return stem_of_name(path.name, SUFFIXES)


def read_sample(pair: Pair) -> Sample:
    """Reads a slice and its mask.

    A mask of labels is lung wherever it is not 0; of a grey mask, what lies above the middle of
    its range is. In a mask of no other values than 0, 128 and 255, what is 128 is ignored.

    Raises:
        DataError: a file can't be read, or mask and slice differ in size.
    """
    if pair.index is not None:
        _expect_same_slices(pair)
    scan = _read(pair.image, pair.index)
    mask_values = _read(pair.mask, pair.index).values[0]
    if mask_values.shape != scan.size:
        raise DataError(
            f"{pair.mask.name}: expected a mask of {scan.size[0]} x {scan.size[1]} like its "
            f"image, found {mask_values.shape[0]} x {mask_values.shape[1]}; export it again "
            "at the image's size"
        )
    if pair.hu_slope is not None:
        scan = replace(scan, values=scan.values * np.float32(pair.hu_slope), unit="HU", white=None)
    mask, ignored = _lung_and_ignored(mask_values)
    return Sample(pair=pair, scan=scan, mask=mask, ignored=ignored)


def read_airway(pair: Pair) -> NDArray[np.bool_] | None:
    """Trachea and main bronchi of a slice, None where nobody drew them.

    Raises:
        DataError: the file can't be read.
    """
    if pair.airway is None:
        return None
    return _read(pair.airway, pair.index).values[0] > 0


def _lung_and_ignored(
    values: NDArray[Any],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    ignored = np.asarray(values == IGNORED)
    if ignored.any() and bool((ignored | (values == 0) | (values == LUNG)).all()):
        return np.asarray(values == LUNG), ignored
    highest = float(values.max())
    labels = highest < LABELS and bool((values == np.rint(values)).all())
    return np.asarray(values > (0 if labels else highest / 2)), np.zeros(values.shape, bool)


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
    return _read(pair.mask, pair.index).values[0]


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


def _image_and_mask_files(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    for image_folder, mask_folder in IMAGE_FOLDERS:
        if (folder / image_folder).is_dir() and (folder / mask_folder).is_dir():
            images, masks = _by_stem(folder / image_folder), _by_stem(folder / mask_folder)
            return images, {
                stem if stem in images else stem.removesuffix(MASK_SUFFIX): path
                for stem, path in masks.items()
            }
    files = _by_stem(folder)
    masks = {stem: path for stem, path in files.items() if stem.endswith(MASK_SUFFIX)}
    images = {stem: path for stem, path in files.items() if stem not in masks}
    return images, {stem.removesuffix(MASK_SUFFIX): path for stem, path in masks.items()}


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.name.lower().endswith(SUFFIXES) and not _is_dicom(path):
            continue
        if (other := files.setdefault(stem_of(path), path)) != path:
            raise DataError(
                f"{path.name}: {other.name} has the same name in {folder}; take one of them out"
            )
    return files


def _is_dicom(path: Path) -> bool:
    """Whether a file of another suffix, or none, is DICOM as scanners and archives name it."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _read(path: Path, index: int | None) -> Scan:
    if index is not None:
        return read_slice(path, index)
    try:
        return read_scan(path.read_bytes(), allow_non_ct=True)
    except (OSError, LungsegError) as error:
        raise DataError(f"{path.name}: {error}; repair the file or take it out") from error
