"""The same pipeline without HTTP, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from lungseg import pipeline
from lungseg.forms import FORMS, summary
from lungseg.inference.model import Model
from lungseg.inference.runner import Runner
from lungseg.inference.session import Engine
from lungseg.inference.timing import Stopwatch
from lungseg.query import SegmentQuery
from lungseg.settings import Settings


class Pipeline:
    """One loaded model with everything that the service does to a slice, as it is by default."""

    def __init__(self, bundle: Path) -> None:
        settings = Settings()
        engine = Engine(alone_threads=min(settings.alone_threads, settings.cores))
        self.model = Model.load(bundle, engine)
        self._shared = pipeline.Pipeline()
        self._alone = pipeline.Pipeline(runner=Runner(alone=lambda: True))

    def segment(self, content: bytes, form: str, watch: Stopwatch, *, alone: bool = False) -> None:
        chosen = self._alone if alone else self._shared
        outcome = chosen.segment(content, self.model, SegmentQuery(), watch)
        with watch.stage("encode"):
            FORMS[form].encode(outcome)
            if form != "json":
                summary(outcome.describe())


class ProcessorWatch(Stopwatch):
    """Takes the processor time of its thread: neighbours lengthen any other."""

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        begun = time.thread_time()
        yield
        self.add(name, (time.thread_time() - begun) * 1000)


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
