"""Spans join the caller's trace; without OpenTelemetry the start says what to install."""

from __future__ import annotations

import sys

import pytest

from lungseg.inference.timing import Deadline
from lungseg.web.state import Exchange
from lungseg.web.tracing import Tracer, TracingMissing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def test_a_span_has_the_callers_trace_as_parent() -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracer = Tracer(exporter)
    exchange = Exchange(
        request_id="r",
        path="/segment",
        deadline=Deadline.after(1),
        traceparent=f"00-{TRACE}-{PARENT}-01",
        status=200,
        seconds=0.25,
    )
    exchange.watch.add("decode", 3.0)
    tracer.record(exchange, "/segment", "POST", 10**18)
    tracer.close()
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.end_time - span.start_time == 250_000_000
    assert span.attributes["lungseg.decode_ms"] == 3.0
    assert span.attributes["http.response.status_code"] == 200


def test_without_opentelemetry_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingMissing, match=r"lungseg\[otel\]"):
        Tracer()
