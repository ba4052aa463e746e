"""What a segmentation is to a Python program, computed here or by a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import InvalidParameter

SUMMARY = ("model", "image", "statistics", "confidence", "quality")
"""Members of an answer beside its mask."""
MASK_ENCODING = "coco_rle_uncompressed"
"""How masks travel to ``Result``: numpy alone reads it."""

VOLUME_SUMMARY = ("model", "volume", "statistics", "acquisition", "confidence", "quality")
"""Members of a volume's answer."""
LABELS_FORM = "npz"
"""How the labels of a volume travel to ``VolumeResult``: numpy alone reads it."""
FORMS_BY_ENDING = {
    ".json": "json",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".npz": "npz",
    "_labelmap.dcm": "dicom-seg-labelmap",
    "_sr.dcm": "dicom-sr",
    ".dcm": "dicom-seg",
    ".stl": "stl",
    ".glb": "glb",
    ".png": "png",
    ".zip": "zip",
}
"""The form of a volume's file by what its name ends with, the first that does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """The answer for one slice.

    Attributes:
        mask: True = lung, bool, shape (height, width) of the slice.
        statistics: areas, intensities, densities, in all and per lung; None = unknown.
        confidence: mean probability and share of uncertain pixels.
        flags: codes of the reasons to look twice.
        image: size, media type, intensity unit and spacing as they were read.
        model: name, version and digest of the model that answered.
    """

    mask: NDArray[np.bool_]
    statistics: dict[str, Any]
    confidence: dict[str, Any]
    flags: tuple[str, ...]
    image: dict[str, Any]
    model: dict[str, Any]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Result:
        """Reads a JSON answer whose mask is encoded as ``MASK_ENCODING``."""
        height, width = answer["mask"]["size"]
        counts = np.asarray(answer["mask"]["counts"], np.int64)
        flat = np.repeat(np.arange(counts.size) % 2 == 1, counts)
        return cls(
            mask=flat.reshape(width, height).T,  # column-major
            statistics=answer["statistics"],
            confidence=answer["confidence"],
            flags=tuple(flag["code"] for flag in answer["quality"]["flags"]),
            image=answer["image"],
            model=answer["model"],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeResult:
    """The answer for one volume.

    Attributes:
        labels: 1 = right lung, 2 = left, 3 = lung without a side, uint8, shape (slices, height,
            width), the slices in their order along the normal.
        answer: the JSON answer beside these: model, volume, statistics, acquisition, confidence
            and quality.
        fetch: makes a file of it, whose form is a value of ``format`` of ``/segment/volume``; a
            server computes the volume once more for that.
    """

    labels: NDArray[np.uint8]
    answer: dict[str, Any]
    fetch: Callable[[str], File]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True = lung, of either side."""
        return self.labels > 0

    @property
    def statistics(self) -> dict[str, Any]:
        """Millilitres, grams, intensities and densities, in all, per lung and per third."""
        return self.answer["statistics"]

    @property
    def flags(self) -> tuple[str, ...]:
        """Codes of the reasons to look twice."""
        return tuple(flag["code"] for flag in self.answer["quality"]["flags"])

    def save(self, path: str | os.PathLike[str], form: str | None = None) -> None:
        """Writes a file, in a form that its name tells, as ``mask.nii.gz`` or ``lungs.glb``.

        Args:
            path: where to; a name as ``FORMS_BY_ENDING`` has them, unless there is a form.
            form: a value of ``format`` of ``/segment/volume``.

        Raises:
            InvalidParameter: the name tells no form, or there is none of that name.
            OSError: the file cannot be written.
        """
        place = Path(path)
        endings = (
            form for end, form in FORMS_BY_ENDING.items() if place.name.lower().endswith(end)
        )
        form = form or next(endings, None)
        if form is None:
            known = ", ".join(FORMS_BY_ENDING)
            raise InvalidParameter(f"expected a name that ends with one of {known}")
        place.write_bytes(self.fetch(form).content)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An answer that is a file: a picture, an array, a DICOM segmentation, JSON.

    Its summary is the JSON answer without mask, request id and timings.
    """

    content: bytes
    media_type: str
    summary: dict[str, Any]


def as_texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Query parameters: pairs as ``a,b``, truth values as JSON writes them, None left out."""
    texts: dict[str, str] = {}
    for name, value in parameters.items():
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        if isinstance(plain, bool):
            texts[name] = "true" if plain else "false"
        elif isinstance(plain, Sequence) and not isinstance(plain, str):
            texts[name] = ",".join(map(str, plain))
        elif value is not None:
            texts[name] = str(plain)
    return texts
