"""Refusals that need no handler: keys, draining, a full queue, bytes."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungseg.core.errors import BodyTooLarge, LungsegError
from lungseg.web.errors import Draining, Unauthorized
from lungseg.web.layers.refusals import respond
from lungseg.web.state import Exchange, State, arrival_of, exchange_of, state_of


class LimitsLayer:
    """Refuses early and cheaply what would be refused later, and counts bytes as they come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request or hands it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state, exchange, arrival = state_of(scope), exchange_of(scope), arrival_of(scope)
        limit = exchange.surface.body_limit(state.settings)
        try:
            _check(state, exchange, scope, limit)
        except LungsegError as error:
            await respond(error, exchange)(scope, receive, send)
            return

        async def counted() -> Message:
            message = await receive()
            if arrival.refusal:
                raise arrival.refusal
            if message["type"] == "http.request":
                _count(exchange, len(message.get("body", b"")), limit)
            return message

        with exchange.held:
            await self._app(scope, counted, send)


def _count(exchange: Exchange, size_bytes: int, limit: int) -> None:
    exchange.bytes_in += size_bytes
    exchange.held.take(size_bytes)
    if exchange.bytes_in > limit:
        raise _too_large(limit)


def _check(state: State, exchange: Exchange, scope: Scope, limit: int) -> None:
    surface, headers = exchange.surface, Headers(scope=scope)
    if surface.needs_key and state.keys:
        exchange.key_id = state.keys.owner(headers)
        if not exchange.key_id:
            raise Unauthorized("expected a known key in Authorization: Bearer or X-API-Key")
    if scope["method"] != "POST":
        return
    if state.lifecycle.draining and not state.lifecycle.lingering:
        raise Draining("the service is shutting down, use another replica")
    announced = headers.get("content-length", "")
    # More digits than the server lets pass are none; Python would refuse to read thousands.
    size_bytes = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
    if size_bytes > limit:
        raise _too_large(limit)
    if surface.takes != "nothing":
        # Before the body is read: under a storm, refusing must cost almost nothing.
        state.workers_of(surface).admit(size_bytes)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"expected at most {limit} bytes, received more")
