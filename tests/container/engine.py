"""A real container engine: the one that answers, or one that a script starts."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAB = Path(os.environ.get("CONTAINER_LAB", ROOT.parent / "shared" / "container-lab" / "up.sh"))
RESOLVING_NGINX = (1, 27, 3)
"""The first version whose open-source edition resolves upstreams again."""


def run(*command: str, env: dict[str, str] | None = None, timeout_s: float = 900) -> str:
    """Runs a command in the repository; its output, or an error that shows it."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def answers() -> bool:
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(["docker", "version"], capture_output=True, check=False).returncode
    )


def start() -> str | None:
    """Sees to an engine; None, or why there is none."""
    if answers():
        return None
    if not LAB.is_file():
        return f"no container engine answers, and there is no {LAB} to start one (CONTAINER_LAB)"
    if os.geteuid() != 0:
        return f"no container engine answers, and only root can start one with {LAB}"
    try:
        line = run(str(LAB)).strip().splitlines()[-1]
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return f"no container engine could be started: {error}"
    os.environ["DOCKER_HOST"] = line.partition("DOCKER_HOST=")[2]
    return None if answers() else "the engine that was started does not answer"


def compose_command() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker-compose"] if plugin.returncode else ["docker", "compose"]


def gateway_image() -> str:
    """An nginx that resolves upstreams again; a stand-in is built where the image is older."""
    image = os.environ.get("NGINX_IMAGE", "nginx:stable-bookworm")
    said = run("docker", "run", "--rm", "--entrypoint", "nginx", image, "-v")
    version = tuple(int(part) for part in said.strip().rpartition("/")[2].split("."))
    if version >= RESOLVING_NGINX:
        return image
    run(
        "docker",
        "build",
        "--quiet",
        "--network",
        "host",
        "--build-arg",
        f"NGINX_IMAGE={image}",
        "--tag",
        "lungseg-test-gateway",
        "--file",
        "tests/container/gateway.Dockerfile",
        "tests/container",
    )
    return "lungseg-test-gateway"
