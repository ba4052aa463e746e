"""The pool seen from outside: what its queue holds, and who may fill it; the times of its jobs."""

from __future__ import annotations

import asyncio
import gc
import http.client
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lungseg.inference import workers as module
from lungseg.inference.errors import DeadlineExceeded, Overloaded
from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.inference.workers import LARGE_BODY_BYTES, ClientGone, Workers
from tests.serving import PATIENCE_S, running, wait_until
from tests.web.test_overload import announced


@dataclass
class Clock:
    """Says how long jobs took; only jobs move it."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the clock by which the pool times its jobs; deadlines keep theirs."""
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=made))
    return made


def plenty() -> Deadline:
    return Deadline.after(PATIENCE_S)


def test_how_long_a_job_would_wait_is_the_smoothed_mean_of_recent_ones(clock: Clock) -> None:
    """A tenth of the newest counts, the threads share what is ahead, a refusal says how long."""

    async def use() -> list[float]:
        workers, gate = Workers(threads=2, queue_size=4), threading.Event()
        assert await workers.run(lambda: "idle", deadline=plenty()) == "idle"
        first_s = 0.05 * 0.9  # what is taken for a job's time before any was timed, and one of 0 s
        await workers.run(lambda: clock.work(20.0), deadline=plenty())
        mean_s = first_s * 0.9 + 2.0
        waits_s, jobs = [workers.expected_wait_s], list[asyncio.Task[bool]]()
        for _ in range(5):
            jobs.append(asyncio.create_task(workers.run(gate.wait, deadline=plenty())))
            await asyncio.sleep(0)
            waits_s.append(workers.expected_wait_s)
        with pytest.raises(DeadlineExceeded, match="longer than the time left"):
            await workers.run(gate.wait, deadline=Deadline.after(3.0))
        jobs.append(asyncio.create_task(workers.run(gate.wait, deadline=plenty())))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="the queue is full") as refused:
            await workers.run(gate.wait, deadline=plenty())
        gate.set()
        assert await asyncio.gather(*jobs) == [True] * 6
        workers.close()
        return [wait_s / mean_s for wait_s in (*waits_s, refused.value.retry_after_s)]

    assert asyncio.run(use()) == pytest.approx([0, 0, 0.5, 1, 1.5, 2, 2.5])


@pytest.mark.parametrize(("threads", "queue_size", "large"), [(1, 0, 1), (1, 2, 1), (2, 3, 2)])
def test_large_bodies_begin_behind_4_mib_and_have_half_of_the_places(
    threads: int, queue_size: int, large: int
) -> None:
    """At least one; a body of exactly 4 MiB is not large, and every place is for small ones."""

    async def use() -> None:
        workers, gate = Workers(threads=threads, queue_size=queue_size), threading.Event()
        sizes = [4 * 2**20 + 1] * large + [4 * 2**20] * (threads + queue_size - large)
        jobs: list[asyncio.Task[bool]] = []
        for taken, size_bytes in enumerate(sizes):
            if taken == large:
                with pytest.raises(Overloaded):
                    workers.admit(4 * 2**20 + 1)
            workers.admit(size_bytes)
            job = workers.run(gate.wait, deadline=plenty(), size_bytes=size_bytes)
            jobs.append(asyncio.create_task(job))
            await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            workers.admit(0)
        gate.set()
        await asyncio.gather(*jobs)
        wait_until(lambda: workers.waiting + workers.running == 0)
        workers.admit(4 * 2**20 + 1)  # places are given back
        workers.close()

    asyncio.run(use())


def test_a_job_whose_time_is_up_when_its_turn_comes_is_not_begun() -> None:
    """Though nobody has told its caller yet."""

    async def use() -> None:
        workers, gate = Workers(threads=1, queue_size=1), threading.Event()
        late, begun = plenty(), list[int]()
        first = asyncio.create_task(workers.run(gate.wait, deadline=plenty()))
        second = asyncio.create_task(workers.run(lambda: begun.append(1), deadline=late))
        await asyncio.sleep(0)
        late.give_up()
        gate.set()
        # The loop that would tell the caller stands still meanwhile.
        wait_until(lambda: workers.waiting + workers.running == 0)
        with pytest.raises(DeadlineExceeded):
            await second
        assert (await first, begun) == (True, [])
        workers.close()

    asyncio.run(use())


