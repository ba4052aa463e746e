"""Request bodies: read in memory within the deadline, unpacked in a worker thread.

Uploads hold patients' images, so they are never spooled to temporary files.
"""

from __future__ import annotations

import asyncio
import io
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from lungseg.core.errors import BodyTooLarge, MalformedRequest, UnsupportedMediaType
from lungseg.formats.deflate import unpack_into
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.timing import Stopwatch
from lungseg.inference.workers import ClientGone
from lungseg.web.held import Share
from lungseg.web.state import exchange_of, state_of

T = TypeVar("T")
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW_BITS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}
_NOTHING = ("", "identity")
"""What changes nothing, wherever it stands in a list (RFC 9110, sections 5.6.1 and 8.4.1)."""
MAX_MEMBERS = 16384
"""Gzip streams one behind the other: four times as many as 256 MiB have in blocks of 64 KiB."""


async def compute(request: Request, work: Callable[[bytes], T]) -> T:
    """Receives the body, and works on it in a worker thread; ``work`` alone holds it, unpacked.

    Raises:
        LungsegError, ClientGone: see ``read_body``, ``Workers.run`` and ``work``.
    """
    pieces = [await _received(request)]
    if unpacking := _unpacking(request):
        # How large it is shows only now: unpacking is short, the work waits with its like.
        pieces = [await _run(request, partial(_popped, pieces, unpacking), len(pieces[0]))]
    return await _run(request, partial(_popped, pieces, work), len(pieces[0]))


def _popped(pieces: list[bytes], work: Callable[[bytes], T]) -> T:
    return work(pieces.pop())  # nobody else holds it


async def _run(request: Request, work: Callable[[], T], size_bytes: int) -> T:
    exchange = exchange_of(request.scope)
    return (
        await state_of(request.scope)
        .workers_of(exchange.surface)
        .run(
            queued(work, exchange.watch, exchange.held),
            deadline=exchange.deadline,
            gone=lambda: disconnected(request),
            size_bytes=size_bytes,
        )
    )


def queued(work: Callable[[], T], watch: Stopwatch, held: Share) -> Callable[[], T]:
    """A job that holds the request's bytes until it ends, which its request may not live to see.

    The time from now until it is begun is added to the stage ``queue``.
    """
    submitted = time.perf_counter()

    def job() -> T:
        watch.add("queue", (time.perf_counter() - submitted) * 1000)
        with held:
            return work()

    return job


async def read_body(request: Request) -> bytes:
    """Receives the whole body and unpacks it, where it is small and nothing is to be computed.

    Raises:
        BodyTooLarge, Overloaded: from the counting layer.
        UnsupportedMediaType, MalformedRequest: see ``unpacked_body``.
        DeadlineExceeded: the client sends too slowly.
        ClientGone: the connection broke.
    """
    body, unpacking = await _received(request), _unpacking(request)
    return await asyncio.to_thread(unpacking, body) if unpacking else body


def _unpacking(request: Request) -> Callable[[bytes], bytes] | None:
    """What undoes the ``Content-Encoding`` of a request; None where there is nothing to undo."""
    named = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    encodings = ",".join(name for given in named if (name := given.strip()) not in _NOTHING)
    if not encodings:
        return None
    exchange = exchange_of(request.scope)
    limit = exchange.surface.body_limit(state_of(request.scope).settings)

    def unpacking(body: bytes) -> bytes:
        unpacked = unpacked_body(body, encodings, limit, exchange.held.take)
        exchange.held.let_go(len(body))
        return unpacked

    return unpacking


async def _received(request: Request) -> bytes:
    """Receives the whole body.

    Raises:
        BodyTooLarge, Overloaded: from the counting layer.
        DeadlineExceeded: the client sends too slowly.
        ClientGone: the connection broke.
    """
    body = io.BytesIO()  # grows in place and hands its bytes over uncopied
    try:
        async with asyncio.timeout(max(0.0, exchange_of(request.scope).deadline.remaining_s)):
            async for chunk in request.stream():
                body.write(chunk)
            return body.getvalue()
    except TimeoutError:
        raise DeadlineExceeded("the body did not arrive in time") from None
    except ClientDisconnect:
        raise ClientGone from None


async def disconnected(request: Request) -> None:
    """Returns when the client has closed the connection; call it after the body is read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def unpacked_body(
    body: bytes, encoding: str, limit: int, on_piece: Callable[[int], object] = lambda _size: None
) -> bytes:
    """Undoes a ``Content-Encoding``: gzip, of one stream or several, or deflate, of one.

    Args:
        body: as it came.
        encoding: one of them, by its name in HTTP, in lower case.
        limit: most bytes that are wanted.
        on_piece: hears the size of each piece before it is kept, and may refuse it.

    Raises:
        UnsupportedMediaType: an encoding that is not known.
        BodyTooLarge: it unpacks to more than the limit.
        MalformedRequest: it is damaged, or something else follows.
    """
    if encoding not in _WINDOW_BITS:
        raise UnsupportedMediaType("expected Content-Encoding gzip or deflate, received another")
    kind, most = _WINDOW_BITS[encoding], 1 if encoding == "deflate" else MAX_MEMBERS
    unpacked, rest, streams = io.BytesIO(), memoryview(body), 0
    while rest or not streams:
        if streams == most:
            raise MalformedRequest("expected the end of the compressed body, received more")
        try:
            end = unpack_into(unpacked, rest, kind, limit, on_piece)
        except zlib.error:
            raise MalformedRequest("the body is not what its Content-Encoding says") from None
        if unpacked.tell() > limit:
            raise BodyTooLarge(f"expected at most {limit} unpacked bytes, received more")
        if end is None:
            raise MalformedRequest("the compressed body is truncated")
        rest, streams = rest[end:], streams + 1
    return unpacked.getvalue()
