"""Prometheus metrics, in a collector registry of their own: two applications don't mix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from lungseg.core.quality import CODES, Flag
from lungseg.core.volume_quality import VOLUME_CODES
from lungseg.formats.decoders import Reason
from lungseg.inference.registry import Registry
from lungseg.web.errors import PROBLEMS

STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
ALARMING = ("internal_error", "overloaded", "deadline_exceeded")
"""Codes that alerts ask for: a counter that begins at its first event shows no increase then."""


class Metrics:
    """All that is counted and timed."""

    def __init__(self) -> None:
        self.collectors = CollectorRegistry()
        ProcessCollector(registry=self.collectors)
        PlatformCollector(registry=self.collectors)
        counter = partial(Counter, namespace="lungseg", registry=self.collectors)
        histogram = partial(Histogram, namespace="lungseg", registry=self.collectors)
        self.requests = counter(
            "requests", "Requests by route, status and code.", ("route", "status", "code")
        )
        self.request_seconds = histogram(
            "request_seconds",
            "Time from arrival to the last byte.",
            ("route",),
            buckets=STAGE_SECONDS,
        )
        self.stage_seconds = histogram(
            "stage_seconds", "Time in each stage of an answer.", ("stage",), buckets=STAGE_SECONDS
        )
        self.batch_size = histogram("batch_size", "Slices in one inference.", buckets=BATCH_SIZES)
        self.masks = counter("masks", "Slices that were answered with a mask, empty ones too.")
        self.flags = counter("flags", "Quality flags of those masks.", ("code",))
        for code in CODES:
            self.flags.labels(code)
        self.volumes = counter("volumes", "Volumes that were answered with a mask.")
        self.volume_flags = counter("volume_flags", "Quality flags of those volumes.", ("code",))
        for code in VOLUME_CODES:
            self.volume_flags.labels(code)
        self.load_failures = counter(
            "model_load_failures", "Bundles refused.", ("model", "version")
        )
        self.reload_failures = counter("model_reload_failures", "Failed looks at the models.")
        self.decoder_restarts = counter(
            "decoder_restarts", "Decoder processes replaced after a bad file.", ("reason",)
        )
        for reason in get_args(Reason):  # so that the first one is an increase
            self.decoder_restarts.labels(reason)

    def expect(self, routes: Iterable[str]) -> None:
        """Begins the counters that alerts ask for at 0, for each label of a route."""
        for route in routes:
            for code in ALARMING:
                self.requests.labels(route, PROBLEMS[code][0], code)

    def count_mask(self, flags: Iterable[Flag]) -> None:
        """Counts one answered slice and its flags; threads may do so."""
        self.masks.inc()
        for flag in flags:
            self.flags.labels(flag.code).inc()

    def count_volume(self, flags: Iterable[Flag]) -> None:
        """Counts one answered volume and its flags; threads may do so."""
        self.volumes.inc()
        for flag in flags:
            self.volume_flags.labels(flag.code).inc()

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when it is asked for."""
        gauge = Gauge(name, text, namespace="lungseg", registry=self.collectors)
        gauge.set_function(value)

    def watch_models(self, registry: Registry) -> None:
        """Adds the state of every model version, read when it is asked for."""
        self.collectors.register(_ModelCollector(registry))

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.collectors)


class _ModelCollector:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "lungseg_model_info",
            "1 for each loaded version.",
            labels=("name", "version", "sha256", "serving"),
        )
        refused = GaugeMetricFamily(
            "lungseg_model_refused",
            "1 for each version whose folder was refused, else 0.",
            labels=("name", "version"),
        )
        pinned = GaugeMetricFamily(
            "lungseg_model_pinned",
            "1 for each version that serves by the settings or a roll-back, not as the newest.",
            labels=("name", "version"),
        )
        for name, family in self._registry.families().items():
            if family.pin is not None:
                pinned.add_metric((name, str(family.pin)), 1)
            for version in family.versions.values():
                number = str(version.number)
                if version.model is not None:
                    serving = "true" if version is family.serving else "false"
                    sha256 = version.model.contract.sha256
                    info.add_metric((name, number, sha256, serving), 1)
                refused.add_metric((name, number), int(version.refused))
        yield info
        yield refused
        yield pinned
