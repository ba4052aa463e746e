"""A small encoder of JPEG Lossless (ITU-T T.81 annex H): no library that we may use writes it."""

from __future__ import annotations

import struct

import numpy as np

_LENGTHS = [0, 0, 0, 15, 2]
"""Codes per length: fifteen of 4 bits and two of 5 serve all seventeen categories."""
_VALUES = [*range(17)]


def encode(pixels: np.ndarray, precision: int, predictor: int = 1) -> bytes:
    """Lossless JPEG of one component.

    Args:
        pixels: unsigned, shape (Y, X).
        precision: bits of a sample.
        predictor: 1 = left neighbour, 2 = the one above.
    """
    height, width = pixels.shape
    samples = pixels.astype(np.int64)
    left = np.roll(samples, 1, axis=1)
    above = np.roll(samples, 1, axis=0)
    predicted = left if predictor == 1 else above
    predicted[0, 1:] = left[0, 1:]
    predicted[1:, 0] = above[1:, 0]
    predicted[0, 0] = 1 << (precision - 1)
    difference = ((samples - predicted + 32768) % 65536 - 32768).ravel()
    bits = "".join(_code(int(value)) for value in difference)
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    lengths = bytes(_LENGTHS + [0] * (16 - len(_LENGTHS)))
    table = _segment(0xC4, b"\x00" + lengths + bytes(_VALUES))
    frame = _segment(0xC3, struct.pack(">BHHB", precision, height, width, 1) + b"\x01\x11\x00")
    start = _segment(0xDA, b"\x01\x01\x00" + bytes([predictor, 0, 0]))
    return b"\xff\xd8" + frame + table + start + scan + b"\xff\xd9"


def _code(difference: int) -> str:
    category = abs(difference).bit_length()
    code = f"{category:04b}" if category < 15 else f"{30 + category - 15:05b}"
    if category in (0, 16):
        return code
    rest = difference if difference > 0 else difference + (1 << category) - 1
    return code + f"{rest:0{category}b}"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
