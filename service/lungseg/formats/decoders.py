"""Native decoding outside this process: a small pool of children that may die.

A damaged stream can crash, hang or bloat GDCM, CharLS and OpenJPEG, so they run in processes of
their own, with a deadline and a memory limit. One that dies or is late costs its frame and is
replaced. The children hold one end of a socket each, so none outlives this process.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lungseg.core.errors import UndecodableImage
from lungseg.formats.decoder_process import Decoder, DecoderUnavailable, Host
from lungseg.formats.decoder_wire import CodedFrame

ATTEMPTS = 2
"""A host may have been killed since the last frame: then another is started."""
SHORTEST_S = 0.001
"""An alarm after no time at all would be none."""
LONGEST_S = 24 * 3600.0
"""Alarms and sockets take no number of seconds; this is longer than anybody waits."""
Reason = Literal["died", "late"]
DecodeFrame = Callable[[CodedFrame], bytearray]
"""What ``Decoders.decode`` does, with a caller's time bound to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """What native decoders may take.

    Attributes:
        processes: decoders at a time.
        timeout_s: of one frame.
        memory_bytes: of one decoder, beyond what it has when it starts.
    """

    processes: int
    timeout_s: float = 15.0
    memory_bytes: int = 512 << 20


class Decoders:
    """Decoder processes, started when they are needed; threads may share them."""

    def __init__(
        self, limits: DecoderLimits, on_restart: Callable[[Reason], None] | None = None
    ) -> None:
        self._limits = limits
        self._on_restart = on_restart
        self._closed = False
        self._begin()
        forget = weakref.WeakMethod(self._forget)
        if hasattr(os, "register_at_fork"):
            # A fork of this process must not speak over the sockets of its parent.
            os.register_at_fork(after_in_child=lambda: (call := forget()) and call())

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._free = threading.Semaphore(self._limits.processes)
        self._idle: list[Decoder] = []
        self._hosts: list[Host] = []
        self._finalizer = weakref.finalize(self, _close, self._idle, self._hosts)

    def decode(self, frame: CodedFrame, remaining_s: float = math.inf) -> bytearray:
        """Little-endian samples of a frame, exactly as many as it announces.

        Args:
            frame: the compressed frame.
            remaining_s: seconds that its caller still has; the decoder gets no more.

        Raises:
            UndecodableImage: the stream is refused, or it ended its decoder, or took too long.
            DecoderUnavailable: the operating system makes no more processes.
        """
        until = time.monotonic() + remaining_s
        if not self._free.acquire(timeout=min(max(0.0, remaining_s), threading.TIMEOUT_MAX)):
            raise UndecodableImage("expected a free decoder in time, received none")
        try:
            decoder = self._take()
            left_s = max(SHORTEST_S, until - time.monotonic())
            return self._ask(decoder, frame, min(self._limits.timeout_s, left_s, LONGEST_S))
        finally:
            self._free.release()

    def _ask(self, decoder: Decoder, frame: CodedFrame, allowed_s: float) -> bytearray:
        begun = time.monotonic()
        sound = False
        try:
            decoded = decoder.decode(frame, allowed_s)
            sound = decoded is not None
        except OSError:
            late = time.monotonic() - begun >= allowed_s
            if self._on_restart and not self._closed:
                self._on_restart("late" if late else "died")
            if late:
                raise UndecodableImage(
                    f"expected a compressed frame that decodes in {allowed_s:.3g} s, "
                    "received one that takes longer"
                ) from None
            raise UndecodableImage(
                "expected a sound compressed frame, received one that ends its decoder"
            ) from None
        finally:
            if sound:
                with self._lock:
                    self._idle.append(decoder)
            else:  # also where the caller was interrupted and a reply is still to come
                decoder.discard()
        if decoded is None:
            raise UndecodableImage("the compressed pixels are damaged, or of an unknown variant")
        return decoded

    def _take(self) -> Decoder:
        """An idle decoder that lives, else a new one."""
        with self._lock:
            if self._closed:
                raise DecoderUnavailable("the decoders are shut down")
            while self._idle:
                decoder = self._idle.pop()
                if decoder.lives():
                    return decoder
                decoder.discard()
            for _ in range(ATTEMPTS):
                if not self._hosts:
                    self._hosts.append(Host(self._limits.memory_bytes))
                try:
                    return self._hosts[0].fork()
                except OSError:
                    self._hosts.pop().stop()
        raise DecoderUnavailable("expected a process that makes decoders, it does not start")

    def close(self) -> None:
        """Ends the processes, those at work too; whoever waits for them is refused."""
        with self._lock:
            self._closed = True
            _close(self._idle, self._hosts)

    def _forget(self) -> None:
        """In a fork of this process: leaves everything to the parent."""
        for member in (*self._idle, *self._hosts):
            member.forget()
        self._finalizer.detach()
        self._begin()


def _close(idle: list[Decoder], hosts: list[Host]) -> None:
    while idle:
        idle.pop().forget()
    while hosts:
        hosts.pop().stop()


def usable_cores() -> int:
    """Processor cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


@functools.cache
def shared_decoders() -> Decoders:
    """Those of callers that bring none: the library, training, scripts."""
    return Decoders(DecoderLimits(processes=usable_cores()))
