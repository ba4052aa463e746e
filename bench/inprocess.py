"""The same pipeline without HTTP, and the bare ONNX Runtime session, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lungseg import pipeline
from lungseg.forms import FORMS, summary
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from lungseg.inference.timing import Stopwatch
from lungseg.query import SegmentQuery


class Pipeline:
    """One loaded model with everything that the service does to a slice."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self.model = Model.load(bundle, Engine(intra_op_threads=threads))
        self.pipeline = pipeline.Pipeline()
        shape = (1, *self.model.grid_size, 1)
        self.grey = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)

    def segment(self, content: bytes, form: str, watch: Stopwatch) -> None:
        query = SegmentQuery()
        outcome = self.pipeline.segment(content, self.model, query, watch)
        with watch.stage("encode"):
            FORMS[form].encode(outcome)
            if form != "json":
                summary(outcome)

    def bare(self) -> None:
        self.model.session.run(self.grey)


def closed_loop(call: Callable[[], object], threads: int, seconds: float) -> list[float]:
    """Seconds of each call made by so many threads for so long."""
    found: list[list[float]] = [[] for _ in range(threads)]
    until = time.perf_counter() + seconds

    def caller(mine: list[float]) -> None:
        while (begun := time.perf_counter()) < until:
            call()
            mine.append(time.perf_counter() - begun)

    workers = [threading.Thread(target=caller, args=(mine,)) for mine in found]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(second for mine in found for second in mine)
