"""The whole composition, up and running, and what a test does to it."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.container.engine import ROOT, compose_command, run

KEY = "test-key-5f0c1d2e3b4a59687766554433221100"
IMAGE_TAG = "test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what: str, holds: Callable[[], Any], timeout_s: float = 60) -> None:
    """Looks ten times a second whether something holds."""
    until = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if holds():
                return
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.1)


@dataclass(kw_only=True)
class Stack:
    """One composition with its own folders and ports."""

    name: str
    folder: Path
    nginx_image: str
    overrides: tuple[str, ...] = ("docker/compose.keys.yml",)
    prefix: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    https: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.https}{self.prefix}"

    def compose(self, *arguments: str) -> str:
        files = [f"--file={name}" for name in ("docker-compose.yml", *self.overrides)]
        env = {
            "NGINX_IMAGE": self.nginx_image,
            "LUNGSEG_TAG": IMAGE_TAG,
            "MODELS": str(self.models),
            "CERTS": str(self.folder / "certs"),
            "API_KEYS_FILE": str(self.folder / "api-keys"),
            "GATEWAY_HTTPS": str(self.https),
            "GATEWAY_HTTP": str(self.http),
            "LUNGSEG_RELOAD_INTERVAL_S": "2",
            **self.environment,
        }
        return run(*compose_command(), *files, "--project-name", self.name, *arguments, env=env)

    def up(self) -> None:
        self.compose("up", "--detach", "--no-build")
        wait_until("both replicas ready", lambda: self.ready() == 2)
        with self.client() as client:
            wait_until("the gateway ready", lambda: client.get("/readyz").status_code == 200)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def client(self, **options: Any) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.folder / "certs" / "gateway.crt"))
        options = {"headers": {"X-API-Key": KEY}, "timeout": 60} | options
        return httpx.Client(base_url=self.url, verify=context, **options)

    def replicas(self) -> list[str]:
        return self.compose("ps", "--quiet", "service").split()

    def gateway(self) -> str:
        return self.compose("ps", "--quiet", "gateway").strip()

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(run("docker", "inspect", container))[0]

    def ready(self) -> int:
        """Replicas whose health check passes."""
        states = [self.inspect(container)["State"] for container in self.replicas()]
        return sum(state["Running"] and state["Health"]["Status"] == "healthy" for state in states)

    def served(self) -> list[str]:
        """The version that each replica serves, asked inside of it."""
        asked = (
            "import json, urllib.request as r;"
            "url = 'http://127.0.0.1:8000/models';"
            f"request = r.Request(url, headers={{'X-API-Key': '{KEY}'}});"
            "model, = json.load(r.urlopen(request))['models'];"
            "print(*(v['version'] for v in model['versions'] if v['serving']))"
        )
        return [
            run("docker", "exec", replica, "python", "-c", asked).strip()
            for replica in self.replicas()
        ]

    def versions_on_disk(self) -> list[str]:
        names = (path.name for path in (self.models / "lung-unet").glob("[0-9]*"))
        return sorted(names, key=int)

    def logs(self) -> str:
        return self.compose("logs", "--no-color")


@contextlib.contextmanager
def running(stack: Stack, bundle: Path, key_line: str) -> Iterator[Stack]:
    """Brings a composition up with one bundle, and takes it away."""
    publish(bundle, stack.models / "lung-unet" / bundle.name)
    (stack.folder / "api-keys").write_text(key_line + "\n")
    run(str(ROOT / "docker/nginx/certificate.sh"), "localhost", str(stack.folder / "certs"))
    for path in (stack.folder, *stack.folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # read by the containers' own users
    try:
        stack.up()
        yield stack
    except BaseException:
        print(stack.logs()[-6000:])
        raise
    finally:
        stack.down()


def publish(bundle: Path, target: Path) -> None:
    """Copies a bundle beside its place and renames it, as one step for those who watch."""
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.parent / f".{target.name}.{os.getpid()}"
    shutil.copytree(bundle, half)
    half.rename(target)


@dataclass
class Outcome:
    """What became of the requests under load."""

    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


@contextlib.contextmanager
def load(stack: Stack, body: bytes, *, callers: int = 4, pause_s: float = 0.1) -> Iterator[Outcome]:
    """Callers who POST slices one after another, each on a connection of its own, until the end."""
    outcome, stop, lock = Outcome(), threading.Event(), threading.Lock()

    def call() -> None:
        while not stop.is_set():
            start = time.monotonic()
            try:
                with stack.client() as client:
                    answer = client.post("/segment?format=png", content=body)
                    with lock:
                        count = outcome.statuses.get(answer.status_code, 0)
                        outcome.statuses[answer.status_code] = count + 1
                        if answer.status_code != 200:
                            outcome.failures.append(answer.text)
            except httpx.HTTPError as error:
                with lock:
                    outcome.failures.append(repr(error))
            with lock:
                outcome.seconds.append(time.monotonic() - start)
            stop.wait(pause_s)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield outcome
    finally:
        stop.set()
        for thread in threads:
            thread.join()
