"""Sizes of compressed data, found without holding what comes out."""

from __future__ import annotations

import zlib

_PIECE_BYTES = 1 << 20


def inflated_size(packed: bytes, window_bits: int, limit: int) -> tuple[int, bool]:
    """Unpacks piece by piece and counts.

    Args:
        packed: a zlib, gzip or raw deflate stream.
        window_bits: says which, see ``zlib.decompressobj``.
        limit: counting stops once there are more bytes.

    Returns:
        The bytes counted, and whether the stream is complete.

    Raises:
        zlib.error: it is damaged.
    """
    stream = zlib.decompressobj(window_bits)
    size, rest = 0, packed
    while rest and not stream.eof and size <= limit:
        size += len(stream.decompress(rest, _PIECE_BYTES))
        rest = stream.unconsumed_tail
    return size, stream.eof
