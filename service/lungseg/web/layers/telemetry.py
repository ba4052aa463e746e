"""The outermost layer: whose request it is, its id, time of arrival, metrics, one log line."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
import uuid
from http import HTTPStatus

from opentelemetry.trace import get_current_span
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungseg.core.errors import LungsegError
from lungseg.inference.timing import Deadline
from lungseg.web.errors import Draining
from lungseg.web.held import Share
from lungseg.web.layers.refusals import respond
from lungseg.web.state import Exchange, Lifecycle, State, state_of
from lungseg.web.surface import ELSEWHERE, Surface, Surfaces

ACCESS = logging.getLogger("lungseg.access")
ERRORS = logging.getLogger("lungseg.errors")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SEE_LOG = "see the log under the request id"
"""What a caller hears of a bug."""
CUT = "the service is shutting down, and this request took too long to wait for it"
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, level 1."""


class TelemetryLayer:
    """Wraps the whole application; nothing that happens inside goes unseen or unanswered."""

    def __init__(self, app: ASGIApp, surfaces: Surfaces) -> None:
        self._app = app
        self._surfaces = surfaces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request or hands it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        state, method = state_of(scope), scope["method"]
        exchange = _exchange(Headers(scope=scope), state, self._surfaces.owner(scope))
        scope = {**scope, "state": {**scope["state"], "exchange": exchange}}
        scope["path"] = self._surfaces.full_path(scope["path"])
        scope["root_path"] = self._surfaces.root_path
        if method == "HEAD":  # whatever GET answers, without its body
            scope["method"] = "GET"
        answer = _answering(exchange, state.lifecycle, send, bodiless=method == "HEAD")
        counted = not exchange.surface.quiet
        state.lifecycle.in_flight += counted
        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # Only a server that ends cancels a request.
            exchange.code = Draining.code
            if not exchange.answered:
                await respond(Draining(CUT), exchange)(scope, receive, answer)
            if not state.lifecycle.draining:
                raise
        except Exception as error:  # noqa: BLE001 - the outermost boundary: nothing gets past it
            log_bug(exchange, error)
            exchange.code = LungsegError.code
            if not exchange.answered:
                await respond(LungsegError(SEE_LOG), exchange)(scope, receive, answer)
        finally:
            if exchange.code == "ok" and not exchange.finished:
                exchange.code = "client_gone"
            state.lifecycle.in_flight -= counted
            exchange.seconds = time.monotonic() - begun
            route = getattr(scope.get("route"), "path", None) or exchange.surface.label
            _record(state, exchange, route, method)


def answer_unread(state: State, headers: list[tuple[bytes, bytes]], error: LungsegError) -> bytes:
    """Answers, counts and logs what is refused before it is a request, as bytes to send.

    Args:
        state: the application's.
        headers: those that have come; of them only the request's id is used.
        error: why it is refused.
    """
    exchange = _exchange(Headers(raw=headers), state, ELSEWHERE)
    response = respond(error, exchange)
    exchange.status, exchange.bytes_out = response.status_code, len(response.body)
    _add_headers(response.headers, exchange, closing=True)
    _record(state, exchange, ELSEWHERE.label, "")
    phrase = HTTPStatus(response.status_code).phrase
    lines = [f"HTTP/1.1 {response.status_code} {phrase}".encode()]
    lines += [b"%b: %b" % field for field in response.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def _exchange(headers: Headers, state: State, surface: Surface) -> Exchange:
    request_id = headers.get("x-request-id", "")
    trace = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    settings = state.settings
    return Exchange(
        request_id=request_id if REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
        surface=surface,
        deadline=Deadline.after(
            settings.volume_deadline_s if surface.takes == "volumes" else settings.deadline_s
        ),
        held=Share(state.lifecycle.ledger),
        trace_id=trace[1] if trace else "",
    )


def _answering(exchange: Exchange, lifecycle: Lifecycle, send: Send, *, bodiless: bool) -> Send:
    """Sends messages on, adds headers and counts."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.answered, exchange.status = True, message["status"]
            _add_headers(MutableHeaders(scope=message), exchange, closing=lifecycle.draining)
        elif message["type"] == "http.response.body":
            if bodiless:
                message = {**message, "body": b""}
            exchange.bytes_out += len(message.get("body", b""))
            if not message.get("more_body"):
                exchange.finished = True
                _describe_span(exchange)
        await send(message)

    return answer


def _add_headers(headers: MutableHeaders, exchange: Exchange, *, closing: bool) -> None:
    headers["X-Request-ID"] = exchange.request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")  # but for files that hold no data
    if closing:  # a connection that stayed open would be closed under its next request
        headers["Connection"] = "close"


def _describe_span(exchange: Exchange) -> None:
    """Tells FastAPI's span, which the last bytes end, what only we know; without tracing, none."""
    attributes: dict[str, str | float] = {
        "lungseg.request_id": exchange.request_id,
        "lungseg.code": exchange.code,
        "lungseg.model": f"{exchange.model}/{exchange.version}",
    }
    stages = {f"lungseg.{name}_ms": ms for name, ms in exchange.watch.spent_ms.items()}
    get_current_span().set_attributes(attributes | stages)


def _record(state: State, exchange: Exchange, route: str, method: str) -> None:
    metrics, stages_ms = state.metrics, exchange.watch.spent_ms
    metrics.requests.labels(route, exchange.status, exchange.code).inc()
    metrics.request_seconds.labels(route).observe(exchange.seconds)
    for stage, spent_ms in stages_ms.items():
        metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
    if exchange.surface.quiet:
        return
    fields: dict[str, object] = {
        "request_id": exchange.request_id,
        "method": method,
        "route": route,
        "status": exchange.status,
        "code": exchange.code,
        "duration_ms": round(exchange.seconds * 1000, 2),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
    }
    if exchange.key_id:
        fields["key"] = exchange.key_id
    if exchange.trace_id:
        fields["trace_id"] = exchange.trace_id
    if exchange.model:
        fields |= {"model": exchange.model, "version": exchange.version}
    if stages_ms:
        fields["stages_ms"] = {k: round(v, 2) for k, v in stages_ms.items()}
    ACCESS.info("request", extra={"fields": fields})


def log_bug(exchange: Exchange, error: Exception) -> None:
    """Writes an unexpected exception to the log."""
    # The message of an unexpected exception may quote data: type and places are enough.
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    kind = type(error).__qualname__
    fields = {"request_id": exchange.request_id, "error": kind, "places": places}
    ERRORS.error("bug", extra={"fields": fields})
