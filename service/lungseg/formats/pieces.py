"""Files in millions of pieces: each costs microseconds that no limit of bytes or pixels counts.

A picture of 4096 x 4096 pixels takes 20 ms for each scan of a progressive JPEG, and Python
microseconds for each chunk of a PNG or element of a DICOM file. What has far more of them than
any writer makes is refused, before or while they are counted.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from lungseg.core.errors import UndecodableImage

MAX_SCANS = 100
"""Of a JPEG. Encoders write ten, optimizing ones some dozens; libtiff has the same limit."""
MAX_CHUNKS = 1 << 16
"""Of a PNG: the largest slice in pieces of 512 bytes."""
MAX_PACKED_CHUNKS = 16
"""Compressed texts and colour profiles in a PNG, of which each may unpack to a megabyte."""
MAX_FRAGMENTS = 1 << 16
"""Of the one frame of a DICOM file: the largest slice in pieces of 512 bytes."""
MAX_READS = 200_000
"""Of the parser of DICOM, two for an element: objects of a thousand frames have fewer."""
_START_OF_SCAN = b"\xff\xda"
_PACKED = (b"zTXt", b"iTXt", b"iCCP")
_PNG_SIGNATURE_BYTES, _CHUNK_FRAME_BYTES, _ITEM_HEADER_BYTES = 8, 12, 8


def check_jpeg(content: bytes) -> None:
    """Refuses a JPEG of more scans than ``MAX_SCANS``.

    Within compressed data no such marker can stand (ITU-T T.81, B.1.1.5).
    """
    if content.count(_START_OF_SCAN) > MAX_SCANS:
        raise UndecodableImage(f"expected a JPEG of at most {MAX_SCANS} scans, received more")


def check_png(content: bytes) -> None:
    """Refuses a PNG of too many chunks, or of what would unpack to far more than its pixels."""
    bound = MAX_CHUNKS, "chunks in a PNG"
    packed = 0
    for place in _places(content, _PNG_SIGNATURE_BYTES, ">L", _CHUNK_FRAME_BYTES, bound):
        packed += content[place + 4 : place + 8] in _PACKED
        if packed > MAX_PACKED_CHUNKS:
            raise UndecodableImage(
                f"expected at most {MAX_PACKED_CHUNKS} compressed texts and profiles in a PNG"
            )


def check_fragments(encapsulated: bytes) -> None:
    """Refuses pixel data of DICOM in more items than ``MAX_FRAGMENTS``."""
    bound = MAX_FRAGMENTS, "fragments of a compressed frame"
    for _ in _places(encapsulated, 0, "<4xL", _ITEM_HEADER_BYTES, bound):
        pass


def _places(
    content: bytes, place: int, length: str, beside: int, bound: tuple[int, str]
) -> Iterator[int]:
    """Where pieces begin that say their lengths, and have so many bytes beside them."""
    most, name = bound
    form = struct.Struct(length)
    for _ in range(most):
        if place + beside > len(content):
            return
        yield place
        place += beside + form.unpack_from(content, place)[0]
    if place + beside <= len(content):
        raise UndecodableImage(f"expected at most {most} {name}, received more")


class CountedStream(io.BytesIO):
    """A file in memory for a parser that reads it element by element, so many times at most."""

    def __init__(self, content: bytes, max_reads: int = MAX_READS) -> None:
        super().__init__(content)
        self._most = self._left = max_reads

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file.

        Raises:
            UndecodableImage: there were more than allowed.
        """
        self._left -= 1
        if self._left < 0:
            raise UndecodableImage(
                f"expected a DICOM file of at most {self._most // 2} elements, received more"
            )
        return super().read(size)
