"""What one answer is written to, between uvicorn and the socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Answering(asyncio.Transport):
    """The transport of one answer: closing it spares an answer that is on its way.

    What is written first, the head, waits for the body as long as nothing else happens: together
    they leave at once, and wake the client once.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        close: Callable[[], None],
    ) -> None:
        """Takes the connection's transport, and what ends the connection."""
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._close = close
        self._head: bytes | bytearray | memoryview[Any] | None = None
        self._begun = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Sends, or keeps the head for a moment."""
        if not self._begun:
            self._begun, self._head = True, data
            self._loop.call_soon(self.flush)
        elif self._head is None:
            self._transport.write(data)
        else:
            head, self._head = self._head, None
            self._transport.write(b"".join((head, data)))

    def flush(self) -> None:
        """Sends a head that is still kept."""
        head, self._head = self._head, None
        if head is not None:
            self._transport.write(head)

    def close(self) -> None:
        """Ends the connection when everything is written that was."""
        self.flush()
        self._close()

    def is_closing(self) -> bool:
        """Whether the connection is about to end."""
        return self._transport.is_closing()
