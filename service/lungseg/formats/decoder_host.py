"""The decoder processes' own side: a host that forks decoders, and the loop of one decoder.

``python -m lungseg.formats.decoder_host MEMORY_BYTES``, with a Unix socket as standard input. The
host imports the native libraries once and stays single-threaded, so that a decoder is forked
from it in milliseconds and shares its memory. Nothing of FastAPI, ONNX Runtime or pydicom is
loaded here, and nothing is written to a terminal or a log.

Over its socket the host gets the number 0 together with a socket, and forks a decoder that
answers there; or it gets the pid of a decoder, which it kills. Its reply is that pid, 0 where no
process could be made. When the socket closes, because its other end stopped or was killed, the
host kills all its decoders and ends.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from lungseg.formats import codecs
from lungseg.formats.decoder_wire import HEADER_BYTES, PID, REPLY, TIME, parse_header, receive

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Meant for the service, which may still drain: its decoders work until it lets go of them."""
_STATUS = Path("/proc/self/statm")
_OUT_OF_MEMORY = Path("/proc/self/oom_score_adj")
_FIRST = "1000"
"""Where the whole container is out of memory, the kernel ends such a process before others."""


def main() -> None:
    """Forks and kills decoders until the socket closes."""
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    control, memory_bytes = socket.socket(fileno=sys.stdin.fileno()), int(sys.argv[1])
    codecs.load()
    gc.freeze()  # a collection would touch, and so copy, every shared page
    decoders: set[int] = set()
    try:
        while True:
            message, sockets, *_ = socket.recv_fds(control, PID.size, 1)
            if not message:
                break
            (pid,) = PID.unpack(message)
            if pid in decoders:
                decoders.remove(pid)
                _kill(pid)
            elif sockets and (pid := _fork(control, sockets[0], memory_bytes)):
                decoders.add(pid)
            control.sendall(PID.pack(pid))
    finally:
        for pid in decoders:
            _kill(pid)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)  # where it has ended, its pid is kept until it is waited for
    os.waitpid(pid, 0)


def _fork(control: socket.socket, descriptor: int, memory_bytes: int) -> int:
    """Forks a decoder that answers at that socket; 0 where there is no room for one."""
    with socket.socket(fileno=descriptor) as connection:
        try:
            pid = os.fork()
        except OSError:
            return 0
        if not pid:
            control.close()
            _live(connection, memory_bytes)
        return pid


def _live(connection: socket.socket, memory_bytes: int) -> NoReturn:
    """The life of a decoder, from which nothing returns into the host's code."""
    try:
        _confine(memory_bytes)
        _serve(connection)
    finally:
        os._exit(0)


def _confine(memory_bytes: int) -> None:
    """Bounds the memory taken from now on; a crash writes no core, which would hold pixels."""
    limits = {resource.RLIMIT_CORE: 0}
    if _STATUS.exists():  # elsewhere than on Linux there is no limit to keep
        taken = int(_STATUS.read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = min(taken + memory_bytes, sys.maxsize)  # no more is a limit
        _OUT_OF_MEMORY.write_text(_FIRST)
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _serve(connection: socket.socket) -> None:
    """Decodes frame by frame, until the socket closes or a stream is refused.

    What a broken stream may have left in this memory meets no other slice. The kernel's alarm
    ends a decoder that takes too long, whatever native code it is in.
    """
    while start := receive(connection, TIME.size + HEADER_BYTES):
        signal.setitimer(signal.ITIMER_REAL, *TIME.unpack(start[: TIME.size]))
        frame, length = parse_header(bytes(start[TIME.size :]))
        content = receive(connection, length)
        try:
            decoded = codecs.decode(frame._replace(content=bytes(content)))
        except Exception:  # noqa: BLE001 - a library's words about a file go nowhere
            decoded = b""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if len(decoded) != frame.decoded_bytes:
            connection.sendall(REPLY.pack(0))
            return
        connection.sendall(REPLY.pack(len(decoded)))
        connection.sendall(decoded)


if __name__ == "__main__":
    main()
