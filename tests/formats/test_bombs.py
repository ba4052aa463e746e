"""Small files that would unpack to far more: refused within 64 MB of extra memory."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from tests.formats.dicoms import compressed, encapsulated, parse, save, uncompressed
from training.synthetic.phantom import dicom_bytes, make_phantom

EXTRA_MB = 80
"""A body of 64 MiB is held while it is unpacked; what goes beyond ends it."""
SMALL = make_phantom((64, 64), seed=1)
WORKER = """
import json, resource, sys, time
from lungseg.core.errors import LungsegError
from lungseg.formats.read import read_scan
from lungseg.formats.archive import ArchiveLimits, open_archive
from lungseg.web.body import unpacked_body
kind, warm, bomb = sys.argv[1], open(sys.argv[2], "rb").read(), open(sys.argv[3], "rb").read()
MIB = 1 << 20
def attempt(content):
    if kind == "zip":
        limits = ArchiveLimits(max_items=64, max_item_bytes=64 * MIB, max_total_bytes=256 * MIB)
        return [member.read() for member in open_archive(content, limits)]
    if kind == "gzip":
        return unpacked_body(content, "gzip", 64 * MIB)
    return read_scan(content)
attempt(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
try:
    attempt(bomb)
    code = "accepted"
except LungsegError as error:
    code = error.code
spent = time.process_time() - begun
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"code": code, "extra_mb": (after - before) / 1024, "s": spent}))
"""


def png_bomb() -> bytes:
    """Announces 64 x 64 and holds 200 MB, then tells as much in texts."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    pixels = chunk(b"IDAT", zeros(200_000_000))
    return b"\x89PNG\r\n\x1a\n" + header + text * 100 + pixels + chunk(b"IEND", b"")


def zeros(size: int, window: int = zlib.MAX_WBITS) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    packed = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(packed) + packer.flush()


def tiff_bomb() -> bytes:
    """A picture of 64 x 64 within one tile of 65520 x 65520."""
    stream = io.BytesIO()
    tile = zeros(200_000_000)
    tags = [
        (256, 4, 64),
        (257, 4, 64),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (277, 3, 1),
        (322, 4, 65520),
        (323, 4, 65520),
        (324, 4, 8),
        (325, 4, len(tile)),
    ]
    stream.write(b"II*\0" + struct.pack("<I", 8 + len(tile)) + tile)
    stream.write(struct.pack("<H", len(tags)))
    for tag, kind, value in tags:
        stream.write(struct.pack("<HHII", tag, kind, 1, value))
    stream.write(b"\0\0\0\0")
    return stream.getvalue()


def tiff_header_bomb() -> bytes:
    stream = io.BytesIO()
    blank = Image.fromarray(np.zeros((9000, 9000), np.uint8))
    blank.save(stream, "TIFF", compression="tiff_adobe_deflate")
    return stream.getvalue()


def jpeg2000_bomb() -> bytes:
    """A codestream that announces 30000 x 30000 in a file that announces 64 x 64."""
    plain = dicom_bytes(SMALL)
    stream = io.BytesIO()
    picture = Image.fromarray(np.zeros((64, 64), np.uint8))
    picture.save(stream, "JPEG2000", no_jp2=True)
    frame = bytearray(stream.getvalue())
    struct.pack_into(">2L", frame, 8, 30000, 30000)
    return encapsulated(plain, bytes(frame), uid.JPEG2000Lossless)


def deflated_bomb() -> bytes:
    whole = uncompressed(dicom_bytes(SMALL), uid.DeflatedExplicitVRLittleEndian)
    end = 144 + int.from_bytes(whole[140:144], "little")
    return whole[:end] + zeros(200_000_000, -zlib.MAX_WBITS)


def rle_bomb() -> bytes:
    segment = b"\x81\x00" * 4_000_000
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    return encapsulated(dicom_bytes(SMALL), header + segment * 2, uid.RLELossless)


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("slice.dcm", bytes(200_000_000))
    return stream.getvalue()


def lying_zip_bomb() -> bytes:
    """Its directory says that 200 MB are a kilobyte."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slice.dcm", bytes(200_000_000))
    size = struct.pack("<I", 200_000_000)
    return stream.getvalue().replace(size, struct.pack("<I", 1000))


def zip_of_many_entries() -> bytes:
    """A directory that lists one hidden file 300 000 times."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(".a", b"")
    whole = stream.getvalue()
    begin, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    directory = whole[begin:end] * 300_000
    tail = bytearray(whole[end:])
    struct.pack_into("<L", tail, 12, len(directory))
    return whole[:begin] + directory + bytes(tail)


def plain_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slice.dcm", dicom_bytes(SMALL))
    return stream.getvalue()


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(stream, "PNG")
    return stream.getvalue()


def tiff() -> bytes:
    stream = io.BytesIO()
    blank = Image.fromarray(np.zeros((64, 64), np.uint8))
    blank.save(stream, "TIFF", compression="tiff_adobe_deflate")
    return stream.getvalue()


def of(syntax: str) -> Callable[[], bytes]:
    return lambda: compressed(dicom_bytes(SMALL), syntax)


def deflated() -> bytes:
    return uncompressed(dicom_bytes(SMALL), uid.DeflatedExplicitVRLittleEndian)


