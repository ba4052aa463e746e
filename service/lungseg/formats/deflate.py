"""Unpacking that ends at a limit, in one pass, however often a stream is followed by another."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Generator

_PIECE_BYTES = 1 << 20
_FEED_BYTES = 1 << 16
"""Given to zlib at a time: what it does not use at once, it copies."""


def unpack(packed: bytes, window_bits: int, limit: int) -> tuple[bytes, bool]:
    """Unpacks piece by piece, in one pass, until there is too much.

    Args:
        packed: a zlib, gzip or raw deflate stream; what follows its end is ignored.
        window_bits: says which, see ``zlib.decompressobj``.
        limit: most bytes that are wanted.

    Returns:
        What came out, longer than the limit where more would come, and whether the stream
        is complete.

    Raises:
        zlib.error: it is damaged.
    """
    unpacked = io.BytesIO()  # grows in place and hands its bytes over uncopied
    end = unpack_into(unpacked, memoryview(packed), window_bits, limit)
    return unpacked.getvalue(), end is not None


def unpack_into(
    unpacked: io.BytesIO,
    packed: memoryview,
    window_bits: int,
    limit: int,
    on_piece: Callable[[int], object] = lambda _size: None,
) -> int | None:
    """Unpacks one stream behind what was unpacked before.

    Args:
        unpacked: what came out before, and where this comes to.
        packed: the stream, and perhaps more.
        window_bits: its kind, as for ``unpack``.
        limit: most bytes that are wanted in ``unpacked``.
        on_piece: hears the size of each piece before it is kept.

    Returns:
        Where the stream ends in ``packed``, None where it is not complete or too much came out.

    Raises:
        zlib.error: it is damaged.
    """
    coming = pieces(packed, window_bits)
    while unpacked.tell() <= limit:
        try:
            piece = next(coming)
        except StopIteration as ended:
            return ended.value
        on_piece(len(piece))
        unpacked.write(piece)
    return None


def pieces(packed: memoryview, window_bits: int) -> Generator[bytes, None, int | None]:
    """Gives what comes out of one stream, and returns where it ends, None where it is cut.

    Raises:
        zlib.error: it is damaged.
    """
    stream, place, waiting = zlib.decompressobj(window_bits), 0, b""
    while not stream.eof:
        given = waiting or packed[place : place + _FEED_BYTES]
        place += 0 if waiting else len(given)
        piece = stream.decompress(given, _PIECE_BYTES)
        waiting = stream.unconsumed_tail
        if piece:
            yield piece
        elif not given:  # only now: what was taken in may not be out yet
            return None
    return place - len(stream.unused_data)
