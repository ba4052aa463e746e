"""Where FastAPI's own OpenTelemetry spans go, and what they may say; needs the extra ``otel``.

The standard ``OTEL_*`` variables name the collector and how many requests are sampled.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

SAID = ("http.request.method", "url.scheme", "network.protocol.version")
"""What a span may begin with: path, query and host are a client's words."""


class _Discreet(Sampler):
    """Decides as another sampler does, and leaves out what clients may have put in."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        found = self._inner.should_sample(*arguments, **named)
        said = {name: value for name, value in found.attributes.items() if name in SAID}
        return SamplingResult(found.decision, said, found.trace_state)

    def get_description(self) -> str:
        return self._inner.get_description()


def start_tracing() -> TracerProvider:
    """Starts the exporter's thread; ``shutdown`` sends what is left."""
    provider = TracerProvider(resource=Resource.create({"service.name": "lungseg"}))
    provider.sampler = _Discreet(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
