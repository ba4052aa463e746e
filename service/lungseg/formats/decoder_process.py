"""The processes of native decoders as the service's process sees them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading

from lungseg.core.errors import LungsegError
from lungseg.formats.decoder_wire import PID, REPLY, TIME, CodedFrame, receive

HOST = "lungseg.formats.decoder_host"
START_S = 30.0
"""How long the host may take to import the native libraries."""
GRACE_S = 1.0
"""After its deadline a decoder's own alarm has this long to end it; then it is killed."""
STOP_S = 5.0
"""How long the host may take to kill its decoders and end."""
KEPT_BYTES = 4 << 20
"""Memory that a decoder keeps for its next frame. By glibc's own rule it gives back almost all of
it, and takes it anew page by page, which costs milliseconds a slice."""
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""What children see of the environment, which may hold keys."""


class DecoderUnavailable(LungsegError, code="overloaded"):
    """No decoder process could be started: the machine's fault, not the file's."""


class Host:
    """The process that forks decoders, and kills them."""

    def __init__(self, memory_bytes: int) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_S)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
            "OPENBLAS_NUM_THREADS": "1",  # what has threads cannot fork
            "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
            "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
        }
        # Not multiprocessing, which would run a caller's script once more in the child.
        command = [sys.executable, "-P", "-m", HOST, str(memory_bytes)]
        nowhere = subprocess.DEVNULL
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    stdin=theirs.fileno(),
                    stdout=nowhere,
                    stderr=nowhere,
                    cwd="/",
                    env=environment,
                )
        except OSError:
            self._control.close()
            raise DecoderUnavailable(
                "expected a process for decoders, the system starts none"
            ) from None

    def fork(self) -> Decoder:
        """A new decoder.

        Raises:
            DecoderUnavailable: the system makes no more processes.
            OSError: the host has gone.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = self._ask(0, [theirs.fileno()])
            if not pid:
                raise DecoderUnavailable("expected a decoder process, the system starts none")
        except BaseException:
            ours.close()
            raise
        return Decoder(self, pid, ours)

    def kill(self, pid: int) -> None:
        """Kills a decoder; one whose host has gone ends by its socket or its alarm."""
        with contextlib.suppress(OSError):
            self._ask(pid, [])

    def _ask(self, number: int, descriptors: list[int]) -> int:
        with self._lock:
            try:
                socket.send_fds(self._control, [PID.pack(number)], descriptors)
                reply = receive(self._control, PID.size)
            except BaseException:
                self._control.close()  # a late reply would be taken for that of the next question
                raise
        if not reply:
            raise ConnectionResetError
        return PID.unpack(reply)[0]

    def stop(self) -> None:
        """Ends the host, which ends its decoders first."""
        with self._lock:
            self._control.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Lets go of a host that belongs to the process from which this one was forked."""
        self._control.close()
        self._process.returncode = 0


class Decoder:
    """One decoder, seen from here: for one frame at a time."""

    def __init__(self, host: Host, pid: int, connection: socket.socket) -> None:
        self._host = host
        self._pid = pid
        self._connection = connection

    def lives(self) -> bool:
        """Whether it waits for a frame: then there is nothing to read, not even an end."""
        self._connection.settimeout(0)
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def decode(self, frame: CodedFrame, allowed_s: float) -> bytearray | None:
        """The samples of a frame; None where the decoder refuses it, and ends.

        Raises:
            OSError: it died, was late, or sent what is not the frame.
        """
        self._connection.settimeout(allowed_s + GRACE_S)
        self._connection.sendall(TIME.pack(allowed_s) + frame.header())
        self._connection.sendall(frame.content)
        reply = receive(self._connection, REPLY.size)
        length = REPLY.unpack(reply)[0] if reply else -1
        if length == 0:
            return None
        if length != frame.decoded_bytes or not (decoded := receive(self._connection, length)):
            raise ConnectionResetError
        return decoded

    def discard(self) -> None:
        """Ends it, whatever it does."""
        self.forget()
        self._host.kill(self._pid)

    def forget(self) -> None:
        """Closes this end: one that waits for a frame ends."""
        self._connection.close()
