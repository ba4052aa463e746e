"""Refusals that need no handler (pure ASGI): keys, draining, a full queue, bytes."""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungseg.core.errors import BodyTooLarge, Draining, LungsegError, Unauthorized
from lungseg.inference.errors import Overloaded
from lungseg.web.errors import respond
from lungseg.web.state import Exchange, Limits, State, exchange_of, state_of
from lungseg.web.telemetry import QUIET_PATHS


class LimitsLayer:
    """Refuses early and cheaply what would be refused later, and counts bytes as they come."""

    def __init__(self, app: ASGIApp) -> None:
        """Takes what to wrap."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request or hands it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state, exchange = state_of(scope), exchange_of(scope)
        try:
            _check(state, exchange, scope)
        except LungsegError as error:
            await respond(error, exchange)(scope, receive, send)
            return
        body = _CountedBody(state, exchange, receive)
        try:
            await self._app(scope, body.receive, send)
        finally:
            state.lifecycle.buffered_bytes -= exchange.bytes_in


class _CountedBody:
    def __init__(self, state: State, exchange: Exchange, receive: Receive) -> None:
        self._state = state
        self._exchange = exchange
        self._receive = receive
        self._limit = _body_limit(state.limits, exchange.path)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            lifecycle = self._state.lifecycle
            self._exchange.bytes_in += size
            lifecycle.buffered_bytes += size
            if self._exchange.bytes_in > self._limit:
                raise _too_large(self._limit)
            if lifecycle.buffered_bytes > self._state.limits.max_buffered_bytes:
                raise Overloaded("too many bytes are being received, try again later")
        return message


def _check(state: State, exchange: Exchange, scope: Scope) -> None:
    if exchange.path in QUIET_PATHS:
        return
    headers = Headers(scope=scope)
    if state.limits.key_hashes and not _known_key(headers, state.limits.key_hashes):
        raise Unauthorized("expected a known key in Authorization: Bearer or X-API-Key")
    if scope["method"] != "POST":
        return
    if state.lifecycle.draining and not state.lifecycle.lingering:
        raise Draining("the service is shutting down, use another replica")
    limit = _body_limit(state.limits, exchange.path)
    announced = headers.get("content-length", "")
    size_bytes = int(announced) if announced.isdecimal() else 0
    if size_bytes > limit:
        raise _too_large(limit)
    if "/repository/" not in exchange.path:
        # Before the body is read: under a storm, refusing must cost almost nothing.
        state.workers.admit(size_bytes)


def _known_key(headers: Headers, hashes: tuple[bytes, ...]) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    digest = hashlib.sha256(key.encode()).digest()
    # Every hash is compared, so the time tells nothing of which one matched.
    return bool(key) and sum(hmac.compare_digest(digest, known) for known in hashes) > 0


def _body_limit(limits: Limits, path: str) -> int:
    return limits.max_batch_bytes if path == "/segment/batch" else limits.max_body_bytes


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"expected at most {limit} bytes, received more")
