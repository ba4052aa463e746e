"""One connection: what bounds a request before it is one, and how a connection ends.

uvicorn's protocol hands bytes to httptools, which takes headers of any size for any time. Here
every read is parsed in small pieces, so that the bytes of a request that are no body are counted
while they come; a timer bounds how long they take. What is refused before a request is known gets
its problem document from here, everything else from the layers.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from lungseg.core.errors import LungsegError, MalformedRequest
from lungseg.web.answering import Answering
from lungseg.web.errors import Draining, HeadersTooLarge, HeadersTooSlow
from lungseg.web.layers.telemetry import answer_unread
from lungseg.web.state import Arrival, State
from lungseg.web.timer import Timer

PIECE_BYTES = 8192
"""Parsed at a time: so few that what is too much is noticed before it is kept."""
BODY_PIECE_BYTES = 65536
"""Of a body that is known to go on so far: no headers are in there, and the layers count."""
PROBES_S = (0.3, 0.05, 1.0)
"""After how long a caller who has ended his side is asked whether he still listens, and asked again
and again: who has left answers the first time with a reset, which the second time shows."""
PARTING_S = 1.0
"""How long a caller who is refused while he sends may go on, so that he reads the answer."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FRAMING = (b"content-length", b"transfer-encoding")
"""The headers that say where a body ends."""


