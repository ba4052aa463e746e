"""Valid files of every kind, and what chance makes of them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from PIL import Image
from pydicom import uid

from tests.formats import jpeg_lossless
from tests.formats.dicoms import (
    HTJ2K_24_BY_16,
    compressed,
    encapsulated,
    enhanced,
    parse,
    save,
    uncompressed,
)
from tests.formats.tiffs import tiff
from training.synthetic.phantom import dicom_bytes, make_phantom, picture

INTERESTING = (0, 1, 2, 7, 8, 15, 16, 31, 32, 64, 100, 127, 128, 255)
ITEM, LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MARKERS = (b"\xff\xfe\x00\xe0", b"\xff\xfe\xdd\xe0", b"\xff\xff\xff\xff", b"\x00" * 8, b"SQ\0\0")


def seeds() -> dict[str, bytes]:
    """One small valid file of each kind that the service reads."""
    phantom = make_phantom((64, 71), seed=6)
    grey = picture(phantom)
    plain = dicom_bytes(phantom, PixelPaddingValue=0)
    found = {
        "dicom": plain,
        "implicit": uncompressed(plain, uid.ImplicitVRLittleEndian),
        "deflated": uncompressed(plain, uid.DeflatedExplicitVRLittleEndian),
        "big endian": uncompressed(plain, uid.ExplicitVRBigEndian),
        "enhanced": enhanced(phantom),
        "rle": compressed(plain, uid.RLELossless),
        **coded_seeds(),
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


def coded_seeds() -> dict[str, bytes]:
    """Those whose frame goes to a native decoder."""
    phantom = make_phantom((64, 71), seed=6)
    plain = dicom_bytes(phantom)
    stored = (phantom.hu + 1024).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray((stored >> 4).astype(np.uint8)).save(stream, "JPEG")
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    small = {"Rows": 16, "Columns": 24, "BitsStored": 16, "HighBit": 15}
    signed = {"PixelData": phantom.hu.astype("<i2").tobytes(), "PixelRepresentation": 1}
    full = dicom_bytes(phantom, **signed, BitsStored=16, HighBit=15, RescaleIntercept="0")
    return {
        "jpeg baseline": encapsulated(plain, stream.getvalue(), uid.JPEGBaseline8Bit, **eight),
        "jpeg extended": encapsulated(plain, stream.getvalue(), uid.JPEGExtended12Bit, **eight),
        "jpeg lossless": encapsulated(plain, jpeg_lossless.encode(stored, 12), uid.JPEGLosslessSV1),
        "jpeg of 16 bits": encapsulated(
            plain, jpeg_lossless.encode(stored, 16, 2), uid.JPEGLossless
        ),
        "jpeg-ls": compressed(plain, uid.JPEGLSLossless),
        "jpeg-ls, signed": compressed(full, uid.JPEGLSLossless),
        "jpeg-ls, near": _lossy(plain, uid.JPEGLSNearLossless, jls_error=3),
        "jpeg 2000": compressed(plain, uid.JPEG2000Lossless),
        "jpeg 2000, lossy": _lossy(full, uid.JPEG2000, j2k_cr=[4]),
        "htj2k": encapsulated(plain, HTJ2K_24_BY_16, "1.2.840.10008.1.2.4.201", **small),
        "htj2k, lossy": encapsulated(plain, HTJ2K_24_BY_16, "1.2.840.10008.1.2.4.203", **small),
    }


def _lossy(content: bytes, syntax: str, **options: object) -> bytes:
    dataset = parse(content)
    dataset.compress(syntax, generate_instance_uid=False, **options)
    return save(dataset)


def mutate_frame(content: bytes, random: np.random.Generator) -> bytes:
    """A file whose only compressed frame has a few changes, inside a sound header."""
    start, end = content.rindex(ITEM), content.rindex(LAST_ITEM)
    frame = mutate(content[start + 8 : end], random)
    frame += b"\0" * (len(frame) % 2)
    return content[:start] + ITEM + len(frame).to_bytes(4, "little") + frame + content[end:]


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
