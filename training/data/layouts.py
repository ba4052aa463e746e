"""Which file of a folder is the mask of which slice: layouts by folder, partners by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.formats.names import SLICE_SUFFIXES
from lungseg.formats.names import stem_of as stem_of_name
from training.data.volumes import VOLUME_SUFFIXES
from training.errors import DataError

FOLDERS = (
    ("images", "masks"),
    ("2d_images", "2d_masks"),
    ("images", "labels"),
    ("image", "mask"),
    ("imgs", "masks"),
)
"""Layouts of two folders that are understood without configuration: our own, Kaggle's, usual."""
NNUNET = ("imagesTr", "labelsTr")
"""nnU-Net's two folders (Isensee 2021); the channel stands at the end of an image's name."""
CHANNEL = re.compile(r"_(\d{4})$")
NO_STRUCTURE = re.compile(r"^(background|bg|clear label)$", re.IGNORECASE)
LUNG_LABEL = re.compile(r"lung|lobe|pulmo", re.IGNORECASE)
"""Of the names in ``dataset.json``."""
MASK_WORD = re.compile(r"^(mask|label|seg)[_-]|[_-](mask|label|seg)$", re.IGNORECASE)
"""Tells a mask's name from its slice's: ``x_mask`` beside ``x``, ``mask_x`` beside ``img_x``."""
IMAGE_WORD = re.compile(
    r"^(img|image|ct|slice|scan)[_-]|[_-](img|image|ct|slice|scan)$", re.IGNORECASE
)
SUFFIXES = (*SLICE_SUFFIXES, *VOLUME_SUFFIXES)
HINT = (
    "expected images/ and masks/ (or 2d_images/ and 2d_masks/, imagesTr/ and labelsTr/, or files "
    "as x.png and x_mask.png, img_x.png and mask_x.png) with equal names"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Files of a folder by name.

    Attributes:
        pairs: (image, mask) by the slice's name, in order.
        lonely: files without a partner.
    """

    pairs: Mapping[str, tuple[Path, Path]]
    lonely: tuple[Path, ...]


def find_partners(folder: Path) -> Matches:
    """Finds the layout of a folder, and the mask of each slice.

    Raises:
        DataError: two files share a name, an image has several channels, or the labels of an
            nnU-Net data set are not of lungs alone.
    """
    if all((folder / name).is_dir() for name in NNUNET):
        images, masks = (_by_stem(folder / name) for name in NNUNET)
        _expect_lungs(folder / "dataset.json")
        return _matched(_one_channel(images), masks)
    for names in FOLDERS:
        if all((folder / name).is_dir() for name in names):
            images, masks = (_by_stem(folder / name) for name in names)
            return _matched(images, masks)
    files = _by_stem(folder)
    masks = {stem: path for stem, path in files.items() if MASK_WORD.search(stem)}
    return _matched({stem: files[stem] for stem in files.keys() - masks.keys()}, masks)


def stem_of(path: Path) -> str:
    """The file's name without its suffix; the points of a DICOM UID are none."""
    return stem_of_name(path.name, SUFFIXES)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its content: scanners and archives name them in any way."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _matched(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Matches:
    """By equal names first, then by what is left of them without words such as ``mask``."""
    owners: dict[str, set[str]] = {}
    for stem in images:
        owners.setdefault(_without(IMAGE_WORD, stem), set()).add(stem)
    pairs: dict[str, tuple[Path, Path]] = {}
    for stem in sorted(masks):
        key = _without(MASK_WORD, stem)
        owner = next((name for name in (stem, key) if name in images), None)
        alike = owners.get(key, set())
        if owner is None and len(alike) == 1:
            owner = next(iter(alike))
        if owner is not None and owner not in pairs:
            pairs[owner] = (images[owner], masks[stem])
    used = {path for pair in pairs.values() for path in pair}
    lonely = sorted({*images.values(), *masks.values()} - used)
    return Matches(pairs={stem: pairs[stem] for stem in sorted(pairs)}, lonely=tuple(lonely))


def _without(word: re.Pattern[str], stem: str) -> str:
    return word.sub("", stem, count=1)


def _one_channel(images: Mapping[str, Path]) -> dict[str, Path]:
    """nnU-Net's images by case.

    Raises:
        DataError: a case has several channels, as no CT has.
    """
    cases: dict[str, Path] = {}
    for stem, path in images.items():
        case = CHANNEL.sub("", stem)
        other = cases.setdefault(case, path)
        if other != path:
            raise DataError(
                f"{path.name}: {other.name} is another channel of the same case; CT has one "
                "channel, called _0000: take the others out"
            )
    return cases


def _expect_lungs(description: Path) -> None:
    """Refuses labels that ``dataset.json`` names otherwise than as lungs; without it, all are.

    Raises:
        DataError: with their names.
    """
    if not description.exists():
        return
    try:
        labels: Any = json.loads(description.read_text())["labels"]
        named = {str(name): value for name, value in labels.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{description}: expected nnU-Net's labels ({error})") from error
    # Newer files say name: number, those of the Decathlon number: name.
    names = [value if isinstance(value, str) else name for name, value in named.items()]
    others = [name for name in names if not NO_STRUCTURE.match(name)]
    others = [name for name in others if not LUNG_LABEL.search(name)]
    if others:
        raise DataError(
            f"{description}: expected labels of lungs alone, found {', '.join(others)}; write "
            "masks of the lungs, with 128 for what is ignored"
        )


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _visible(folder.iterdir()):
        if not path.name.lower().endswith(SUFFIXES) and not is_dicom(path):
            continue
        if (other := files.setdefault(stem_of(path), path)) != path:
            raise DataError(
                f"{path.name}: {other.name} has the same name in {folder}; take one of them out"
            )
    return files


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not path.name.startswith("."))
