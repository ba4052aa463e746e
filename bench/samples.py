"""The slice that is timed, in the forms that it comes in: the packaged sample, a real one."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from lungseg.formats.read import read_scan
from lungseg.packaged import sample_slice

WINDOW_HU = (-1024.0, 600.0)
"""Black and white of the picture."""


def picture(bits: int = 8) -> bytes:
    """A grey PNG of 512 x 512."""
    values = read_scan(sample_slice().read_bytes()).values[0]
    low, high = WINDOW_HU
    levels = np.clip((values - low) / (high - low), 0, 1) * (2**bits - 1)
    stream = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8 if bits == 8 else np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def dicoms() -> dict[str, bytes]:
    """The file by how its pixels are written: raw, JPEG-LS, JPEG 2000."""
    found: dict[str, bytes] = {}
    syntaxes = {"raw": None, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
    for name, syntax in syntaxes.items():
        dataset = pydicom.dcmread(sample_slice())
        dataset.decompress()
        if syntax:
            dataset.compress(syntax)
        stream = io.BytesIO()
        dataset.save_as(stream)
        found[name] = stream.getvalue()
    return found
