"""Tensors of the Open Inference Protocol v2: JSON, and the binary tensor extension.

A binary request is the JSON part, whose length a header tells, and the raw little-endian
row-major tensors in the order of the inputs. An element of BYTES is a uint32 length and so
many bytes; in JSON it is base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from lungseg.core.errors import InvalidParameter, MalformedRequest, TooManyItems
from lungseg.core.types import FloatArray
from lungseg.web.json_object import as_object, loaded

HEADER_LENGTH = "Inference-Header-Content-Length"
READING = ("unit", "window_hu", "spacing_mm", "allow_non_ct")
"""Parameters of a request that ``/segment`` has, too, and that decide what the network sees."""
_LENGTH = re.compile(r"[0-9]{1,15}")
_SPARE = 1000
"""Commas and quotation marks in JSON, besides those of the tensors' values."""
_PIECES = 64
"""Numbers become arrays in so many turns, between which other threads go on."""
_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """One request.

    Attributes:
        id: echoed, None when there is none.
        images: FP32 tensor of shape (N, height, width, 1), or N encoded images.
        reading: how encoded images are to be read, of the parameters in ``READING``.
        binary_output: whether the output is wanted as raw bytes.
    """

    id: str | None
    images: FloatArray | list[bytes]
    reading: dict[str, Any]
    binary_output: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the model has, and how much of it may come.

    Attributes:
        input_name: of its input.
        output_name: of its output.
        max_items: most images in one request.
        values: most numbers that so many images have.
    """

    input_name: str
    output_name: str
    max_items: int
    values: int


def parse(body: bytes, header_length: str, expected: Expected) -> InferRequest:
    """Reads a request: JSON of ``header_length`` bytes (empty = all), perhaps tensors behind it.

    Raises:
        MalformedRequest: it is not of the protocol's form.
        TooManyItems: its JSON has far more values than the model takes, counted before any is made.
        InvalidParameter: a name, shape or datatype is not the model's.
    """
    split = len(body)
    if header_length:
        # Python's own rules take other digits, and refuse to read too many.
        split = int(header_length) if _LENGTH.fullmatch(header_length) else split + 1
    if split > len(body):
        raise MalformedRequest(f"expected {HEADER_LENGTH} within the body")
    if body.count(b",", 0, split) > expected.values + _SPARE:
        raise TooManyItems(f"expected at most {expected.values} values in JSON, received more")
    if body.count(b'"', 0, split) > 2 * expected.max_items + _SPARE:
        raise TooManyItems(f"expected at most {expected.max_items} texts in JSON, received more")
    document = loaded(body[:split], "request")
    tensor = as_object(only(document.get("inputs"), "expected one input"), "input")
    if tensor.get("name") != expected.input_name:
        raise InvalidParameter(f"expected an input named {expected.input_name}, received another")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise MalformedRequest("expected id as a string")
    own = parameters_of(document)
    return InferRequest(
        id=request_id,
        images=_images(tensor, body[split:], expected.max_items),
        reading={name: own[name] for name in READING if name in own},
        binary_output=_wants_binary(document, expected.output_name),
    )


def render(
    request: InferRequest, head: dict[str, Any], output_name: str, mask: FloatArray
) -> tuple[bytes, str]:
    """Writes a response: the body, and the length of its JSON part, empty when that is all.

    Args:
        request: what is answered.
        head: ``model_name`` and ``model_version``.
        output_name: of the tensor.
        mask: float32, shape (N, height, width, 1).
    """
    if request.id is not None:
        head = {**head, "id": request.id}
    output: dict[str, Any] = {"name": output_name, "shape": list(mask.shape), "datatype": "FP32"}
    if not request.binary_output:
        # Image by image: all at once would keep other threads waiting for seconds.
        data = ", ".join(json.dumps(image.ravel().tolist())[1:-1] for image in mask)
        text = json.dumps({**head, "outputs": [output]}).removesuffix("}]}")
        return f'{text}, "data": [{data}]}}]}}'.encode(), ""
    raw = mask.astype(_FLOAT32, copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({**head, "outputs": [output]}).encode()
    return text + raw, str(len(text))


def _images(tensor: dict[str, Any], binary: bytes, max_items: int) -> FloatArray | list[bytes]:
    parameters = parameters_of(tensor)
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidParameter("shared memory is not supported")
    shape: Any = tensor.get("shape")
    if not isinstance(shape, list) or not all(
        type(size) is int and 0 < size < 2**31 for size in shape
    ):
        raise InvalidParameter("expected shape as a list of positive integers")
    if not shape or shape[0] > max_items:
        raise InvalidParameter(f"expected from 1 to {max_items} images in a request")
    announced = parameters.get("binary_data_size")
    if announced is None:
        data: Any = tensor.get("data")
        if data is None or len(binary):
            raise MalformedRequest("expected data, or binary_data_size and as many bytes")
    elif announced != len(binary):
        raise MalformedRequest("expected as many bytes as binary_data_size says")
    else:
        data = binary
    datatype = tensor.get("datatype")
    if datatype == "FP32":
        return _floats(data, shape)
    if datatype == "BYTES" and len(shape) == 1:
        return _encoded(data, shape[0])
    raise InvalidParameter("expected datatype FP32, or BYTES of shape [N] with encoded images")


def _floats(data: Any, shape: list[int]) -> FloatArray:
    try:
        if isinstance(data, bytes):
            values = np.frombuffer(data, _FLOAT32).reshape(shape)
        else:
            with np.errstate(over="ignore"):  # becomes infinite, which is refused below
                values = _array(data).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        raise InvalidParameter("expected as many FP32 values as the shape says") from None
    if not np.isfinite(values).all():
        raise InvalidParameter("expected finite values, received NaN or infinity")
    return values.astype(np.float32, copy=False)


def _array(data: Any) -> FloatArray:
    if not isinstance(data, list) or not data:
        return np.asarray(data, np.float32)
    items: list[Any] = data
    step = max(1, len(items) // _PIECES)
    pieces = (items[at : at + step] for at in range(0, len(items), step))
    return np.concatenate([np.asarray(piece, np.float32) for piece in pieces])


def _encoded(data: Any, count: int) -> list[bytes]:
    if isinstance(data, bytes):
        return _elements(data, count)
    if not isinstance(data, list) or len(data) != count:
        raise InvalidParameter(f"expected {count} BYTES elements in a list")
    try:
        return [base64.b64decode(item, validate=True) for item in data]
    except (TypeError, ValueError, binascii.Error):
        raise InvalidParameter("expected BYTES in JSON as base64 strings") from None


def _elements(data: bytes, count: int) -> list[bytes]:
    """As many elements as were announced, which is few, and nothing behind them."""
    elements, position = list[bytes](), 0
    for _ in range(count):
        length_end = position + 4
        end = length_end + int.from_bytes(data[position:length_end], "little")
        if end > len(data):
            raise MalformedRequest("expected BYTES elements as uint32 length and so many bytes")
        elements.append(data[length_end:end])
        position = end
    if position != len(data):
        raise InvalidParameter(f"expected {count} BYTES elements, received more bytes")
    return elements


def _wants_binary(document: dict[str, Any], output_name: str) -> bool:
    default = parameters_of(document).get("binary_data_output") is True
    outputs = document.get("outputs")
    if not outputs:
        return default
    output = as_object(only(outputs, "expected at most one output"), "output")
    if output.get("name") != output_name:
        raise InvalidParameter(f"expected an output named {output_name}, received another")
    wanted = parameters_of(output)
    if "shared_memory_region" in wanted or "classification" in wanted:
        raise InvalidParameter("shared memory and classification are not supported")
    return wanted.get("binary_data", default) is True


def parameters_of(document: dict[str, Any]) -> dict[str, Any]:
    """The member ``parameters``, which may be missing or null."""
    return as_object(document.get("parameters") or {}, "parameters")


def only(value: Any, refusal: str) -> Any:
    """The one item of a list; raises ``InvalidParameter``, the refusal, where there is not one."""
    if not isinstance(value, list) or len(value) != 1:
        raise InvalidParameter(refusal)
    return value[0]
