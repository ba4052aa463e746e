"""Spans join the caller's trace and quote no client; without OpenTelemetry the start says so."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lungseg.app import create_app
from tests.serving import running, settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CALLERS_WORD = "Doe-John"


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a collector of spans was sent, as OTLP over HTTP."""
    sent: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield sent
        server.shutdown()
        thread.join()


def test_a_span_has_the_callers_trace_as_parent_and_quotes_nothing(
    models: Path, grey_png: bytes, collected: list[bytes]
) -> None:
    """It names route, status, code, model and stages; never path, query, host or agent."""
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    with running(models, tracing=True) as traced:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "User-Agent": CALLERS_WORD}
        url = f"/segment?encoding=none&{CALLERS_WORD}=1"
        assert traced.client.post(url, content=grey_png).status_code == 422
        url = "/segment?encoding=none"
        assert traced.client.post(url, content=grey_png, headers=headers).status_code == 200
        assert traced.client.get(f"/{CALLERS_WORD}").status_code == 404
        assert traced.client.get("/livez").status_code == 200
    requests = [service.ExportTraceServiceRequest.FromString(body) for body in collected]
    spans = [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [span.name for span in spans] == ["POST /segment", "POST /segment", "GET"]
    whole = spans[1]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)
    found = {item.key: item.value for item in whole.attributes}
    assert found["http.response.status_code"].int_value == 200
    assert found["http.route"].string_value == "/segment"
    assert found["lungseg.code"].string_value == "ok"
    assert found["lungseg.model"].string_value == "standin/1"
    assert found["lungseg.decode_ms"].double_value > 0
    said = "".join(map(str, requests))
    assert CALLERS_WORD not in said
    assert "127.0.0.1" not in said


def test_without_opentelemetry_the_start_says_so(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named, so that it can be installed."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "lungseg.web.layers.tracing", raising=False)
    with pytest.raises(ValueError, match=r"lungseg\[otel\]"):
        create_app(settings(models, tracing=True))
