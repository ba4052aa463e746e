"""Valid files of every kind, and what chance makes of them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from PIL import Image
from pydicom import uid

from tests.formats import jpeg_lossless
from tests.formats.dicoms import compressed, encapsulated, enhanced, uncompressed
from tests.formats.tiffs import tiff
from training.synthetic.phantom import dicom_bytes, make_phantom, picture

INTERESTING = (0, 1, 2, 7, 8, 15, 16, 31, 32, 64, 100, 127, 128, 255)
MARKERS = (b"\xff\xfe\x00\xe0", b"\xff\xfe\xdd\xe0", b"\xff\xff\xff\xff", b"\x00" * 8, b"SQ\0\0")


def seeds() -> dict[str, bytes]:
    """One small valid file of each kind that the service reads."""
    phantom = make_phantom((64, 71), seed=6)
    grey = picture(phantom)
    plain = dicom_bytes(phantom, PixelPaddingValue=0)
    stored = (phantom.hu + 1024).astype(np.uint16)
    found = {
        "dicom": plain,
        "implicit": uncompressed(plain, uid.ImplicitVRLittleEndian),
        "deflated": uncompressed(plain, uid.DeflatedExplicitVRLittleEndian),
        "big endian": uncompressed(plain, uid.ExplicitVRBigEndian),
        "enhanced": enhanced(phantom),
        "rle": compressed(plain, uid.RLELossless),
        "jpeg-ls": compressed(plain, uid.JPEGLSLossless),
        "jpeg 2000": compressed(plain, uid.JPEG2000Lossless),
        "jpeg lossless": encapsulated(plain, jpeg_lossless.encode(stored, 12), uid.JPEGLosslessSV1),
    }
    for form in ("PNG", "JPEG", "TIFF", "BMP"):
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, form)
        found[form] = stream.getvalue()
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "TIFF", compression="tiff_adobe_deflate")
    found["deflated TIFF"] = stream.getvalue()
    form = {"tile": (16, 32), "compression": "lzw", "predictor": 3, "order": ">", "big": True}
    found["tiled TIFF"] = tiff(grey.astype(np.float32), **form)
    found["packed TIFF"] = tiff(grey.astype(np.uint16), bits=12, rows=5, photometric=0)
    stream = io.BytesIO()
    np.save(stream, grey)
    found["npy"] = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", plain)
        archive.writestr("b/c.npy", found["npy"])
    found["zip"] = stream.getvalue()
    return found


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """A few changes, most of them where headers are."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 6))):
        if not changed:
            break
        near = int(random.integers(1, len(changed) + 1)) if random.random() < 0.3 else 900
        place = int(random.integers(min(near, len(changed))))
        kind = int(random.integers(8))
        if kind <= 2:
            changed[place] = int(random.integers(256))
        elif kind == 3:
            changed[place] = int(random.choice(INTERESTING))
        elif kind == 4:
            del changed[place : place + int(random.integers(1, 40))]
        elif kind == 5:
            changed[place:place] = random.bytes(int(random.integers(1, 40)))
        elif kind == 6:
            marker = MARKERS[int(random.integers(len(MARKERS)))]
            changed[place : place + len(marker)] = marker
        else:
            del changed[int(random.integers(len(changed))) :]
    return bytes(changed)
