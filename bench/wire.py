"""A lean HTTP/1.1 client: on shared cores a heavy one would measure itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Tally:
    """What came back: seconds of each answer by status, and how many connections broke."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    finished_at: dict[int, list[float]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    broken: int = 0

    def add(self, status: int, seconds: float, body: bytes) -> None:
        self.seconds.setdefault(status, []).append(seconds)
        self.finished_at.setdefault(status, []).append(time.perf_counter())
        self.bodies[status] = body

    def ok(self) -> list[float]:
        return sorted(self.seconds.get(200, []))


def percentile(ordered: list[float], percent: float) -> float:
    """In milliseconds, of seconds in their order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


def request(path: str, body: bytes, kind: str = "application/octet-stream") -> bytes:
    """The bytes of a POST; ``kind`` is the body's media type."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def form(path: str, *files: bytes) -> bytes:
    """The bytes of a POST of a form: one part ``file``, or many parts ``files``."""
    name = "file" if len(files) == 1 else "files"
    body = b"".join(
        b'--part\r\nContent-Disposition: form-data; name="%b"; filename="%d"\r\n\r\n%b\r\n'
        % (name.encode(), number, content)
        for number, content in enumerate(files)
    )
    kind = "multipart/form-data; boundary=part"
    return request(path, body + b"--part--\r\n", kind)


class Connection(asyncio.Protocol):
    """One kept-alive connection that does one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._total = -1
        self._head_end = 0
        self.transport: asyncio.Transport

    @classmethod
    async def open(cls, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._total < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            at = head.index(b"content-length:") + 15
            self._head_end = end + 4
            self._total = self._head_end + int(head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) >= self._total and self._answer and not self._answer.done():
            status = int(self._buffer[9:12])
            self._answer.set_result((status, bytes(self._buffer[self._head_end : self._total])))

    async def exchange(self, message: bytes) -> tuple[int, bytes]:
        self._buffer.clear()
        self._total = -1
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self._answer


async def closed_loop(port: int, message: bytes, concurrency: int, seconds: float) -> Tally:
    """So many callers, each sending its next request when its last one is answered."""
    tally = Tally()
    until = time.perf_counter() + seconds

    async def caller() -> None:
        connection = await Connection.open(port)
        while (begun := time.perf_counter()) < until:
            try:
                status, body = await connection.exchange(message)
            except OSError:  # refused, and closed while the body was still on its way
                tally.broken += 1
                connection = await Connection.open(port)
                continue
            tally.add(status, time.perf_counter() - begun, body)
        connection.transport.close()

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return tally


async def open_loop(
    port: int, message: bytes, rate: float, seconds: float, connections: int
) -> Tally:
    """Requests at a fixed rate, whatever the service does, over a pool of connections."""
    tally = Tally()
    idle: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
    for _ in range(connections):
        idle.put_nowait(None)
    begun = time.perf_counter()

    async def one(due: float) -> None:
        try:
            connection = idle.get_nowait()
        except asyncio.QueueEmpty:
            tally.broken += 1  # the pool is spent: the service hangs on to too many
            return
        try:
            connection = connection or await Connection.open(port)
            status, body = await connection.exchange(message)
            tally.add(status, time.perf_counter() - due, body)
            if connection.transport.is_closing():
                connection = None
        except OSError:
            tally.broken += 1
            connection = None
        idle.put_nowait(connection)

    tasks: set[asyncio.Task[None]] = set()
    count = 0
    while (now := time.perf_counter()) < begun + seconds:
        while begun + count / rate <= now:
            task = asyncio.create_task(one(begun + count / rate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            count += 1
        await asyncio.sleep(max(0.0, begun + count / rate - time.perf_counter()))
    await asyncio.gather(*tasks)
    while not idle.empty():
        if connection := idle.get_nowait():
            connection.transport.close()
    return tally
