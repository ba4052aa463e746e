"""A real container engine: the one that answers, or one that a script starts."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAB = ROOT.parent / "shared" / "container-lab" / "up.sh"
"""Starts an engine and says where it listens; ``CONTAINER_LAB`` names another one."""
TRIES = 2
"""A slow start may end in an engine that answers the next one."""
START_S = 600
"""The first start fetches the engine and makes the images."""
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
    """Sees to an engine; None, or the sentence that says why there is none."""
    if answers():
        return None
    script = Path(os.environ.get("CONTAINER_LAB", LAB)).resolve()
    if not script.is_file():
        return f"no container engine answers, and CONTAINER_LAB names no script but {script}"
    for _ in range(TRIES):
        reason = started_by(script)
        if reason is None:
            return None
    return f"no container engine answers, and {script} started none in {TRIES} tries: {reason}"


def started_by(script: Path) -> str | None:
    """One try; None, or why it came to nothing, in one line."""
    try:
        lines = run(str(script), timeout_s=START_S).strip().splitlines()
    except subprocess.TimeoutExpired:
        return f"it took more than {START_S} s"
    except (RuntimeError, OSError) as error:
        said = str(error).splitlines()
        return "; ".join(dict.fromkeys((said[0], said[-1])))
    os.environ["DOCKER_HOST"] = lines[-1].partition("DOCKER_HOST=")[2] if lines else ""
    return None if answers() else "what it started does not answer"


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
