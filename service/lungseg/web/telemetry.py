"""The outermost layer (pure ASGI): request id, time of arrival, metrics, one log line."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungseg.core.errors import LungsegError
from lungseg.inference.timing import Deadline
from lungseg.web.errors import respond
from lungseg.web.state import Exchange, State, state_of

ACCESS = logging.getLogger("lungseg.access")
ERRORS = logging.getLogger("lungseg.errors")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SEE_LOG = "see the log under the request id"
"""What a caller hears of a bug."""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, level 1."""
QUIET_PATHS = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
"""Asked every few seconds by machines: need no key, are not logged, are no work in flight."""


class TelemetryLayer:
    """Wraps the whole application; nothing that happens inside goes unseen or unanswered."""

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        """Takes what to wrap, and the path that a gateway may have left in front."""
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        state = state_of(scope)
        exchange = self._exchange(scope, state)
        scope = {**scope, "state": {**scope["state"], "exchange": exchange}}
        answer = _Answer(exchange, send)
        quiet = exchange.path in QUIET_PATHS
        state.lifecycle.in_flight += not quiet
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:  # noqa: BLE001 - the outermost boundary: nothing gets past it
            log_bug(exchange, error)
            if not answer.started:
                await respond(LungsegError(SEE_LOG), exchange)(scope, receive, answer.send)
        finally:
            state.lifecycle.in_flight -= not quiet
            exchange.seconds = time.monotonic() - begun
            _record(state, exchange, scope, quiet=quiet)

    def _exchange(self, scope: Scope, state: State) -> Exchange:
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        traceparent = headers.get("traceparent", "")
        return Exchange(
            request_id=request_id if REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
            path=scope["path"].removeprefix(self._root_path) or "/",
            deadline=Deadline.after(state.limits.deadline_s),
            traceparent=traceparent if TRACEPARENT.fullmatch(traceparent) else "",
        )


class _Answer:
    """Sends messages on, adds headers and counts."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self.started = False
        self._exchange = exchange
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._exchange.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._exchange.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        elif message["type"] == "http.response.body":
            self._exchange.bytes_out += len(message.get("body", b""))
        await self._send(message)


def _record(state: State, exchange: Exchange, scope: Scope, *, quiet: bool) -> None:
    route = getattr(scope.get("route"), "path", None) or _unrouted(exchange)
    metrics = state.metrics
    metrics.requests.labels(route, exchange.status, exchange.code).inc()
    metrics.request_seconds.labels(route).observe(exchange.seconds)
    for stage, spent_ms in exchange.watch.spent_ms.items():
        metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
    if quiet:
        return
    if state.trace:
        state.trace(exchange, route, scope["method"], time.time_ns())
    fields: dict[str, object] = {
        "request_id": exchange.request_id,
        "method": scope["method"],
        "route": route,
        "status": exchange.status,
        "code": exchange.code,
        "duration_ms": round(exchange.seconds * 1000, 2),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
    }
    if exchange.traceparent:
        fields["trace_id"] = exchange.traceparent.split("-")[1]
    if exchange.model:
        fields |= {"model": exchange.model, "version": exchange.version}
    if exchange.watch.spent_ms:
        fields["stages_ms"] = {k: round(v, 2) for k, v in exchange.watch.spent_ms.items()}
    ACCESS.info("request", extra={"fields": fields})


def _unrouted(exchange: Exchange) -> str:
    """A label for what was refused before routing; a client's own paths never become labels."""
    return exchange.path if exchange.path in ("/segment", "/segment/batch") else "unrouted"


def log_bug(exchange: Exchange, error: Exception) -> None:
    """Writes an unexpected exception to the log."""
    # The message of an unexpected exception may quote data: type and places are enough.
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    fields = {
        "request_id": exchange.request_id,
        "error": type(error).__qualname__,
        "places": places,
    }
    ERRORS.error("bug", extra={"fields": fields})