def test_closing_waits_for_what_computes_and_drops_what_waits() -> None:
    """Whose callers hear that it is cancelled."""

    async def use() -> None:
        workers, gate = Workers(threads=1, queue_size=1), threading.Event()
        begun: list[int] = []
        first = asyncio.create_task(workers.run(gate.wait, deadline=plenty()))
        second = asyncio.create_task(workers.run(lambda: begun.append(1), deadline=plenty()))
        await asyncio.sleep(0)
        wait_until(lambda: workers.running == 1)
        closing = threading.Thread(target=workers.close)
        closing.start()
        wait_until(lambda: workers.waiting == 0)
        with pytest.raises(asyncio.CancelledError):
            await second
        assert closing.is_alive()
        gate.set()
        assert await first
        await asyncio.to_thread(closing.join, PATIENCE_S)
        assert begun == []

    asyncio.run(use())


def test_a_job_whose_caller_left_hears_of_it_at_its_next_check(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It keeps its place until then, and work that would be for nobody stops without a word."""

    async def use() -> None:
        workers, deadline = Workers(threads=1, queue_size=0), plenty()
        begun, gate, done = threading.Event(), threading.Event(), list[int]()

        def job() -> None:
            begun.set()
            gate.wait(PATIENCE_S)
            deadline.check()
            done.append(1)

        async def gone() -> None:
            await asyncio.to_thread(begun.wait, PATIENCE_S)

        with pytest.raises(ClientGone):
            await workers.run(job, deadline=deadline, gone=gone)
        assert deadline.remaining_s == -math.inf
        with pytest.raises(Overloaded):
            workers.admit(0)
        gate.set()
        wait_until(lambda: workers.running == 0)
        workers.close()
        assert done == []

    asyncio.run(use())
    gc.collect()  # an exception that nobody fetched would be logged now
    assert not caplog.records


def test_bodies_of_clients_that_left_are_let_go_at_once(models: Path) -> None:
    """Were they kept until a worker comes to their place, callers could fill the memory."""
    body = bytes(3 << 20)
    with running(models, workers=2, queue_size=2) as service, service.busy(2):
        before = psutil.Process().memory_info().rss
        for _ in range(15):
            leaving = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
            leaving.request("POST", "/segment", body)
            wait_until(lambda: service.state.workers.waiting == 1)
            leaving.close()
            wait_until(lambda: service.state.workers.waiting == 0)
        assert psutil.Process().memory_info().rss - before < 10 * len(body)


def test_large_bodies_fill_at_most_half_of_the_places(models: Path) -> None:
    large = bytes(LARGE_BODY_BYTES + 1)

    def streamed() -> Iterator[bytes]:
        yield large

    with running(models, workers=2, queue_size=2) as service:
        workers, gate = service.state.workers, threading.Event()
        deadline = Deadline.after(PATIENCE_S)
        held = [
            asyncio.run_coroutine_threadsafe(
                workers.run(gate.wait, deadline=deadline, size_bytes=len(large)), service.loop
            )
            for _ in range(2)
        ]
        try:
            wait_until(lambda: workers.waiting + workers.running == 2)
            status, retry_after, _ = announced(service, "/segment", len(large))
            assert (status, int(retry_after) >= 1) == (503, True)
            for content in (large, streamed()):
                refused = service.client.post("/segment", content=content)
                assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
                assert int(refused.headers["retry-after"]) >= 1
            assert service.client.post("/segment", content=b"small").status_code == 415
        finally:
            gate.set()
        assert all(job.result(PATIENCE_S) for job in held)
        wait_until(lambda: workers.waiting + workers.running == 0)
        assert service.client.post("/segment", content=large).status_code == 415


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
def test_who_stands_back_does_so_with_all_threads_that_he_begins() -> None:
    """By so much behind whoever made the pool, who stays as he was; and jobs of one kind only."""

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def job() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as own:
            return priority(), own.submit(priority).result()

    before = priority()
    workers = Workers(threads=1, queue_size=1, large_bytes=2 * LARGE_BODY_BYTES, niceness=2)
    try:
        for size_bytes in (0, LARGE_BODY_BYTES + 1):
            run = workers.run(job, deadline=Deadline.after(PATIENCE_S), size_bytes=size_bytes)
            expected = min(19, before + 2)
            assert asyncio.run(run) == (expected, expected)
            assert len(workers._pool._threads) == 1
            assert not workers._large_pool._threads
    finally:
        workers.close()
    assert priority() == before


def test_the_times_of_a_stopwatch_are_a_copy() -> None:
    """A thread goes on to write when its request is over and its line is written."""
    watch = Stopwatch()
    watch.add("decode", 1.0)
    for number, _ in enumerate(watch.spent_ms):
        watch.add(f"later {number}", 1.0)
    assert list(watch.spent_ms) == ["decode", "later 0"]
