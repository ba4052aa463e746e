"""The only threads that compute, and the queue before them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from lungseg.inference.errors import DeadlineExceeded, Overloaded
from lungseg.inference.timing import Deadline

T = TypeVar("T")
SMOOTHING = 0.1
"""Weight of the newest job in the running mean of job times."""
LARGE_BODY_BYTES = 4 * 1024 * 1024
"""From here a request counts as large: eight times a plain 512 x 512 slice of 16 bits."""


class ClientGone(Exception):
    """The client closed the connection before its answer was ready."""


def _stand_back(niceness: int) -> None:
    """Lowers the priority of this thread and of those that it begins; on Linux each has one."""
    if niceness and sys.platform == "linux":
        os.nice(niceness)


@dataclass(slots=True)
class Workers:
    """A bounded pool of threads behind a bounded queue."""

    threads: int
    """How many jobs compute at a time."""
    queue_size: int
    """How many more may wait; the next one is refused at once."""
    large_bytes: int = LARGE_BODY_BYTES
    """From here on the size of a body makes a job large."""
    niceness: int = 0
    """How far the threads, and those that they begin, stand back behind others; on Linux."""
    _pool: ThreadPoolExecutor = field(init=False)
    _large_pool: ThreadPoolExecutor = field(init=False)
    _admitted: int = 0
    _large: int = 0
    _running: int = 0
    _job_s: float = 0.05
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pool = self._threads(self.threads, "lungseg-worker")
        # Large slices queue for themselves, so they cannot hold every thread from small ones.
        large = max(1, self.threads // 2)
        self._large_pool = self._threads(large, "lungseg-large")

    def _threads(self, count: int, name: str) -> ThreadPoolExecutor:
        stand_back = partial(_stand_back, self.niceness)
        return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=stand_back)

    @property
    def waiting(self) -> int:
        """Jobs admitted that no thread has begun."""
        return max(0, self._admitted - self._running)

    @property
    def running(self) -> int:
        """Jobs that compute."""
        return self._running

    @property
    def expected_wait_s(self) -> float:
        """How long a new job would wait, from the mean time of recent ones."""
        ahead = self._admitted - self.threads + 1
        return max(0, ahead) * self._job_s / self.threads

    def admit(self, size_bytes: int) -> None:
        """Checks that one more job, with a body of that size, may come.

        Raises:
            Overloaded: the queue is full, or half full of large bodies and this is one more.
        """
        places = self.threads + self.queue_size
        too_large = size_bytes > self.large_bytes and self._large >= max(1, places // 2)
        if too_large or self._admitted >= places:
            wait_s = self.expected_wait_s
            raise Overloaded("the queue is full, try again later", retry_after_s=wait_s)

    async def run(
        self,
        job: Callable[[], T],
        *,
        deadline: Deadline,
        gone: Callable[[], Coroutine[Any, Any, None]] | None = None,
        size_bytes: int = 0,
    ) -> T:
        """Runs a job in the pool, until its deadline, or until ``gone`` says that the client left.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the answer is not ready in time, or could not be.
            ClientGone: ``gone`` returned first.
        """
        self.admit(size_bytes)
        if self.expected_wait_s > deadline.remaining_s:
            raise DeadlineExceeded("the queue is longer than the time left for this request")
        is_large = size_bytes > self.large_bytes
        pool = self._large_pool if is_large else self._pool
        with self._lock:
            self._admitted += 1
            self._large += is_large
        jobs = [job]
        future = pool.submit(self._timed, jobs, deadline)
        # A job that has begun keeps its place until it ends, even when its caller has left.
        future.add_done_callback(lambda _: self._release(is_large))
        work = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(gone()) if gone is not None else None
        try:
            await asyncio.wait(
                {work} if leaving is None else {work, leaving},
                timeout=max(0.0, deadline.remaining_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return work.result()
            if leaving is not None and leaving.done():
                raise ClientGone
            raise DeadlineExceeded("the time for this request is used up")
        finally:
            if leaving is not None:
                leaving.cancel()
            if not work.done():
                deadline.give_up()
                work.cancel()
                if future.cancel():
                    # The pool keeps an empty place; what the job holds, a body, must go now.
                    jobs.clear()

    def _timed(self, jobs: list[Callable[[], T]], deadline: Deadline) -> T:
        deadline.check()  # it may have passed while waiting
        job = jobs.pop()
        with self._lock:
            self._running += 1
        begun = time.monotonic()
        try:
            return job()
        finally:
            with self._lock:
                self._running -= 1
                self._job_s += SMOOTHING * (time.monotonic() - begun - self._job_s)

    def _release(self, is_large: bool) -> None:
        with self._lock:
            self._admitted -= 1
            self._large -= is_large

    def close(self) -> None:
        """Waits for jobs that compute; those that wait are dropped."""
        for pool in (self._pool, self._large_pool):
            pool.shutdown(wait=True, cancel_futures=True)
