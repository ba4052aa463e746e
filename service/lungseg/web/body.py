"""Request bodies: read in memory within the deadline, unpacked and split in a worker thread.

Uploads hold patients' images, so they are never spooled to temporary files.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import (
    MultipartParser,
    parse_options_header,
)
from starlette.requests import ClientDisconnect

from lungseg.core.errors import (
    BodyTooLarge,
    MalformedRequest,
    TooManyItems,
    UnsupportedMediaType,
)
from lungseg.formats.deflate import inflated_size
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.workers import ClientGone
from lungseg.web.state import exchange_of

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
MAX_FORM_FIELDS = 16
"""Parts of a form that are no files: more than any client of ours sends."""


@dataclass(slots=True)
class Part:
    """One part of a multipart form; ``filename`` is the client's word, never a path to open."""

    name: str = ""
    filename: str | None = None
    content: bytes = b""


async def read_body(request: Request) -> bytes:
    """Receives the whole body.

    Raises:
        BodyTooLarge, Overloaded: from the counting layer.
        DeadlineExceeded: the client sends too slowly.
        ClientGone: the connection broke.
    """
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(max(0.0, exchange_of(request.scope).deadline.remaining_s)):
            async for chunk in request.stream():
                chunks.append(chunk)  # noqa: PERF401 - chunks read so far stay countable
    except TimeoutError:
        raise DeadlineExceeded("the body did not arrive in time") from None
    except ClientDisconnect:
        raise ClientGone from None
    return b"".join(chunks)


async def disconnected(request: Request) -> None:
    """Returns when the client has closed the connection; call it after the body is read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Undoes ``Content-Encoding``.

    Args:
        body: what was sent.
        encoding: the header's value; empty or ``identity`` leaves the body as it is.
        limit: most bytes to unpack.

    Raises:
        UnsupportedMediaType: an encoding that is not known.
        BodyTooLarge: it unpacks to more.
        MalformedRequest: it is damaged.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW_BITS:
        raise UnsupportedMediaType("expected Content-Encoding gzip or deflate, received another")
    try:
        size, complete = inflated_size(body, _WINDOW_BITS[name], limit)
        if size > limit:
            raise BodyTooLarge(f"expected at most {limit} unpacked bytes, received more")
        if not complete:
            raise MalformedRequest("the compressed body is truncated")
        return zlib.decompressobj(_WINDOW_BITS[name]).decompress(body)
    except zlib.error:
        raise MalformedRequest("the body is not what its Content-Encoding says") from None


def single_file(body: bytes, content_type: str, name: str = "file") -> bytes:
    """The one file of a body: the part of that name, or the body itself if it is no form.

    Raises:
        MalformedRequest: a form that is damaged or has not exactly one part of that name.
    """
    if not content_type.lower().startswith("multipart/"):
        return body
    found = [part for part in split_form(body, content_type, 1) if part.name == name]
    if len(found) != 1:
        raise MalformedRequest(f"expected one form part named {name}, received {len(found)}")
    return found[0].content


def split_form(body: bytes, content_type: str, max_files: int) -> list[Part]:
    """Splits a ``multipart/form-data`` body (RFC 7578).

    Raises:
        MalformedRequest: it is damaged, truncated or has no boundary.
        TooManyItems: it has more parts than can be meant.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedRequest("expected multipart/form-data with a boundary")
    parts = _Parts(max_files + MAX_FORM_FIELDS)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise MalformedRequest("the multipart form is damaged") from None
    if not parts.ended:
        raise MalformedRequest("the multipart form is truncated")
    return parts.found


class _Parts:
    """Collects what the parser reports."""

    def __init__(self, limit: int) -> None:
        self.found: list[Part] = []
        self.ended = False
        self._limit = limit
        self._field = bytearray()
        self._value = bytearray()
        self._content: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_field,
            "on_header_value": self._take_value,
            "on_header_end": self._header,
            "on_part_data": self._take_content,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.found) >= self._limit:
            raise TooManyItems(f"expected at most {self._limit} form parts, received more")
        self.found.append(Part())

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            part = self.found[-1]
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                part.filename = options[b"filename"].decode("utf-8", "replace")
        self._field.clear()
        self._value.clear()

    def _end(self) -> None:
        self.found[-1].content = b"".join(self._content)
        self._content.clear()

    def _finish(self) -> None:
        self.ended = True
