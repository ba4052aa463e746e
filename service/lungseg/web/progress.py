"""Work that says how far it is: lines of JSON while it goes on, its answer as the last one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from lungseg.core.errors import LungsegError
from lungseg.core.volume import Progress
from lungseg.forms import compact
from lungseg.inference.workers import ClientGone
from lungseg.web.body import compute
from lungseg.web.errors import problem_document
from lungseg.web.layers.telemetry import SEE_LOG, log_bug
from lungseg.web.state import Exchange, exchange_of

Sent = TypeVar("Sent")
Line = dict[str, Any]
NDJSON = "application/x-ndjson"


async def streamed(
    request: Request, read: Callable[[bytes], Sent], work: Callable[[Sent, Progress], Line]
) -> Response:
    """Receives the body and works on it in a worker thread, as ``compute`` does.

    What is refused before there is any progress is answered as everywhere; later the status is
    sent, and the last line is ``{"error": problem}``.

    Args:
        request: the request.
        read: takes the body apart; nobody else holds it.
        work: gives the last line, and calls what it is handed with each step.

    Raises:
        LungsegError, ClientGone: see ``compute``, before any progress.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Queue[Line | None]()

    def tell(stage: str, done: int, total: int) -> None:
        line = {"stage": stage, "done": done, "total": total}
        loop.call_soon_threadsafe(told.put_nowait, line)

    def job(body: bytes) -> Line:
        sent = read(body)
        del body
        return work(sent, tell)

    task = asyncio.create_task(compute(request, job))
    task.add_done_callback(lambda _: told.put_nowait(None))
    try:
        first = await told.get()
        if first is None:
            task.result()  # raises why there is nothing to tell
    except BaseException:
        task.cancel()
        raise
    lines = _lines(first, told, task, exchange_of(request.scope))
    return StreamingResponse(lines, media_type=NDJSON)


async def _lines(
    line: Line | None, told: asyncio.Queue[Line | None], task: asyncio.Task[Line], of: Exchange
) -> AsyncGenerator[str]:
    try:
        while line is not None:
            yield compact(line) + "\n"
            line = await told.get()
        yield compact(_last(task, of)) + "\n"
    except ClientGone:
        of.code = "client_gone"
    finally:
        task.cancel()


def _last(task: asyncio.Task[Line], exchange: Exchange) -> Line:
    """The answer, or why there is none."""
    try:
        return task.result()
    except ClientGone:
        raise
    except LungsegError as error:
        code, detail = error.code, str(error)
    except Exception as error:  # noqa: BLE001 - the status is sent: the boundary is here
        log_bug(exchange, error)
        code, detail = LungsegError.code, SEE_LOG
    exchange.code = code
    return {"error": problem_document(code, detail, exchange.request_id)}
