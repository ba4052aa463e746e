"""Names of results: those of their slices, told apart, and harmless inside an archive.

``x_mask.png`` beside ``x.png`` is the layout of pairs that training reads.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

SLICE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy", ".dcm")
"""What a slice's name ends with; the points of a DICOM UID are none of these."""
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".npy", ".zip", ".dcm")
"""The same of a volume's; a study's folder has none."""
MAX_FOLDERS = 15
"""Folders kept of a name in an archive, the innermost: no file system's paths get too long."""
MAX_PART_BYTES = 200
"""Of a folder or stem in an archive: with an ending it stays below the 255 of file systems."""
_SEPARATORS = re.compile(r"[/\\]")
_UNSAFE = re.compile('[\x00-\x1f\x7f<>:"|?*\ud800-\udfff\u202a-\u202e\u2066-\u2069]')
"""What Windows forbids, what is no text, and what turns the direction of writing around."""


_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever ending follows."""


def stem_of(name: str, suffixes: Sequence[str] = SLICE_SUFFIXES) -> str:
    """The name without its suffix, folders kept."""
    suffix = next((one for one in suffixes if name.lower().endswith(one)), "")
    return name[: len(name) - len(suffix)]


def result_names(
    names: Sequence[str], suffix: str, suffixes: Sequence[str] = SLICE_SUFFIXES
) -> list[str]:
    """A name for the result of each slice: its own with another ending, different from all others.

    Slices that differ in nothing but their endings keep them, and those that do not differ get a
    number. Names count as the same where a file system that ignores case takes them so.

    Args:
        names: of the inputs, with folders.
        suffix: what the names of results end with, as ``_mask.png``.
        suffixes: what the names of inputs may end with.
    """
    stems = [stem_of(name, suffixes) for name in names]
    endings: dict[str, set[str]] = {}
    for name, stem in zip(names, stems, strict=True):
        endings.setdefault(_key(stem), set()).add(_key(name))
    alone = {key for key, count in Counter(map(_key, stems)).items() if count == 1}
    used = set(alone)
    results: list[str] = []
    for name, stem in zip(names, stems, strict=True):
        base = stem
        if (key := _key(stem)) not in alone:
            several = len(endings[key]) > 1
            base = next(
                one for one in _numbered(name if several else stem) if _key(one) not in used
            )
            used.add(_key(base))
        results.append(base + suffix)
    return results


def archive_name(filename: str, place: int) -> str:
    """What a client calls a file as a relative path that is safe to unpack anywhere.

    Folders and letters of all scripts are kept; without any name, it is the place in the batch.
    """
    parts = [_part(part) for part in _SEPARATORS.split(filename)]
    named = [part for part in parts if part]
    return "/".join(named[-MAX_FOLDERS - 1 :]) or f"{place:04d}"


def _part(text: str) -> str:
    plain = _UNSAFE.sub("_", text).strip(" .")  # so neither "." nor ".." is left
    plain = _DEVICES.sub(r"\1_", plain)
    return plain.encode()[:MAX_PART_BYTES].decode(errors="ignore").strip(" .")


def _numbered(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
