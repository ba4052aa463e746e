"""OpenTelemetry export of one span a request; needs the extra ``otel``.

Where spans go is said by the standard ``OTEL_*`` variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungseg.web.state import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


class TracingMissing(ValueError):
    """Tracing is asked for, but OpenTelemetry is not installed."""


class Tracer:
    """Writes spans with the caller's trace as their parent."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """Starts the exporter's thread.

        Args:
            exporter: None for OTLP over HTTP.

        Raises:
            TracingMissing: see the class.
        """
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter()
        except ImportError:
            raise TracingMissing(
                "tracing needs the extra otel: pip install lungseg[otel]"
            ) from None
        self._provider = TracerProvider(resource=Resource.create({"service.name": "lungseg"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lungseg")

    def record(self, exchange: Exchange, route: str, method: str, ended_ns: int) -> None:
        """Writes the span of a finished request.

        Args:
            exchange: the request.
            route: its template.
            method: its HTTP method.
            ended_ns: when it ended, in ns since the epoch.
        """
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": exchange.traceparent} if exchange.traceparent else {}
        span = self._tracer.start_span(
            f"{method} {route}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            start_time=ended_ns - int(exchange.seconds * 1e9),
        )
        span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": exchange.status,
                "lungseg.request_id": exchange.request_id,
                "lungseg.code": exchange.code,
                "lungseg.model": f"{exchange.model}/{exchange.version}",
                **{f"lungseg.{k}_ms": v for k, v in exchange.watch.spent_ms.items()},
            }
        )
        span.end(ended_ns)

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()
