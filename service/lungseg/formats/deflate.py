"""Unpacking that ends at a limit."""

from __future__ import annotations

import io
import zlib

_PIECE_BYTES = 1 << 20


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
    stream, rest = zlib.decompressobj(window_bits), packed
    unpacked = io.BytesIO()  # grows in place and hands its bytes over uncopied
    while not stream.eof and unpacked.tell() <= limit:
        piece = stream.decompress(rest, _PIECE_BYTES)
        rest = stream.unconsumed_tail
        if not piece and not rest:  # only now: what was taken in may not be out yet
            break
        unpacked.write(piece)
    return unpacked.getvalue(), stream.eof
