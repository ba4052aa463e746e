"""Masks to bytes and JSON members, each form exactly as its readers expect it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lungseg.core import rle
from lungseg.core.contours import polygons
from lungseg.core.preprocess import without_padding
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
_FACES = ndimage.generate_binary_structure(2, 1)
_FAST_COMPRESSION = 3


def encode_mask(plane: BoolArray, encoding: str) -> dict[str, Any]:
    """The ``mask`` member of the JSON answer: a plane, bool (Y, X), in one of ``ENCODINGS``."""
    height, width = plane.shape
    return {"encoding": encoding, "size": [height, width], **_ENCODERS[encoding](plane)}


def mask_png(plane: BoolArray) -> bytes:
    """8-bit grey PNG, 0 = background, 255 = lung."""
    return _png(plane.astype(np.uint8) * np.uint8(MASK_WHITE))


def probability_png(plane: FloatArray) -> bytes:
    """8-bit grey PNG of probabilities: 0 = 0.0, 255 = 1.0."""
    return _png(np.rint(plane * np.float32(255)).astype(np.uint8))


def mask_npy(plane: BoolArray) -> bytes:
    """NumPy's ``.npy`` of the mask as bool."""
    stream = io.BytesIO()
    np.save(stream, plane, allow_pickle=False)
    return stream.getvalue()


def overlay_png(values: IntensityArray, unit: Unit, labels: LabelArray) -> bytes:
    """The slice with tinted lungs and their outline, for people to look at.

    Right and left have a colour each. The outline is a bright line within the lung beside a
    black one around it, so that it shows on dark lung and on bright tissue alike, in colour and
    in a grey print. Values and labels have one shape (Y, X); HU are shown in a fixed window,
    grey levels between two percentiles.
    """
    low, high = OVERLAY_WINDOW_HU
    if unit != "HU":
        seen = without_padding(values.astype(np.float32, copy=False))
        low, high = (float(level) for level in np.percentile(seen, OVERLAY_PERCENTILES))
    grey = np.clip((values - np.float32(low)) / max(high - low, 1e-6), 0.0, 1.0) * 255
    picture = np.repeat(grey[..., None], 3, axis=2)  # (Y, X, 3)
    for label, colour in COLOURS_RGB.items():
        lung = labels == label
        inner = np.asarray(ndimage.binary_erosion(lung, _FACES), bool)
        tint = np.array(colour, np.float32)
        picture[inner] = (1 - TINT_OPACITY) * picture[inner] + TINT_OPACITY * tint
        picture[lung & ~inner] = tint
    mask = labels > 0
    picture[np.asarray(ndimage.binary_dilation(mask, _FACES), bool) & ~mask] = 0
    return _png(np.rint(picture).astype(np.uint8))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=_FAST_COMPRESSION)
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
