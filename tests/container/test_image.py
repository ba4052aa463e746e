"""The image: what is in it, what is not, and that it needs to write nothing."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import pytest

from tests.container.engine import ROOT, compose_command, run
from tests.container.stack import IMAGE_TAG, KEY, Stack, wait_until

pytestmark = pytest.mark.container
MAX_ABOVE_BASE_BYTES = 350e6


def size(image: str) -> int:
    return int(run("docker", "image", "inspect", "--format", "{{.Size}}", image))


def test_the_image_is_small(image: str) -> None:
    """Under 350 MB above its base, bundles included."""
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", (ROOT / "Dockerfile").read_text(), re.M)
    above = size(image) - size(os.environ.get("PYTHON_IMAGE", base))
    print(f"image: {above / 1e6:.0f} MB above the base")
    assert above < MAX_ABOVE_BASE_BYTES


def test_no_compiler_no_installer_no_training_is_inside(image: str) -> None:
    """The final stage holds what serves, and runs as nobody."""
    look = (
        "import importlib.util as u, shutil, os, json;"
        "print(json.dumps({'found': [m for m in ('tensorflow', 'keras', 'tf2onnx', 'onnx', "
        "'training', 'setuptools', 'pytest') if u.find_spec(m)]"
        " + [t for t in ('gcc', 'cc', 'make', 'curl') if shutil.which(t)], 'uid': os.getuid()}))"
    )
    said = json.loads(run("docker", "run", "--rm", image, "python", "-c", look))
    assert said == {"found": [], "uid": 10001}


@pytest.fixture(scope="module")
def composed(image: str) -> str:
    """The image as the composition builds it, which is given no arguments."""
    tag = f"{IMAGE_TAG}-composed"
    run(*compose_command(), "build", "service", env={"LUNGSEG_TAG": tag})
    return f"lungseg:{tag}"


@pytest.mark.parametrize(
    ("built_by", "commit"), [("image", r"[0-9a-f]{40}(-dirty)?"), ("composed", "unknown")]
)
def test_labels_name_the_version_and_the_model_inside(
    built_by: str, commit: str, bundle: Path, request: pytest.FixtureRequest
) -> None:
    """OCI's own labels, and the bundle's hash; also from the composition, which knows no commit."""
    name = request.getfixturevalue(built_by)
    config = json.loads(run("docker", "image", "inspect", name))[0]["Config"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    contract = json.loads((bundle / "contract.json").read_text())
    assert config["Labels"]["org.opencontainers.image.version"] == project["version"]
    assert re.fullmatch(commit, config["Labels"]["org.opencontainers.image.revision"])
    assert config["Labels"]["lungseg.model"] == f"lung-unet/{bundle.name}"
    assert config["Labels"]["lungseg.model.sha256"] == contract["sha256"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]  # no shell


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("MODEL_SHA256=" + "0" * 64, r"lie about the SHA-256 of lung-unet/\d+: .* received 0{64}"),
        ("VERSION=9.9", "lie about the version: .* received 9.9"),
    ],
)
def test_an_image_whose_label_would_lie_is_not_built(
    image: str, argument: str, reason: str
) -> None:
    """For this reason alone: the same build with the truth is the image of all other tests."""
    with pytest.raises(RuntimeError, match=reason):
        run("docker", "build", "--network", "host", "--build-arg", argument, ".")


def test_an_image_s_parts_are_listed(image: str, bundle: Path, tmp_path: Path) -> None:
    """Packages of Python and of the system, and the models, as the image's own tools name them."""
    run(sys.executable, "docker/sbom.py", str(tmp_path / "image.cdx.json"), image)
    components = json.loads((tmp_path / "image.cdx.json").read_text())["components"]
    listed = {(c["bom-ref"].partition(":")[0], c["name"], c["version"]) for c in components}
    inside = run(
        "docker", "run", "--rm", image, "dpkg-query", "-W", "-f", "${Package} ${Version}\n"
    )
    system = {("system", *line.split()) for line in inside.splitlines()}
    assert len(system) > 50
    assert {part for part in listed if part[0] == "system"} == system
    assert ("model", "lung-unet", bundle.name) in listed
    asked = "import platform as p, numpy as n; print(p.python_version(), n.__version__)"
    python, numpy = run("docker", "run", "--rm", image, "python", "-c", asked).split()
    assert {("python", "python", python), (f"numpy=={numpy}", "numpy", numpy)} <= listed


def test_nothing_is_written_outside_tmp(image: str, png: bytes, tmp_path: Path) -> None:
    """Even where the root could be written, only /tmp is."""
    slice_file = tmp_path / "slice.png"
    slice_file.write_bytes(png)
    post = (
        "import sys, urllib.request as r;"
        "request = r.Request('http://127.0.0.1:8000/segment', sys.stdin.buffer.read());"
        "print(r.urlopen(request).status)"
    )
    container = run("docker", "run", "--detach", image).strip()
    try:
        wait_until("ready", lambda: "healthy" in state(container)["Health"]["Status"][:7])
        with slice_file.open("rb") as body:
            said = subprocess.run(
                ["docker", "exec", "--interactive", container, "python", "-c", post],
                stdin=body,
                capture_output=True,
                text=True,
                check=True,
            )
        changed = [line.split()[1] for line in run("docker", "diff", container).splitlines()]
    finally:
        run("docker", "rm", "--force", container)
    assert said.stdout.strip() == "200"
    assert [path for path in changed if not path.startswith("/tmp")] == []


def state(container: str) -> dict:
    return json.loads(run("docker", "inspect", container))[0]["State"]


def test_it_runs_hardened(stack: Stack) -> None:
    """As the composition starts it: read-only, no capability, no new privileges, no root."""
    for container in (*stack.replicas(), stack.gateway()):
        host = stack.inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        status = run("docker", "exec", container, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] != "0"
        assert (int(fields["CapEff"], 16), fields["NoNewPrivs"]) == (0, "1")


def test_environment_logs_and_layers_hold_no_secret(
    stack: Stack, image: str, tmp_path: Path
) -> None:
    """The key itself is nowhere, and its hash only in the mounted file."""
    with stack.client() as client:
        assert client.get("/models").status_code == 200
    for container in (*stack.replicas(), stack.gateway()):
        environment = stack.inspect(container)["Config"]["Env"]
        assert not [line for line in environment if "sha256:" in line or KEY in line]
    assert KEY not in stack.logs()
    saved = tmp_path / "image.tar"
    run("docker", "save", "--output", str(saved), image)
    assert secrets_in(saved) == []


def secrets_in(saved: Path) -> list[str]:
    """Files in an image's layers that are, or name, secrets."""
    found = []
    with tarfile.open(saved) as image:
        layers = [member for member in image.getmembers() if member.name.endswith(".tar")]
        assert layers
        for layer in layers:
            with tarfile.open(fileobj=image.extractfile(layer)) as files:
                names = [member.name for member in files.getmembers()]
            found += [
                name
                for name in names
                if name.startswith(("app/", "src/", "venv/"))
                and name.endswith((".env", ".key", "pip.conf", "api-keys", ".netrc"))
            ]
    return found


def test_the_process_is_up_quickly(image: str) -> None:
    """From `docker run` to healthy; printed, bounded loosely for a busy machine."""
    start = time.monotonic()
    container = run("docker", "run", "--detach", image).strip()
    try:
        ask = "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz')"
        command = ["docker", "exec", container, "python", "-c", ask]
        wait_until(
            "ready",
            lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0,
        )
        print(f"ready {time.monotonic() - start:.1f} s after docker run")
    finally:
        run("docker", "rm", "--force", container)
