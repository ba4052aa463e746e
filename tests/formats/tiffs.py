"""TIFF files of any kind, written from the specification: the oracle of what is read."""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import Any

import numpy as np

COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773, "lzma": 34925}
FORMATS = {"u": 1, "i": 2, "f": 3}
_LITERALS = 250
"""LZW codes before the table is cleared again, while codes still have 9 bits."""


def tiff(
    array: np.ndarray,
    *,
    order: str = "<",
    bits: int | None = None,
    photometric: int = 1,
    compression: str = "none",
    predictor: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    separate: bool = False,
    big: bool = False,
    tags: dict[int, int | list[int] | bytes] | None = None,
) -> bytes:
    """One page; the array has shape (Y, X) or (Y, X, channels)."""
    return tiff_pages(
        [page(array, order, bits, compression, predictor, rows, tile, separate)
         | {262: photometric} | (tags or {})],
        order=order,
        big=big,
    )  # fmt: skip


def page(
    array: np.ndarray,
    order: str = "<",
    bits: int | None = None,
    compression: str = "none",
    predictor: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    separate: bool = False,
) -> dict[int, Any]:
    """The tags of a page; segments are bytes in a list under the tag of their offsets."""
    array = array.reshape(*array.shape[:2], -1)
    height, width, samples = array.shape
    bits = bits or array.dtype.itemsize * 8
    planes = np.moveaxis(array, 2, 0)[..., None] if separate else array[None]
    step = tile or (rows or height, width)
    segments = []
    for plane in planes:
        for top in range(0, height, step[0]):
            for left in range(0, width, step[1]):
                part = plane[top : top + step[0], left : left + step[1]]
                if tile:
                    missing = [(0, side - had) for side, had in zip(tile, part.shape, strict=False)]
                    part = np.pad(part, [*missing, (0, 0)])
                packed = _bytes(_predicted(part, predictor, bits), order, bits, predictor)
                segments.append(_compressed(packed, compression))
    tags: dict[int, Any] = {256: width, 257: height, 258: [bits] * samples, 277: samples}
    tags |= {259: COMPRESSIONS[compression], 317: predictor, 284: 2 if separate else 1}
    tags |= {339: [FORMATS[array.dtype.kind]] * samples}
    if tile:
        return tags | {322: tile[1], 323: tile[0], 324: segments}
    return tags | {278: step[0], 273: segments}


def tiff_pages(pages: list[dict[int, Any]], *, order: str = "<", big: bool = False) -> bytes:
    """A file of these pages, one behind the other."""
    size, count, offset = (8, "Q", "Q") if big else (4, "H", "I")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    body = bytearray(head + (struct.pack(f"{order}HH", 8, 0) if big else b""))
    link = len(body)
    body += bytes(size)
    for tags in pages:
        entries = b""
        for tag, value in _with_segments(body, tags):
            kind, values = (2, value) if isinstance(value, bytes) else (4, np.atleast_1d(value))
            stored = value if kind == 2 else values.astype(f"{order}u4").tobytes()
            entries += struct.pack(f"{order}HH{offset}", tag, kind, len(values))
            if len(stored) > size:
                entries += struct.pack(order + offset, len(body))
                body += stored
            else:
                entries += stored.ljust(size, b"\0")
        body[link : link + size] = struct.pack(order + offset, len(body))
        body += struct.pack(order + count, len(entries) // (20 if big else 12)) + entries
        link = len(body)
        body += bytes(size)
    return bytes(body)


def _with_segments(body: bytearray, tags: dict[int, Any]) -> list[tuple[int, Any]]:
    written = dict(tags)
    for tag, counts in ((273, 279), (324, 325)):
        segments = tags.get(tag)
        if isinstance(segments, list) and isinstance(segments[0], bytes):
            written[tag] = []
            written.setdefault(counts, [len(segment) for segment in segments])
            for segment in segments:
                written[tag].append(len(body))
                body += segment
    return sorted(written.items())


def _predicted(part: np.ndarray, predictor: int, bits: int) -> np.ndarray:
    if predictor != 2:
        return part
    whole = part.view(f"u{part.dtype.itemsize}")
    differences = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
    return differences & ((1 << bits) - 1) if bits < 16 else differences


def _bytes(part: np.ndarray, order: str, bits: int, predictor: int) -> bytes:
    if predictor == 3:
        planes = np.ascontiguousarray(part.astype(part.dtype.newbyteorder(">")))
        split = planes.view(np.uint8).reshape(len(part), -1, part.dtype.itemsize)
        rows = split.swapaxes(1, 2).reshape(len(part), -1, part.shape[2])
        return np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1])).tobytes()
    if bits == part.dtype.itemsize * 8:
        return part.astype(part.dtype.newbyteorder(order)).tobytes()
    every = part.reshape(len(part), -1, 1) >> np.arange(bits)[::-1] & 1
    return np.packbits(every.reshape(len(part), -1).astype(np.uint8), axis=1).tobytes()


def _compressed(packed: bytes, compression: str) -> bytes:
    if compression == "deflate":
        return zlib.compress(packed)
    if compression == "lzma":
        return lzma.compress(packed, preset=0)
    if compression == "packbits":
        pieces = (packed[start : start + 128] for start in range(0, len(packed), 128))
        return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    if compression == "lzw":
        codes: list[int] = []
        for start in range(0, len(packed), _LITERALS):
            codes += [256, *packed[start : start + _LITERALS]]
        return _nine_bits([*codes, 257])
    return packed


def _nine_bits(codes: list[int]) -> bytes:
    every = np.array(codes, np.uint16)[:, None] >> np.arange(9, dtype=np.uint16)[::-1] & 1
    return np.packbits(every.astype(np.uint8).ravel()).tobytes()