class Connection(HttpToolsProtocol):
    """A connection of one client, with one request after the other.

    Its limits are those of the settings in the application's state: ``max_header_bytes`` and
    ``max_header_fields`` of a request, ``header_timeout_s`` for them to come, ``deadline_s`` for
    a body that nobody reads any more, or for a client that takes nothing of its answer.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state: State = app_state["lungseg"]
        self._stage: Literal["between", "head", "body"] = "between"
        self._unparsed = b""
        self._body_left = 0  # bytes, as far as its headers say
        self._framing_bytes = 0  # of this request, since its beginning or its last byte of body
        self._fields = 0
        self._arrival = Arrival()
        self._answer: Answering | None = None
        self._wrong: LungsegError | None = None
        self._deaf = False  # nothing that still comes is read
        self._known = False  # what the parser reports is known from its predecessor
        self._parting = False
        self._ended = False  # the client sends no more
        self._patience, self._probing, self._stalled = (Timer(self.loop) for _ in range(3))

    # What the transport reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected: it is expected to say something."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Bytes came; they are parsed unless the request before them still waits for its turn."""
        if not self._deaf:
            self._unparsed += data
            self._parse()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: what it asked for is still answered."""
        self._ended = True
        if self._deaf and not self._pending:
            return False
        self._conclude()
        if self._pending:
            self._probing.start(PROBES_S[0], self._probe)
        return self._pending

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and every timer with it."""
        for timer in (self._patience, self._probing, self._stalled):
            timer.stop()
        self._deaf = True
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes its answer too slowly: it may not keep it here for ever."""
        super().pause_writing()
        self._stalled.start(self._state.settings.deadline_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken what it was sent."""
        self._stalled.stop()
        super().resume_writing()

    # What the parser reports

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._known:
            return
        super().on_message_begin()
        self._stage, self._fields, self._arrival = "head", 0, Arrival()
        self.scope.setdefault("state", {})["arrival"] = self._arrival
        self._expect_headers()

    def on_url(self, url: bytes) -> None:
        """The address of a request, or a part of it."""
        if not self._known:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the headers, or a trailer, which nothing here wants."""
        if self._stage == "body" or self._known:
            return
        self._fields += 1
        limit = self._state.settings.max_header_fields
        if self._fields > limit:
            wrong = HeadersTooLarge(f"expected at most {limit} header fields, received more")
            self._wrong = wrong
            raise wrong
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request is known: its layers take over."""
        if self._known:
            return
        super().on_headers_complete()
        self._answer = Answering(self.transport, self.loop, self.close)
        self.cycle.transport = self._answer
        self._stage, self._framing_bytes = "body", 0
        self._body_left = int(dict(self.headers).get(b"content-length", 0))
        self._patience.stop()

    def on_body(self, body: bytes) -> None:
        """A part of the body, which the layers count."""
        super().on_body(body)
        self._framing_bytes = 0
        self._body_left -= len(body)

    def on_message_complete(self) -> None:
        """The request is whole, unless the parser left its body to another protocol."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._stage, self._framing_bytes = "between", 0
        self._patience.stop()

    # What the server and the answers report

    def on_response_complete(self) -> None:
        """An answer is written; what came meanwhile is looked at."""
        if self._answer:
            self._answer.flush()
        if self._parting:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        self._parse()
        if self._ended:
            self._conclude()
        elif self._stage == "body" and not self._pending:
            # Refused early: the rest is let in and dropped, so that the client reads the answer.
            self._patience.start(self._state.settings.deadline_s, self.transport.close)

    def shutdown(self) -> None:
        """The server ends: a request that is half there is refused."""
        if self._stage == "head" and not self._pending:
            self._refuse(Draining("the service is shutting down, use another replica"))
        else:
            super().shutdown()

    def close(self) -> None:
        """Ends the connection when everything is written that was."""
        if self._stage == "between" or self._ended:
            self.transport.close()
        else:
            self._part()

    @property
    def _pending(self) -> bool:
        """Whether an answer is still owed."""
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[reportUnnecessaryComparison]

    def _parse(self) -> None:
        """Parses what came, in pieces, as far as one request beyond that which is answered."""
        data, self._unparsed = memoryview(self._unparsed), b""
        limit = self._state.settings.max_header_bytes
        if data:
            self._unset_keepalive_if_required()
            if self._stage == "between":
                self._expect_headers()
        while data and not self._deaf:
            if self.pipeline:
                self.flow.pause_reading()
                self._unparsed = bytes(data)
                return
            room = limit - self._framing_bytes
            if room <= 0:
                self._refuse(HeadersTooLarge(f"expected at most {limit} bytes of headers"))
                return
            size = min(room, max(PIECE_BYTES, min(self._body_left, BODY_PIECE_BYTES)))
            piece, data = data[:size], data[size:]
            self._framing_bytes += len(piece)
            self._parse_piece(piece)
        if self._stage == "between" and not self._pending and not self._parting:
            self._keep_alive()

    def _parse_piece(self, piece: memoryview) -> None:
        if self.parser is None:  # type: ignore[reportUnnecessaryComparison]  # the connection is gone
            return
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as offer:
            self._read_on(piece[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._wrong or MalformedRequest("expected a sound HTTP request"))

    def _read_on(self, rest: memoryview) -> None:
        """Ignores the offer of another protocol, behind which the parser reads nothing more.

        Clients that would rather speak HTTP/2, such as Java's, make it with every first request,
        and send its body all the same. Another parser takes over behind the headers.
        """
        framing = [b"%b: %b\r\n" % field for field in self.headers if field[0] in _FRAMING]
        self.parser, self._known = httptools.HttpRequestParser(self), True
        self.parser.feed_data(b"".join((b"POST / HTTP/1.1\r\n", *framing, b"\r\n")))
        self._known = False
        self._parse_piece(rest)

    def _keep_alive(self) -> None:
        if self.timeout_keep_alive_task is None and not self._patience.runs:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _expect_headers(self) -> None:
        """Bounds how long they take, from the first that is waited for them."""
        if not self._patience.runs:
            self._patience.start(self._state.settings.header_timeout_s, self._too_slow)

    def _too_slow(self) -> None:
        if self._stage == "between" and not self._framing_bytes and not self._pending:
            self.transport.close()  # it said nothing, so nothing is answered
            return
        limit_s = self._state.settings.header_timeout_s
        self._refuse(HeadersTooSlow(f"expected the headers within {limit_s:g} s"))

    def _refuse(self, error: LungsegError) -> None:
        """Reads nothing more; answers, where no answer to an earlier request is still to come."""
        self._deaf = True
        self._patience.stop()
        if self._pending:
            self.cycle.keep_alive = False
            if self._stage == "body":  # it is this request's own: its layers answer and log
                self._arrival.refusal = error
                self.cycle.more_body = False
                self.cycle.message_event.set()
        elif self._stage == "body":  # it has its answer
            self._part()
        else:
            headers = self.headers if self._stage == "head" else []
            self.transport.write(answer_unread(self._state, headers, error))
            self._part()

    def _part(self) -> None:
        """Says goodbye, and listens on for a moment: closing at once would reset the answer."""
        self._deaf = self._parting = True
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._patience.start(PARTING_S, self.transport.close)

    def _conclude(self) -> None:
        """Ends a connection whose client sends no more, when nothing is owed."""
        if self._unparsed or self._deaf:
            return
        if self._stage != "between":
            self._refuse(MalformedRequest("expected a whole request, received its beginning only"))
        elif not self._pending:
            self.transport.close()

    def _probe(self, times: int = 1) -> None:
        """Finds out whether a client that sends no more has left: only writing tells."""
        first_words = not self.cycle.response_started and self.cycle.scope["http_version"] == "1.1"
        if self._pending and first_words and not self.pipeline:
            self.transport.write(CONTINUE)
        pause_s = PROBES_S[min(times, len(PROBES_S) - 1)]
        self._probing.start(pause_s, self._probe, times + 1)
