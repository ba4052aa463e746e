"""The slice that is timed, in the forms that it comes in: the packaged sample, a real one."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from lungseg.formats.nifti_header import (
    VALUES_AT,
    header_of_grid,
    parse_header,
    transforms,
    write_header,
)
from lungseg.formats.read import read_scan
from lungseg.packaged import sample_slice, sample_volume

WINDOW_HU = (-1024.0, 600.0)
"""Black and white of the picture."""
AIR_BELOW_HU = -600
INT16 = 4
"""NIfTI-1's code."""


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


def volume() -> bytes:
    """A phantom of a chest in 100 slices, NIfTI-1: two ellipsoids of air in one of tissue."""
    size = 100, 200, 240
    z, y, x = (
        np.linspace(-1, 1, length).reshape([-1 if axis == place else 1 for place in range(3)])
        for axis, length in enumerate(size)
    )
    body = (y / 0.9) ** 2 + (x / 0.9) ** 2 < 1
    lungs = [(z / 0.8) ** 2 + (y / 0.6) ** 2 + ((x - at) / 0.3) ** 2 < 1 for at in (-0.45, 0.45)]
    values = np.where(lungs[0] | lungs[1], -850, np.where(body, 40, -1000))
    noise = np.random.default_rng(1).normal(0, 15, size)
    affine = np.diag([1.6, 1.6, 3.0, 1.0])[:, [2, 1, 0, 3]]
    head = write_header(header_of_grid(affine, (3.0, 1.6, 1.6)), size, INT16)
    return head + (values + noise).astype("<i2").tobytes()


def denser() -> bytes:
    """The sample scan in every second slice, its air 20 HU denser, as after a shallower breath."""
    content = gzip.decompress(sample_volume().read_bytes())
    fields = parse_header(content)
    columns, rows, slices = (int(size) for size in fields["dim"][1:4])
    values = np.frombuffer(content, "<i2", offset=VALUES_AT).reshape(slices, rows, columns)[::2]
    values = np.where(values < AIR_BELOW_HU, values + 20, values).astype("<i2")
    affine = transforms(fields)[0]
    affine[:3, 0] *= 2
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    head = write_header(header_of_grid(affine, spacing), values.shape, INT16)
    return gzip.compress(head + values.tobytes(), 1, mtime=0)
