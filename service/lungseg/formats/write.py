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
from lungseg.core.types import BoolArray, FloatArray, Unit

MASK_WHITE = 255
OVERLAY_WINDOW_HU = (-1350.0, 150.0)
"""The usual lung window: level −600, width 1500."""
OVERLAY_PERCENTILES = (0.5, 99.5)
"""Black and white of an overlay whose slice is not in HU."""
TINT_RGB = (86, 180, 233)
LINE_RGB = (240, 228, 66)
"""Okabe and Ito's sky blue and yellow: far apart for every kind of colour vision."""
TINT_OPACITY = 0.3
_FACES = ndimage.generate_binary_structure(2, 1)
_FAST_COMPRESSION = 3


def encode_mask(plane: BoolArray, encoding: str) -> dict[str, Any]:
    """The ``mask`` member of the JSON answer.

    Args:
        plane: bool, shape (Y, X).
        encoding: one of ``ENCODINGS``.
    """
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


def overlay_png(values: FloatArray, unit: Unit, plane: BoolArray) -> bytes:
    """The slice with tinted lungs and their outline, for people to look at.

    The outline is a bright line within the mask beside a black one around it, so that it
    shows on dark lung and on bright tissue alike, in colour and in a grey print.

    Args:
        values: intensities, float32, shape (Y, X).
        unit: HU are shown in the lung window, grey levels between two percentiles.
        plane: the mask, bool, same shape.
    """
    low, high = OVERLAY_WINDOW_HU
    if unit != "HU":
        low, high = (float(level) for level in np.percentile(values, OVERLAY_PERCENTILES))
    grey = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0) * 255
    picture = np.repeat(grey[..., None], 3, axis=2)
    tint = np.array(TINT_RGB, np.float32)
    picture[plane] = (1 - TINT_OPACITY) * picture[plane] + TINT_OPACITY * tint
    inner = np.asarray(ndimage.binary_erosion(plane, _FACES), bool)
    outer = np.asarray(ndimage.binary_dilation(plane, _FACES), bool)
    picture[plane & ~inner] = LINE_RGB
    picture[outer & ~plane] = 0
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
