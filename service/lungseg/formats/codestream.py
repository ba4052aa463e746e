"""What a compressed frame says of itself before any decoder sees it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from lungseg.core.errors import UndecodableImage

_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS_MARKER = b"\xff\xda"
_SOS, _SOF55 = 0xDA, 0xF7
_NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers among SOF0 to SOF15 that begin no frame (ITU-T T.81, table B.1)."""
_BOXES = 4096
"""Bytes before a JPEG 2000 codestream in which boxes of the file format may stand."""


class Announced(NamedTuple):
    """Size and samples of a JPEG, JPEG-LS or JPEG 2000 stream by its own header."""

    rows: int
    columns: int
    samples: int
    precision: int
    """Bits of a sample."""
    signed: bool
    """JPEG 2000 alone knows signed samples."""

    @property
    def sample_bytes(self) -> int:
        """Bytes that hold a sample."""
        return container_bytes(self.precision)


def container_bytes(bits: int) -> int:
    """1, 2 or 4: the bytes of the smallest integer that holds so many bits."""
    return 1 if bits <= 8 else 2 if bits <= 16 else 4


def announced(frame: bytes) -> Announced:
    """Reads the image header inside a compressed frame.

    Raises:
        UndecodableImage: there is none, there are several, or a JPEG-LS stream has no end. Which
            header of several holds is a decoder's guess, and without an end CharLS runs on.
        struct.error: it ends within its header.
    """
    if not frame.startswith(_SOI):
        return _of_jpeg_2000(frame)
    found = _frame_headers(frame)
    if len(found) != 1:
        raise UndecodableImage(f"expected one frame header in the JPEG, received {len(found)}")
    marker, place = found[0]
    # Within compressed data neither marker can stand; a comment before it may hold an end.
    if marker == _SOF55 and frame.rfind(_EOI) < frame.rfind(_SOS_MARKER):
        raise UndecodableImage("expected a JPEG-LS stream with its end, received a part of one")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, place + 4)
    return Announced(rows, columns, samples, precision, signed=False)


def _frame_headers(frame: bytes) -> list[tuple[int, int]]:
    """Marker and place of each frame header before the first scan."""
    found: list[tuple[int, int]] = []
    place = len(_SOI)
    while place + 4 <= len(frame) and frame[place] == 0xFF and frame[place + 1] != _SOS:
        marker = frame[place + 1]
        if marker == _SOF55 or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            found.append((marker, place))
        fill = marker == 0xFF  # any marker may be preceded by fill bytes
        place += 1 if fill else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return found


def _of_jpeg_2000(frame: bytes) -> Announced:
    place = frame.find(_SOC_SIZ, 0, _BOXES)
    if place < 0:
        raise UndecodableImage("expected a JPEG, JPEG-LS or JPEG 2000 stream, received another")
    right, bottom, left, top = struct.unpack_from(">4L", frame, place + 8)
    samples, depth = struct.unpack_from(">HB", frame, place + 40)
    precision, signed = (depth & 0x7F) + 1, depth >= 0x80
    return Announced(bottom - top, right - left, samples, precision, signed)
