"""Limits of files in pieces: what has exactly as many is read, and one more is refused."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest

from lungseg.core.errors import ImageTooLarge, MultiFrame, UndecodableImage
from lungseg.formats.pieces import CountedStream, check_fragments, check_jpeg, check_png
from lungseg.formats.read import read_scan
from tests.formats.tiffs import page, tiff, tiff_pages

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(chunks: int, name: bytes = b"IDAT") -> bytes:
    return SIGNATURE + (struct.pack(">L", 1) + name + b"x" + b"crc ") * chunks


def fragments(count: int) -> bytes:
    return (b"\xfe\xff\x00\xe0" + struct.pack("<L", 2) + b"xx") * count


def jpeg(scans: int) -> bytes:
    return b"\xff\xd8" + b"\xff\xda\x00\x02" * scans


LIMITS: list[tuple[Callable[[bytes], None], Callable[[int], bytes], int, str]] = [
    (check_jpeg, jpeg, 100, "100 scans"),
    (check_png, png, 65_536, "65536 chunks"),
    *(
        (check_png, lambda count, name=name: png(count, name), 16, "16 compressed texts")
        for name in (b"zTXt", b"iTXt", b"iCCP")
    ),
    (check_fragments, fragments, 65_536, "65536 fragments"),
]


@pytest.mark.parametrize(("check", "made", "most", "named"), LIMITS)
def test_pieces_are_counted_to_their_limit(
    check: Callable[[bytes], None], made: Callable[[int], bytes], most: int, named: str
) -> None:
    check(made(most))
    with pytest.raises(UndecodableImage, match=named):
        check(made(most + 1))


def test_dicom_is_parsed_in_200000_reads() -> None:
    """Whatever each of them asks for."""
    stream = CountedStream(b"ab")
    assert stream.read(1) == b"a"
    for _ in range(199_999):
        stream.read(0)
    with pytest.raises(UndecodableImage, match="100000 elements"):
        stream.read(1)
    assert isinstance(stream, io.BytesIO)


def test_64_pages_of_a_tiff_are_looked_at() -> None:
    """Smaller copies; a picture behind them is none of the file's."""
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    copy = page(picture[::2, ::2]) | {254: 1}
    found = read_scan(tiff_pages([*[copy] * 63, page(picture)]))
    assert np.array_equal(found.values[0], picture)
    with pytest.raises(MultiFrame):
        read_scan(tiff_pages([*[copy] * 64, page(picture)]))


@pytest.mark.parametrize(
    ("size", "tile", "read"),
    [
        ((1, 1), (1024, 1024), True),
        ((1, 1), (1040, 1024), False),
        ((600, 600), (1200, 1200), True),
        ((600, 600), (1216, 1200), False),
    ],
)
def test_tiles_hold_at_most_four_times_the_picture(
    size: tuple[int, int], tile: tuple[int, int], read: bool
) -> None:
    """Or a million pixels, whatever the picture is."""
    content = tiff(np.full(size, 7, np.uint8), tile=tile)
    if read:
        assert read_scan(content).size == size
    else:
        with pytest.raises(ImageTooLarge, match="tiles of about"):
            read_scan(content)
