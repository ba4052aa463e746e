"""Whose turn it is with the interpreter: what many small steps of NumPy fight for."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

from lungseg.core.types import Scan
from lungseg.inference.timing import Stopwatch

LARGEST = 1 << 20
"""Pixels of a scan that takes turns: those of a larger one are computed outside Python's lock for
most of the time, and it must not keep small ones waiting."""


class Turns:
    """Lets so many threads at a time into the stages that are many small steps.

    Each step lets go of Python's lock and wants it back. Of two threads that do so each waits for
    the other a hundred times a slice; one after the other, both come through sooner, while other
    threads decode or are in the network without the lock.
    """

    def __init__(self, at_a_time: int | None = None) -> None:
        """Without a number nobody waits."""
        self._free = threading.BoundedSemaphore(at_a_time) if at_a_time else None

    @classmethod
    def among(cls, threads: int) -> Self:
        """For so many threads: half of a slice's time is spent without the lock."""
        return cls(max(1, threads // 2))

    @contextmanager
    def taken(self, scan: Scan, watch: Stopwatch) -> Generator[None]:
        """Waits for a turn; the wait counts as time in the queue."""
        if self._free is None or scan.values.size > LARGEST:
            yield
            return
        begun = time.perf_counter()
        with self._free:
            watch.add("queue", (time.perf_counter() - begun) * 1000)
            yield
