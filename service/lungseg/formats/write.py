"""Masks to bytes and JSON members, each form exactly as its readers expect it."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lungseg.core import rle
from lungseg.core.contours import polygons
from lungseg.core.preprocess import percentiles, without_padding
from lungseg.core.types import (
    LEFT,
    RIGHT,
    UNSIDED,
    BoolArray,
    FloatArray,
    IntensityArray,
    LabelArray,
    Unit,
)

MASK_WHITE = 255
OVERLAY_WINDOW_HU = (-1000.0, 400.0)
"""Air is black, soft tissue a light grey: the mask's border shows against either."""
OVERLAY_PERCENTILES = (0.5, 99.5)
"""Black and white of an overlay whose slice is not in HU."""
COLOURS_RGB = {RIGHT: (86, 180, 233), LEFT: (230, 159, 0), UNSIDED: (240, 228, 66)}
"""Okabe and Ito's sky blue, orange and yellow: far apart for every kind of colour vision."""
TINT_OPACITY = 0.3
OVERLAY_SIDE = 2048
"""Longest side of an overlay in pixels, as much as a screen shows: one of 4096 x 4096 takes a
second and has 15 MB."""
OVERLAY_SAMPLE = 1 << 18
"""About as many values tell the percentiles of a slice of any size."""
OVERLAY_COMPRESSION = 1
"""Noise of a slice does not compress: three times the effort saves an eighth of the bytes."""
_FAST_COMPRESSION = 3


def encode_mask(plane: BoolArray, encoding: str) -> dict[str, Any]:
    """The ``mask`` member of the JSON answer: a plane, bool (Y, X), in one of ``ENCODINGS``."""
    height, width = plane.shape
    return {"encoding": encoding, "size": [height, width], **_ENCODERS[encoding](plane)}


def mask_png(plane: BoolArray) -> bytes:
    """8-bit grey PNG, 0 = background, 255 = lung.

    Two values in long runs need neither filters nor a search for matches, so it is written by hand
    (PNG specification, third edition).
    """
    height, width = plane.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = plane
    rows[:, 1:] *= np.uint8(MASK_WHITE)
    packer = zlib.compressobj(level=1, memLevel=9, strategy=zlib.Z_RLE)
    chunks = (
        (b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", packer.compress(rows.data) + packer.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
        for name, data in chunks
    )


def probability_png(plane: FloatArray) -> bytes:
    """8-bit grey PNG of probabilities: 0 = 0.0, 255 = 1.0."""
    return picture_png(np.rint(plane * np.float32(255)).astype(np.uint8))


def array_npy(plane: BoolArray | LabelArray | IntensityArray) -> bytes:
    """NumPy's ``.npy`` of a plane, in its own type."""
    stream = io.BytesIO()
    np.save(stream, plane, allow_pickle=False)
    return stream.getvalue()


def overlay_png(values: IntensityArray, unit: Unit, labels: LabelArray) -> bytes:
    """The slice with tinted lungs and their outline, for people to look at.

    Right and left have a colour each. The outline is a bright line within the lung beside a
    black one around it, so that it shows on dark lung and on bright tissue alike, in colour and
    in a grey print. Values and labels have one shape (Y, X); HU are shown in a fixed window,
    grey levels between two percentiles. Of a slice with sides longer than ``OVERLAY_SIDE`` every
    second (third, …) row and column is shown.
    """
    every = -(-max(values.shape) // OVERLAY_SIDE)
    values, labels = values[::every, ::every], labels[::every, ::every]
    return picture_png(painted(values, labels, window_of(values, unit)), OVERLAY_COMPRESSION)


def window_of(values: IntensityArray, unit: Unit) -> tuple[float, float]:
    """What becomes black and white in pictures of these values, of any shape."""
    if unit == "HU":
        return OVERLAY_WINDOW_HU
    every = max(1, values.size // OVERLAY_SAMPLE)
    sample = values.ravel()[::every].astype(np.float32)
    low, high = percentiles(without_padding(sample), OVERLAY_PERCENTILES)
    return low, high


def painted(
    values: IntensityArray, labels: LabelArray, window: tuple[float, float]
) -> NDArray[np.uint8]:
    """A slice in grey, its lungs tinted and outlined, shape (Y, X, 3)."""
    low, high = window
    grey = (values - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    index = np.clip(np.rint(grey), 0, 255).astype(np.uint16)
    index += labels.astype(np.uint16) << 8
    picture = _PALETTE.take(index, axis=0)  # (Y, X, 3)
    edges = _edges(labels)
    picture[edges] = _OUTLINES.take(labels[edges], axis=0)
    return picture


def _edges(labels: LabelArray) -> BoolArray:
    """Where an outline runs: on either side of each lung's border, and where the picture ends."""
    edges = np.zeros(labels.shape, bool)
    across = labels[1:] != labels[:-1]
    edges[1:] |= across
    edges[:-1] |= across
    across = labels[:, 1:] != labels[:, :-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    for rim in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        edges[rim] |= labels[rim] > 0
    return edges


def _palette() -> NDArray[np.uint8]:
    """Colours of each label's grey levels, row 256 · label + level: the lungs are tinted."""
    grey = np.repeat(np.arange(256.0)[:, None], 3, axis=1)
    tints = (TINT_OPACITY * np.array(COLOURS_RGB[label]) for label in (RIGHT, LEFT, UNSIDED))
    shown = [grey, *((1 - TINT_OPACITY) * grey + tint for tint in tints)]
    return np.rint(np.concatenate(shown)).astype(np.uint8)


def picture_png(pixels: NDArray[np.uint8], compression: int = _FAST_COMPRESSION) -> bytes:
    """PNG of pixels, grey (Y, X) or coloured (Y, X, 3)."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=compression)
    return stream.getvalue()


def _label_studio(plane: BoolArray) -> dict[str, Any]:
    height, width = plane.shape
    return {
        "format": "rle",
        "rle": rle.brush_bytes(plane),
        "brushlabels": ["lung"],
        "original_width": width,
        "original_height": height,
    }


_PALETTE = _palette()
_OUTLINES = np.array([(0, 0, 0), *(COLOURS_RGB[kind] for kind in (RIGHT, LEFT, UNSIDED))], np.uint8)
"""By label: black around the lungs, and each lung's own colour just within."""
_ENCODERS: dict[str, Callable[[BoolArray], dict[str, Any]]] = {
    "coco_rle": lambda plane: {"counts": rle.coco_string(plane)},
    "coco_rle_uncompressed": lambda plane: {"counts": rle.coco_counts(plane)},
    "kaggle_rle": lambda plane: {"counts": rle.kaggle_string(plane)},
    "cvat": lambda plane: {"type": "mask", "points": rle.cvat_points(plane)},
    "label_studio": _label_studio,
    "polygon": lambda plane: {"type": "MultiPolygon", "coordinates": polygons(plane)},
    "png_base64": lambda plane: {"data": base64.b64encode(mask_png(plane)).decode("ascii")},
    "none": lambda _: {},
}
ENCODINGS = tuple(_ENCODERS)
"""Forms of the mask within a JSON answer."""
