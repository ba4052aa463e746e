"""The one order of stages: decode → fit → infer → restore → measure → encode.

Called by the web layer, the command line and the benchmark alike, from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from lungseg.core.errors import DeadlineExceeded
from lungseg.core.postprocess import restore, segment
from lungseg.core.preprocess import fit
from lungseg.core.report import Report, measure
from lungseg.core.types import FloatArray, Scan, Segmentation
from lungseg.formats.read import ReadOptions, read_scan
from lungseg.inference.batcher import Batcher
from lungseg.inference.model import Model
from lungseg.inference.workers import Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller asks for; None leaves the choice to the model."""

    read: ReadOptions = field(default_factory=ReadOptions)
    threshold: float | None = None
    largest_components: int | None = None


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds spent in each stage."""

    spent_ms: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Adds the time of a ``with`` block to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - begun) * 1000)

    def add(self, name: str, spent_ms: float) -> None:
        """Adds to a stage."""
        self.spent_ms[name] = self.spent_ms.get(name, 0.0) + spent_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A slice with everything that was found in it, and the file it came from."""

    content: bytes
    model: Model
    scan: Scan
    segmentation: Segmentation
    report: Report

    def describe(self) -> dict[str, Any]:
        """The JSON answer without mask, request id and timings."""
        contract = self.model.contract
        height, width = self.scan.size
        spacing_mm = self.scan.spacing_mm
        return {
            "model": {
                "name": contract.name,
                "version": contract.version,
                "sha256": contract.sha256,
            },
            "image": {
                "width": width,
                "height": height,
                "media_type": self.scan.media_type,
                "intensity_unit": self.scan.unit,
                "spacing_mm": None if spacing_mm is None else list(spacing_mm),
            },
            **asdict(self.report),
        }


class Segmenter:
    """Runs slices through a model, alone or joined with others that wait."""

    def __init__(
        self,
        batcher: Batcher | None = None,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        """Takes what joins arrays and who hears of it.

        Args:
            batcher: None runs each array by itself.
            on_batch: hears the number of slices of each run outside the batcher.
        """
        self._batcher = batcher
        self._on_batch = on_batch

    def run(
        self,
        content: bytes,
        model: Model,
        options: Options,
        *,
        deadline: Deadline | None = None,
        watch: Stopwatch | None = None,
    ) -> Outcome:
        """Segments one encoded slice.

        Args:
            content: a file that ``read_scan`` accepts.
            model: which model.
            options: what the caller asks for.
            deadline: checked between the stages.
            watch: hears the time of each stage: decode, fit, queue, inference, restore, measure.

        Raises:
            LungsegError: see ``read_scan``.
            DeadlineExceeded: the time is used up.
        """
        watch = watch or Stopwatch()
        rule = model.contract.mask
        with _stage("decode", watch, deadline):
            scan = read_scan(content, options.read)
        with _stage("fit", watch, deadline):
            fitted = fit(scan, model.grid_size, model.contract.intensity)
        output = self.infer(model, fitted.grey, deadline=deadline, watch=watch)
        with _stage("restore", watch, deadline):
            segmentation = segment(
                restore(output, fitted.placement),
                threshold=_or(options.threshold, rule.threshold),
                largest_components=_or(options.largest_components, rule.largest_components),
            )
        with _stage("measure", watch, deadline):
            report = measure(scan, segmentation)
        if deadline:
            deadline.check()
        return Outcome(
            content=content, model=model, scan=scan, segmentation=segmentation, report=report
        )

    def infer(
        self,
        model: Model,
        grey: FloatArray,
        *,
        deadline: Deadline | None = None,
        watch: Stopwatch | None = None,
    ) -> FloatArray:
        """Computes probabilities on the network's grid.

        Args:
            model: which model.
            grey: float32 in [0, 255], shape (N, height, width, 1).
            deadline: how long to wait for a batch.
            watch: hears the time in the batcher's queue and in the network.

        Returns:
            float32 in [0, 1], shape (N, output height, output width, 1).

        Raises:
            DeadlineExceeded: the time is used up.
        """
        watch = watch or Stopwatch()
        if self._batcher is None:
            self._on_batch(len(grey))
            with _stage("inference", watch, deadline):
                return model.session.run(grey)
        begun = time.perf_counter()
        pending = self._batcher.submit((model, grey.shape[1:]), model.session.run, grey)
        try:
            output = pending.result.result(deadline.remaining_s if deadline else None)
        except (TimeoutError, CancelledError):
            pending.result.cancel()
            raise DeadlineExceeded("the time for this request is used up") from None
        watch.add("queue", (pending.started_s - begun) * 1000)
        watch.add("inference", (time.perf_counter() - pending.started_s) * 1000)
        return output


@contextmanager
def _stage(name: str, watch: Stopwatch, deadline: Deadline | None) -> Generator[None]:
    if deadline:
        deadline.check()
    with watch.stage(name):
        yield


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
