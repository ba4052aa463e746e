"""The pool seen from outside: what its queue holds, and who may fill it; the times of its jobs."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.inference.workers import LARGE_BODY_BYTES
from tests.serving import PATIENCE_S, running, wait_until


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


def test_the_times_of_a_stopwatch_are_a_copy() -> None:
    """A thread goes on to write when its request is over and its line is written."""
    watch = Stopwatch()
    watch.add("decode", 1.0)
    for number, _ in enumerate(watch.spent_ms):
        watch.add(f"later {number}", 1.0)
    assert list(watch.spent_ms) == ["decode", "later 0"]
