"""Finds external data in an ONNX file without the onnx package.

A tensor may say that its values lie in another file, whose path the model chooses
(CVE-2022-25882, CVE-2024-27318). Bundles never need that, so it is refused. The file is a
protocol buffer; only the few fields on the way to tensors are followed, and values are skipped.
Field numbers: onnx.proto of ONNX 1.23.
"""

from __future__ import annotations

from collections.abc import Iterator

from lungseg.inference.errors import BundleError

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 64


def refuse_external_data(content: bytes) -> None:
    """Checks that every tensor's values lie in the file itself.

    Raises:
        BundleError: some lie elsewhere, or the bytes are no protocol buffer.
    """
    _walk(memoryview(content), "model", 0)


def _walk(message: memoryview, kind: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BundleError("expected an ONNX graph, received one nested beyond reason")
    for field, value in _fields(message):
        if kind == "tensor":
            if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                raise BundleError("expected a self-contained ONNX file, received external data")
        elif (child := _CHILDREN[kind].get(field)) and isinstance(value, memoryview):
            _walk(value, child, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Field numbers and values of one message; fixed-width values are given as 0."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire_type = tag & 7
        value: memoryview | int = 0
        if wire_type == 0:
            value, position = _varint(message, position)
        elif wire_type == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise BundleError("expected an ONNX file, received other bytes")
        if position > len(message):
            raise BundleError("expected a whole ONNX file, received a truncated one")
        yield tag >> 3, value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise BundleError("expected a whole ONNX file, received a truncated one")