def huge_rows() -> bytes:
    dataset = parse(dicom_bytes(SMALL))
    dataset.Rows = dataset.Columns = 65535
    return save(dataset)


def chunk(name: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + crc


def png_of_chunks(one: bytes, count: int) -> bytes:
    """As many chunks before the pixels."""
    return png()[:33] + one * count + png()[33:]


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4096, 4096), 128).save(stream, "JPEG", progressive=True)
    return stream.getvalue()


def jpeg_of_scans() -> bytes:
    """Its last scan comes again 5000 times: each goes through all pixels."""
    whole = jpeg()
    return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * 5000 + whole[-2:]


def dicom() -> bytes:
    return dicom_bytes(SMALL)


def dicom_of(element: bytes, count: int = 1) -> bytes:
    """With so many more elements in front of the pixels."""
    place = dicom().find(b"\xe0\x7f\x10\x00")
    return dicom()[:place] + element * count + dicom()[place:]


def items(length: int) -> bytes:
    """Half a million empty frames in a sequence that says its length, or none (0xFFFFFFFF)."""
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 500_000
    begin = b"\x00\x52\x29\x92SQ\0\0" + struct.pack("<L", length or len(items))
    return begin + items + (b"\xfe\xff\xdd\xe0\0\0\0\0" if length else b"")


def dicom_of_fragments() -> bytes:
    dataset = parse(encapsulated(dicom(), b"\xff\xd8\xff", uid.JPEGLSLossless))
    dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" * 4_000_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return save(dataset)


def bigtiff_of_tags() -> bytes:
    """Two million tags, read again and again by a chain of pages that begin within them."""
    count = 2_000_000 | 45 << 16  # as the first bytes of an entry: a tag of an unknown type
    entry = struct.pack("<QQ4x", count, 0)
    following = b"".join(struct.pack("<QQ4x", 24 + 20 * page, 0) for page in range(1, 64))
    header = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    return header + entry * count + following


BOMBS: dict[str, tuple[str, Callable[[], bytes], Callable[[], bytes], set[str]]] = {
    "png": ("read", png, png_bomb, {"undecodable_image", "image_too_large"}),
    "tiff tile": ("read", tiff, tiff_bomb, {"image_too_large"}),
    "tiff header": ("read", tiff, tiff_header_bomb, {"image_too_large"}),
    "jpeg 2000": ("read", of(uid.JPEG2000Lossless), jpeg2000_bomb, {"undecodable_image"}),
    "deflated dicom": ("read", deflated, deflated_bomb, {"image_too_large"}),
    "dicom header": ("read", deflated, huge_rows, {"image_too_large"}),
    # PackBits stops at Rows x Columns: what lies behind is never unpacked
    "rle dicom": ("read", of(uid.RLELossless), rle_bomb, {"accepted"}),
    "png of profiles": (
        "read",
        png,
        lambda: png_of_chunks(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1 << 19))), 9000),
        {"undecodable_image"},
    ),
    "png of chunks": (
        "read",
        png,
        lambda: png_of_chunks(chunk(b"tEXt", b"k\0v"), 1_000_000),
        {"undecodable_image"},
    ),
    "jpeg of scans": ("read", jpeg, jpeg_of_scans, {"undecodable_image"}),
    "tiff of tags": ("read", tiff, bigtiff_of_tags, {"undecodable_image"}),
    "dicom of fragments": ("read", dicom, dicom_of_fragments, {"undecodable_image"}),
    "dicom of elements": (
        "read",
        dicom,
        lambda: dicom_of(b"\x10\x00\x10\x10SH\0\0", 1_000_000),
        {"undecodable_image"},
    ),
    "dicom of items": (
        "read",
        dicom,
        lambda: dicom_of(items(0xFFFFFFFF)),
        {"undecodable_image"},
    ),
    "dicom of long items": ("read", dicom, lambda: dicom_of(items(0)), {"undecodable_image"}),
    "dicom of numbers": (
        "read",
        dicom,
        lambda: dicom_of(
            b"\x20\x00\x37\x00UN\0\0" + struct.pack("<L", 30_000_000) + b"1\\" * 15_000_000
        ),
        {"undecodable_image"},
    ),
    "zip": ("zip", plain_zip, zip_bomb, {"body_too_large"}),
    "zip directory": ("zip", plain_zip, zip_of_many_entries, {"too_many_items"}),
    "lying zip": ("zip", plain_zip, lying_zip_bomb, {"undecodable_image"}),
    "gzip": (
        "gzip",
        lambda: gzip.compress(png()),
        lambda: zeros(200_000_000, 31),
        {"body_too_large"},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_within_bounds(name: str, tmp_path: Path) -> None:
    kind, warm, bomb, codes = BOMBS[name]
    (tmp_path / "warm").write_bytes(warm())
    (tmp_path / "bomb").write_bytes(bomb())
    arguments = [kind, str(tmp_path / "warm"), str(tmp_path / "bomb")]
    finished = subprocess.run(
        [sys.executable, "-c", WORKER, *arguments], capture_output=True, check=True, text=True
    )
    found = json.loads(finished.stdout)
    assert found["code"] in codes
    assert found["extra_mb"] < EXTRA_MB
    assert found["s"] < 2
