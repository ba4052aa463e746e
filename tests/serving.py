"""The real service behind a real socket, in a thread of the test process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from lungseg.app import SURFACES, create_app
from lungseg.inference.timing import Deadline
from lungseg.inference.workers import LARGE_BODY_BYTES
from lungseg.server import configured
from lungseg.settings import Settings
from lungseg.web.state import State
from lungseg.web.surface import Surface

PATIENCE_S = 30.0


def settings(models: Path, **changes: Any) -> Settings:
    """Settings that look at no environment file and serve the stand-in."""
    values = {"models_dir": models, "model": "standin", "workers": 2, "reload_interval_s": 0}
    values["port"] = 0  # any free one
    return Settings(_env_file=None, **(values | changes))


class Running:
    """A started service: ``client`` for its address, ``state`` for what tests cannot post."""

    def __init__(self, wanted: Settings, surfaces: tuple[Surface, ...]) -> None:
        app = create_app(wanted, surfaces)
        self.server = uvicorn.Server(configured(app, wanted))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        wait_until(lambda: self.server.started or not self._thread.is_alive())
        if not self.server.started:
            raise RuntimeError("the service did not start")
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve()

    @contextlib.contextmanager
    def busy(self, jobs: int, size_bytes: int = 0) -> Iterator[None]:
        """Keeps places in the pool and its queue taken, as long jobs of that size would."""
        gate = threading.Event()
        workers = self.state.workers
        deadline = Deadline.after(PATIENCE_S)
        taken = [
            asyncio.run_coroutine_threadsafe(
                workers.run(gate.wait, deadline=deadline, size_bytes=size_bytes), self.loop
            )
            for _ in range(jobs)
        ]
        large = size_bytes > LARGE_BODY_BYTES
        computing = min(jobs, max(1, workers.threads // 2) if large else workers.threads)
        # A job that waits only until its thread wakes up would free a place later.
        wait_until(lambda: (workers.running, workers.waiting) == (computing, jobs - computing))
        try:
            yield
        finally:
            gate.set()
            for job in taken:
                job.result(PATIENCE_S)

    @contextlib.contextmanager
    def inferring(self) -> Iterator[None]:
        """Keeps the batcher at one inference, as a slow network would."""
        began, gate = threading.Event(), threading.Event()

        def job(rows: np.ndarray) -> np.ndarray:
            began.set()
            gate.wait(PATIENCE_S)
            return rows

        rows = np.zeros((1, 1, 1, 1), np.float32)
        taken = self.state.pipeline.runner.batcher.submit("a long inference", job, rows)
        try:
            assert began.wait(PATIENCE_S)
            yield
        finally:
            gate.set()
            taken.result.result(PATIENCE_S)

    @property
    def state(self) -> State:
        return self.server.lifespan.state["lungseg"]

    def wait_ready(self) -> None:
        wait_until(lambda: self.client.get("/readyz").status_code == 200)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self._thread.join(PATIENCE_S)


@contextlib.contextmanager
def running(
    models: Path,
    *,
    ready: bool = True,
    surfaces: tuple[Surface, ...] = SURFACES,
    **changes: Any,
) -> Iterator[Running]:
    """Starts the service, and stops it afterwards."""
    service = Running(settings(models, **changes), surfaces)
    try:
        if ready:
            service.wait_ready()
        yield service
    finally:
        service.stop()


def wait_until(condition: Any, patience_s: float = PATIENCE_S) -> None:
    """Waits for a condition, and fails when it never comes true."""
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the condition never came true")
        time.sleep(0.005)
