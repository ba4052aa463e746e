"""The pool of workers seen from outside."""

from __future__ import annotations

import http.client
from pathlib import Path

import psutil

from tests.serving import PATIENCE_S, running, wait_until


def test_bodies_of_clients_that_left_are_let_go_at_once(models: Path) -> None:
    """Were they kept until a worker comes to their place, callers could fill the memory."""
    body = bytes(3 << 20)
    with running(models, workers=2, queue_size=2) as service, service.busy(2):
        before = psutil.Process().memory_info().rss
        for _ in range(40):
            leaving = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
            leaving.request("POST", "/segment", body)
            wait_until(lambda: service.state.workers.waiting == 1)
            leaving.close()
            wait_until(lambda: service.state.workers.waiting == 0)
        assert psutil.Process().memory_info().rss - before < 10 * len(body)
