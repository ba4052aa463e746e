"""What a segmentation of one slice is to a Python program, computed here or by a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUMMARY = ("model", "image", "statistics", "confidence", "quality")
"""Members of an answer beside its mask."""
MASK_ENCODING = "coco_rle_uncompressed"
"""How masks travel to ``Result``: numpy alone reads it."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An answer that is a file: a picture, an array, a DICOM segmentation, JSON.

    Its summary is the JSON answer's model, image, statistics, confidence and quality.
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
