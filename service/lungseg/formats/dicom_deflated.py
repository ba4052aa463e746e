"""Deflated DICOM files (PS3.5 A.5), which are packed as a whole but for their meta header."""

from __future__ import annotations

import zlib

from pydicom import uid

from lungseg.core.errors import ImageTooLarge, UndecodableImage
from lungseg.formats.deflate import unpack

MAX_HEADER_BYTES = 8 << 20
"""Room for everything but the pixels in a deflated file."""
_TRANSFER_SYNTAX = b"\x02\x00\x10\x00UI"


def inflate(content: bytes, max_pixels: int) -> bytes:
    """A deflated file (PS3.5 A.5) as an explicit one; any other file as it is.

    Raises:
        ImageTooLarge: more would come out than the largest accepted image needs.
        UndecodableImage: the compressed part is damaged.
    """
    meta_end, value = _syntax_of_file(content)
    if not is_deflated(content):
        return content
    body = _unpacked(content[meta_end:], MAX_HEADER_BYTES + 4 * max_pixels)
    explicit = uid.ExplicitVRLittleEndian.encode().ljust(value.stop - value.start, b"\0")
    return content[: value.start] + explicit + content[value.stop : meta_end] + body


def is_deflated(content: bytes) -> bool:
    """Whether all of a file but its meta header is deflated; its beginning tells."""
    _, value = _syntax_of_file(content)
    return content[value].rstrip(b"\0 ") == uid.DeflatedExplicitVRLittleEndian.encode()


def _syntax_of_file(content: bytes) -> tuple[int, slice]:
    """Where the meta header ends, and where in it the transfer syntax stands; nowhere if not."""
    meta_end = 144 + int.from_bytes(content[140:144], "little")
    place = content.find(_TRANSFER_SYNTAX, 132, meta_end)
    if content[128:136] != b"DICM\x02\x00\x00\x00" or place < 0:
        return meta_end, slice(0)
    length = int.from_bytes(content[place + 6 : place + 8], "little")
    return meta_end, slice(place + 8, place + 8 + length)


def _unpacked(deflated: bytes, limit: int) -> bytes:
    try:
        unpacked, complete = unpack(deflated, -zlib.MAX_WBITS, limit)
    except zlib.error:
        raise UndecodableImage("the deflated part of the DICOM file is damaged") from None
    if len(unpacked) > limit:
        raise ImageTooLarge("expected a smaller image, its deflated part unpacks to more")
    if not complete:
        raise UndecodableImage("the deflated part of the DICOM file is truncated")
    return unpacked
