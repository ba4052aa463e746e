"""Bytes of a file in their order, as they are or packed: read piece by piece within limits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from lungseg.core.errors import UndecodableImage
from lungseg.formats.deflate import pieces

GZIP_SIGNATURE = b"\x1f\x8b"
GZIP, ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
"""Kinds of packed streams, as zlib counts them."""
MAX_MEMBERS = 16384
"""Gzip streams one behind the other, as writers of blocks make them."""
MAX_DEFLATE_RATIO = 1032
"""No deflated byte unpacks to more."""
_SKIPPED_BYTES = 1 << 20
_LEFT_BYTES = 1 << 16
"""What may follow a file's values within a packed stream, and is read for the checksum's sake."""


class Source:
    """What a file holds, from its beginning on; what nobody asks for is never unpacked."""

    def __init__(self, content: bytes | memoryview, packed_as: int | None = None) -> None:
        """Reads plain bytes, or those of a packed stream.

        Args:
            content: the bytes.
            packed_as: ``GZIP``, ``ZLIB``, or None for bytes that are not packed.
        """
        plain = memoryview(content)
        self._waiting = plain if packed_as is None else memoryview(b"")
        self._packed_bytes = 0 if packed_as is None else len(plain)
        self._pieces = iter(()) if packed_as is None else _unpacked(plain, packed_as)

    @classmethod
    def of(cls, content: bytes | memoryview) -> Source:
        """A file, unpacked where it is gzip."""
        return cls(content, GZIP if bytes(content[:2]) == GZIP_SIGNATURE else None)

    def head(self, count: int) -> bytes:
        """The next bytes, which stay where they are; fewer where there are no more.

        Raises:
            UndecodableImage: what is packed is damaged.
        """
        if len(self._waiting) < count:
            got = bytearray(self._waiting)
            while len(got) < count and (piece := next(self._pieces, None)):
                got += piece
            self._waiting = memoryview(got)
        return bytes(self._waiting[:count])

    def take(self, count: int) -> memoryview:
        """The next bytes, without a copy where they are not packed.

        Raises:
            UndecodableImage: there are not so many, or what is packed is damaged.
        """
        if len(self._waiting) >= count:
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            return taken
        taken, place = memoryview(bytearray(count)), 0
        while place < count:
            self._waiting = self._waiting or memoryview(next(self._pieces, b""))
            if not self._waiting:
                raise UndecodableImage("expected more values than the file holds: it is truncated")
            given = self._waiting[: count - place]
            taken[place : place + len(given)] = given
            self._waiting, place = self._waiting[len(given) :], place + len(given)
        return taken

    def skip(self, count: int) -> None:
        """Passes over bytes; see ``take``."""
        while count > 0:
            count -= len(self.take(min(count, _SKIPPED_BYTES)))

    def unpacked(self, packed_as: int) -> Source:
        """What follows, read as a packed stream.

        Raises:
            UndecodableImage: the file as a whole is packed already.
        """
        if self._packed_bytes:
            raise UndecodableImage("expected values that are packed once, received them twice")
        return Source(self._waiting, packed_as)

    def check_room(self, count: int) -> None:
        """Refuses so many bytes where there cannot be as many, before room is made for them.

        Raises:
            UndecodableImage: the file is too short.
        """
        if count > len(self._waiting) + MAX_DEFLATE_RATIO * self._packed_bytes:
            raise UndecodableImage("expected more values than the file can hold: it is truncated")

    def check_end(self) -> None:
        """Makes sure that a packed stream is whole up to its checksum, if little is left of it.

        Raises:
            UndecodableImage: it is damaged.
        """
        self.head(_LEFT_BYTES)


def _unpacked(packed: memoryview, packed_as: int) -> Iterator[bytes]:
    """What comes out of one stream, and of further gzip streams behind it."""
    for _ in range(MAX_MEMBERS):
        try:
            end = yield from pieces(packed, packed_as)
        except zlib.error:
            raise UndecodableImage("expected a packed file, received a damaged one") from None
        if end is None:
            raise UndecodableImage("expected a packed file, received a part of one")
        packed = packed[end:]
        if packed_as != GZIP or bytes(packed[:2]) != GZIP_SIGNATURE:
            return
    raise UndecodableImage(f"expected at most {MAX_MEMBERS} gzip streams in a file, received more")
