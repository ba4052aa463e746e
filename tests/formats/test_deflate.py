"""Unpacking gives back what was packed, and never much more than is wanted."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from lungseg.formats.deflate import unpack

WINDOWS = st.sampled_from([zlib.MAX_WBITS, 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS])
PIECE = 1 << 20


def pack(content: bytes, window_bits: int) -> bytes:
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(content) + packer.flush()


@given(content=st.binary(max_size=500), window_bits=WINDOWS, after=st.binary(max_size=9))
def test_what_was_packed_comes_back(content: bytes, window_bits: int, after: bytes) -> None:
    """Zlib, gzip and raw streams alike; a limit that is just met is kept, the rest is ignored."""
    packed = pack(content, window_bits)
    assert unpack(packed + after, window_bits, len(content)) == (content, True)


@given(size=st.integers(PIECE - 300, PIECE + 300), window_bits=WINDOWS)
def test_a_stream_that_ends_in_the_middle_of_a_match_is_whole(size: int, window_bits: int) -> None:
    """Zlib may have taken in every byte of a raw stream before it gives the last ones."""
    assert unpack(pack(bytes(size), window_bits), window_bits, size) == (bytes(size), True)


@given(data=st.data(), content=st.binary(max_size=500), window_bits=WINDOWS)
def test_a_part_of_a_stream_is_not_complete(
    data: st.DataObject, content: bytes, window_bits: int
) -> None:
    """Wherever it was cut."""
    packed = pack(content, window_bits)
    cut = data.draw(st.integers(0, len(packed) - 1))
    unpacked, complete = unpack(packed[:cut], window_bits, len(content))
    assert not complete
    assert content.startswith(unpacked)


@given(size=st.integers(1, 5 * PIECE), data=st.data())
def test_one_piece_beyond_the_limit_ends_it(size: int, data: st.DataObject) -> None:
    """More than the limit tells that there is too much, and it is little more."""
    limit = data.draw(st.integers(0, size - 1))
    unpacked, _ = unpack(pack(bytes(size), zlib.MAX_WBITS), zlib.MAX_WBITS, limit)
    assert limit < len(unpacked) <= limit + PIECE
