"""Request bodies: read in memory within the deadline, unpacked and split in a worker thread.

Uploads hold patients' images, so they are never spooled to temporary files.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from lungseg.core.errors import BodyTooLarge, MalformedRequest, TooManyItems, UnsupportedMediaType
from lungseg.formats.deflate import unpack
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.timing import Stopwatch
from lungseg.inference.workers import ClientGone
from lungseg.web.state import exchange_of, state_of

T = TypeVar("T")
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW_BITS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}
MAX_FORM_FIELDS = 16
"""Parts of a form that are no files: more than any client of ours sends."""


@dataclass(slots=True)
class Part:
    """One part of a multipart form; ``filename`` is the client's word, never a path to open."""

    name: str = ""
    filename: str = ""
    content: bytes = b""


async def compute(request: Request, work: Callable[[bytes], T]) -> T:
    """Receives the body, and works on it in a worker thread; ``work`` alone holds it, unpacked.

    Raises:
        LungsegError, ClientGone: see ``read_body``, ``Workers.run`` and ``work``.
    """
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    limit = exchange.surface.body_limit(state.settings)
    encoding = request.headers.get("content-encoding", "")
    pieces = [await read_body(request)]
    return await state.workers.run(
        queued(lambda: work(unpacked_body(pieces.pop(), encoding, limit)), exchange.watch),
        deadline=exchange.deadline,
        gone=lambda: disconnected(request),
        size_bytes=exchange.bytes_in,
    )


def queued(work: Callable[[], T], watch: Stopwatch) -> Callable[[], T]:
    """A job that adds the time from now until it is begun to the stage ``queue``."""
    submitted = time.perf_counter()

    def job() -> T:
        watch.add("queue", (time.perf_counter() - submitted) * 1000)
        return work()

    return job


async def read_body(request: Request) -> bytes:
    """Receives the whole body.

    Raises:
        BodyTooLarge, Overloaded: from the counting layer.
        DeadlineExceeded: the client sends too slowly.
        ClientGone: the connection broke.
    """
    try:
        async with asyncio.timeout(max(0.0, exchange_of(request.scope).deadline.remaining_s)):
            return b"".join([chunk async for chunk in request.stream()])
    except TimeoutError:
        raise DeadlineExceeded("the body did not arrive in time") from None
    except ClientDisconnect:
        raise ClientGone from None


async def disconnected(request: Request) -> None:
    """Returns when the client has closed the connection; call it after the body is read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def unpacked_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Undoes ``Content-Encoding``; empty or ``identity`` leaves the body as it is.

    Raises:
        UnsupportedMediaType: an encoding that is not known.
        BodyTooLarge: it unpacks to more than the limit.
        MalformedRequest: it is damaged.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW_BITS:
        raise UnsupportedMediaType("expected Content-Encoding gzip or deflate, received another")
    try:
        unpacked, complete = unpack(body, _WINDOW_BITS[name], limit)
    except zlib.error:
        raise MalformedRequest("the body is not what its Content-Encoding says") from None
    if len(unpacked) > limit:
        raise BodyTooLarge(f"expected at most {limit} unpacked bytes, received more")
    if not complete:
        raise MalformedRequest("the compressed body is truncated")
    return unpacked


def single_file(body: bytes, content_type: str) -> bytes:
    """The one file of a body: the part ``file``, or the body itself if it is no form.

    Raises:
        MalformedRequest: a form that is damaged or has not exactly one such part.
    """
    if not content_type.lower().startswith("multipart/"):
        return body
    found = [part for part in split_form(body, content_type, 1) if part.name == "file"]
    if len(found) != 1:
        raise MalformedRequest(f"expected one form part named file, received {len(found)}")
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
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.take_field,
                "on_header_value": parts.take_value,
                "on_header_end": parts.end_header,
                "on_part_data": parts.take_content,
                "on_end": parts.end,
            },
        )
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

    def begin(self) -> None:
        if len(self.found) >= self._limit:
            raise TooManyItems(f"expected at most {self._limit} form parts, received more")
        self.found.append(Part())

    def take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def take_content(self, data: bytes, start: int, end: int) -> None:
        # The whole body is parsed at once, so this comes once a part and nothing is joined.
        self.found[-1].content += data[start:end]

    def end_header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            part = self.found[-1]
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            part.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._field.clear()
        self._value.clear()

    def end(self) -> None:
        self.ended = True
