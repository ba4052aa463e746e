"""A real Prometheus reads the rules, scrapes a real service, and finds what is asked for."""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serving import Running, running, wait_until
from tests.web.test_lifecycle import free_port
from tests.web.test_monitoring import DOCKER, SELECTOR, alerts, panels

HERE = Path(__file__).parent
UNIT_TESTS = HERE / "alerts_test.yml"
RATE_INTERVAL = "10s"
"""What Grafana would put into a query for ``$__rate_interval``."""
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs prometheus and promtool (Debian's package prometheus)",
)


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def service(models: Path, grey_png: bytes) -> Iterator[Running]:
    """A service after a request that was answered and one that was refused."""
    with running(models) as started:
        assert started.client.post("/segment", content=grey_png).status_code == 200
        assert started.client.post("/segment", content=b"no picture").status_code == 415
        yield started


@pytest.fixture(scope="module")
def prometheus(
    service: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A real one with our rules, which scrapes that service as quickly as it can."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    target = {"targets": [f"127.0.0.1:{service.port}"]}
    configuration = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(DOCKER / "prometheus/alerts.yml")],
        "scrape_configs": [{"job_name": "lungseg", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                wait_until(lambda: ready(client) or process.poll() is not None)
                assert process.poll() is None, (folder / "log").read_text()
                yield client
        finally:
            process.terminate()


def ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/-/ready").status_code == 200
    return False


def values(client: httpx.Client, query: str) -> list[float]:
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return [float(item["value"][1]) for item in answer["data"]["result"]]


@needs_prometheus
def test_the_files_are_prometheuss() -> None:
    """It accepts the configuration and the rules as they are shipped."""
    for arguments in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        done = promtool("check", arguments[0], DOCKER / "prometheus" / arguments[1])
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_alerts_fire_when_they_should() -> None:
    """By the cases in ``alerts_test.yml``, whose times are no real ones."""
    done = promtool("test", "rules", UNIT_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_not() -> None:
    """So that no rule is written that nobody saw fire."""
    cases = [
        case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]  # fmt: skip
    firing = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert firing == silent == alerts().keys()


@needs_prometheus
@pytest.mark.parametrize("title", panels())
def test_every_query_of_the_dashboard_has_values(
    prometheus: httpx.Client, service: Running, grey_png: bytes, title: str
) -> None:
    """Numbers, while slices come in."""

    def has_numbers(query: str) -> bool:
        service.client.post("/segment", content=grey_png)
        return any(map(math.isfinite, values(prometheus, query)))

    for query in panels()[title]:
        asked = query.replace("$__rate_interval", RATE_INTERVAL)
        wait_until(lambda asked=asked: has_numbers(asked))


@needs_prometheus
@pytest.mark.parametrize("name", alerts())
def test_every_series_of_an_alert_is_found(prometheus: httpx.Client, name: str) -> None:
    """Also those that count what has not happened; all can be evaluated, and none fires."""
    selectors = [found.group() for found in SELECTOR.finditer(alerts()[name])]
    for selector in selectors or ['up{job="lungseg"}']:
        wait_until(lambda selector=selector: values(prometheus, selector))

    def rule() -> dict[str, object]:
        (group,) = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        return next(rule for rule in group["rules"] if rule["name"] == name)

    wait_until(lambda: rule()["health"] == "ok")
    assert rule()["state"] != "firing"
