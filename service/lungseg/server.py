"""The server process: settings → application → uvicorn, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI

from lungseg.app import create_app
from lungseg.settings import Settings, unknown_variables
from lungseg.web.connection import Connection
from lungseg.web.layers.logs import configure_logging, drop_lost_lines, keep_standard_error
from lungseg.web.state import Lifecycle

LOG = logging.getLogger("lungseg.server")
POLL_S = 0.02
"""How often a draining server looks whether the work is done."""
SETTLE_S = 0.2
"""How long a request may take to arrive on a connection that was just accepted."""

WRONG_SETTING, NO_ADDRESS = 2, 3
"""Exit statuses: a setting cannot be used; the address or port cannot be had, or the start failed.
uvicorn's own is 3 too."""
_OTHER_PORT = ": take another by LUNGSEG_PORT, --port, or make serve PORT=8001"
_OTHER_HOST = ": LUNGSEG_HOST or --host names an address of this machine, or 0.0.0.0 for all"
_ADDRESS_TROUBLE = {
    errno.EADDRINUSE: ("another process uses it", _OTHER_PORT),
    errno.EACCES: ("ports below 1024 need rights that this process lacks", _OTHER_PORT),
    errno.EADDRNOTAVAIL: ("this machine has no such address", _OTHER_HOST),
    errno.EFAULT: ("no such name or address is known", _OTHER_HOST),
}
"""Why an address cannot be had, and what to do; EFAULT stands for a name that is not found."""
TURN_S = 0.0005
"""After how long a thread that waits for Python's lock gets it, at the next step that allows it. A
volume's headers are read in Python, and a slice wants the lock back at each of its small steps."""
FAREWELL_S = 1.0
"""How long requests that are cut off may take to say so."""


class Server(uvicorn.Server):
    """Drains before it stops: not ready at once, work in flight finished, exit status 0."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, a second one stops at once."""
        if self._drain is not None or not self.started or sig == signal.SIGINT:
            if self.started:
                self._lifecycle.draining = True
            super().handle_exit(sig, frame)
            return
        loop = asyncio.get_running_loop()
        self._drain = loop.create_task(self._drain_and_exit())

    @property
    def _lifecycle(self) -> Lifecycle:
        return self.lifespan.state["lungseg"].lifecycle

    async def _drain_and_exit(self) -> None:
        try:
            await self._finish_work()
        finally:
            self.should_exit = True  # whatever happened: a server that cannot be stopped is worse

    async def _finish_work(self) -> None:
        lifecycle = self._lifecycle
        lifecycle.draining = True
        LOG.info("draining", extra={"fields": {"in_flight": lifecycle.in_flight}})
        until = time.monotonic() + self._settings.drain_s
        if self._settings.linger_s:
            # Balancers need a moment to turn away. Meanwhile work is taken; then connecting
            # fails, which is what they repeat elsewhere without harm.
            lifecycle.lingering = True
            await asyncio.sleep(self._settings.linger_s)
            await self.stop_listening()
            await asyncio.sleep(SETTLE_S)
            lifecycle.lingering = False
        # Without lingering the socket stays open meanwhile, so that /readyz can say 503.
        while lifecycle.in_flight and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        unfinished = list(self.server_state.tasks) if lifecycle.in_flight else []
        for task in unfinished:
            task.cancel()
        if unfinished:  # each says goodbye to its caller
            await asyncio.wait(unfinished, timeout=FAREWELL_S)

    async def stop_listening(self) -> None:
        """Closes the sockets that listen, and serves who has connected before.

        With its socket the kernel resets the connections that nobody has accepted yet, whose
        clients believe that they are served. A double keeps it open until none is left.
        """
        connected: list[socket.socket] = []
        for listener in self.servers:
            doubles = [socket.socket(fileno=os.dup(one.fileno())) for one in listener.sockets]
            listener.close()
            for double in doubles:
                with double, contextlib.suppress(BlockingIOError):
                    double.setblocking(False)
                    while True:
                        connected.append(double.accept()[0])
        loop = asyncio.get_running_loop()
        for connection in connected:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=1,
        lifespan="on",
    )


def serve(settings: Settings) -> None:
    """Runs the service until a signal ends it.

    Raises:
        SystemExit: ``WRONG_SETTING`` or ``NO_ADDRESS``, after one line that says which and why.
            uvicorn raises the latter itself where another process is quicker to take the address.
    """
    configure_logging(settings.log_format, settings.log_level)
    for name, nearest in unknown_variables().items():
        advice = f"; did you mean {nearest}?" if nearest else ""
        LOG.warning("%s is no setting and changes nothing%s", name, advice)
    try:
        app = create_app(settings)
    except ValueError as error:
        _stop(str(error), WRONG_SETTING)
    _check_address(settings.host, settings.port)
    keep_standard_error()
    configure_logging(settings.log_format, settings.log_level)  # onto the stream that was kept
    sys.setswitchinterval(TURN_S)
    server = Server(configured(app, settings), settings)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # a person ended it: nothing went wrong
            server.run()
    finally:
        drop_lost_lines()


def _check_address(host: str, port: int) -> None:
    """Looks whether the address can be had, before anything is loaded for nothing."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        errors = [_try_address(family, address) for family, _, _, _, address in found]
    except (socket.gaierror, UnicodeError):  # the latter where it cannot be a name at all
        errors = [OSError(errno.EFAULT, "no such name")]
    taken = [error for error in errors if error and error.errno == errno.EADDRINUSE]
    # A name may stand for an address of IPv6 that this machine has switched off.
    if fatal := next(iter(taken), None) or (all(errors) and errors[0]):
        reason, advice = _ADDRESS_TROUBLE.get(fatal.errno or 0, (fatal.strerror, ""))
        _stop(f"cannot listen on {host} port {port}: {reason}{advice}", NO_ADDRESS)


def _try_address(family: int, address: Any) -> OSError | None:
    """Binds as the server will, and lets go."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":  # connections that linger from an earlier start do no harm
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _stop(sentence: str, status: int) -> NoReturn:
    sys.stderr.write(f"lungseg: {sentence}\n")
    sys.exit(status)
