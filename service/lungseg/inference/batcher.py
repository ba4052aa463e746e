"""Joins arrays of several requests into one inference.

Only arrays meet here, never requests: every caller gets the rows it put in. Batches are formed
by key (model and shape), one at a time, so a model version is swapped between batches only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from lungseg.core.types import FloatArray

LOG = logging.getLogger("lungseg.batcher")
Run = Callable[[FloatArray], FloatArray]


@dataclass(slots=True, kw_only=True, eq=False)
class Pending:
    """An array on its way through the batcher."""

    key: Hashable
    run: Run
    rows: FloatArray
    result: Future[FloatArray] = field(default_factory=Future[FloatArray])
    """Becomes the N output rows; cancelling it takes the array out of the queue."""
    started_s: float = 0.0
    """When its batch began to run, on the clock of ``time.perf_counter``."""


@dataclass(slots=True, kw_only=True, eq=False)
class Batcher:
    """One thread, started at once, that takes what waits and runs it."""

    max_size: int
    """Most rows in one run, all of one key; a single larger item still runs, alone."""
    window_s: float = 0.0
    """How long a batch that isn't full waits for more; 0 = not at all."""
    on_batch: Callable[[int], None] = lambda _size: None
    """Hears the number of rows of each run."""
    _waiting: deque[Pending] = field(init=False, default_factory=deque[Pending])
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _closed: bool = field(init=False, default=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="lungseg-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Arrays that are in no batch yet."""
        return len(self._waiting)

    def submit(self, key: Hashable, run: Run, rows: FloatArray) -> Pending:
        """Puts rows, float32 of shape (N, …), into the next batch of their key.

        Arrays of equal keys may be joined along axis 0; ``run`` computes a batch, row for row.

        Raises:
            RuntimeError: the batcher is closed.
        """
        item = Pending(key=key, run=run, rows=rows)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(item)
            self._changed.notify()
        return item

    def close(self) -> None:
        """Finishes what waits, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        ended = False
        while not ended:
            try:
                ended = not self._run_one()
            except Exception:  # of a batch they come out of its futures; this one costs a batch
                LOG.exception("a batch was lost")

    def _run_one(self) -> bool:
        """Waits for a batch and runs it; False where the batcher is closed instead."""
        # In a frame of its own: callers' arrays must not live until the next request comes.
        batch = self._next_batch()
        if batch:
            _execute(batch, self.on_batch)
        return bool(batch)

    def _next_batch(self) -> list[Pending]:
        """Waits for a batch of one key; an empty one means that the batcher is closed."""
        batch: list[Pending] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                self._take(batch)
            until = time.monotonic() + self.window_s
            while not self._closed and _rows(batch) < self.max_size:
                # Other keys wait too: their turn must not depend on this window.
                if any(item.key != batch[0].key for item in self._waiting):
                    break
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    break
                self._take(batch)
        return batch

    def _take(self, batch: list[Pending]) -> None:
        """Moves waiting items into the batch, in order, as far as key and size allow."""
        passed: deque[Pending] = deque()
        while self._waiting:
            item = self._waiting.popleft()
            fits = not batch or (
                item.key == batch[0].key and _rows(batch) + len(item.rows) <= self.max_size
            )
            if not fits:
                passed.append(item)
            elif item.result.set_running_or_notify_cancel():
                batch.append(item)
        self._waiting = passed


def _rows(batch: list[Pending]) -> int:
    return sum(len(item.rows) for item in batch)


def _execute(batch: list[Pending], on_batch: Callable[[int], None]) -> None:
    """Runs a batch; when it fails, each item once more alone, so that one fails for itself."""
    try:
        on_batch(_rows(batch))
        begun = time.perf_counter()
        for item in batch:
            item.started_s = begun
        joined = batch[0].rows if len(batch) == 1 else np.concatenate([i.rows for i in batch])
        output = batch[0].run(joined)
        if len(output) != len(joined):
            raise ValueError(f"expected {len(joined)} output rows, received {len(output)}")
    except Exception as error:  # noqa: BLE001 - the caller's own to judge: it comes out of its future
        if len(batch) == 1:
            batch[0].result.set_exception(error)
            return
        for item in batch:
            _execute([item], on_batch)
        return
    start = 0
    for item in batch:
        item.result.set_result(output[start : start + len(item.rows)])
        start += len(item.rows)
