"""Arrays through a model: each by itself, or joined with others that wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass

from lungseg.core.types import FloatArray
from lungseg.inference.batcher import Batcher
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.model import Model
from lungseg.inference.timing import Stopwatch


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs arrays through models, from any thread."""

    batcher: Batcher | None = None
    """What joins arrays; None runs each by itself."""
    on_batch: Callable[[int], None] = lambda _size: None
    """Hears the number of slices of each run outside the batcher."""
    alone: Callable[[], bool] = lambda: False
    """Tells whether nothing else is computed, so that a run outside the batcher may take more
    threads."""

    def infer(self, model: Model, grey: FloatArray, watch: Stopwatch) -> FloatArray:
        """Computes probabilities on the network's grid.

        Args:
            model: which model.
            grey: float32 in [0, 255], shape (N, height, width, 1).
            watch: hears the time in the batcher's queue and in the network.

        Returns:
            float32 in [0, 1], shape (N, output height, output width, 1).

        Raises:
            DeadlineExceeded: the time is used up.
        """
        if self.batcher is None:
            self.on_batch(len(grey))
            with watch.stage("inference"):
                return model.session.run(grey, alone=self.alone())
        begun = time.perf_counter()
        pending = self.batcher.submit(model, model.session.run, grey)
        try:
            output = pending.result.result(watch.deadline.remaining_s if watch.deadline else None)
        except (TimeoutError, CancelledError):
            pending.result.cancel()
            raise DeadlineExceeded("the time for this request is used up") from None
        watch.add("queue", (pending.started_s - begun) * 1000)
        watch.add("inference", (time.perf_counter() - pending.started_s) * 1000)
        return output
