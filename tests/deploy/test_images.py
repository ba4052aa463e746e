"""What images are made from and labelled with, and the scripts that see to both."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile", "docker/Dockerfile.training")
COMPOSITIONS = (
    "docker-compose.yml",
    "docker/compose.monitoring.yml",
    "docker/compose.training.yml",
    "docker/orthanc/compose.yml",
)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
DIGEST = "sha256:" + "0123456789abcdef" * 4
DOCKER = """#!/usr/bin/env bash
[[ $1 == pull ]] && exec test "${{!#}}" != "{unknown}"
echo "some/mirror@sha256:{wrong}"
name="${{!#}}"
echo "${{name%:*}}@{digest}"
"""
"""Pulls all but one image, and knows each by a mirror's digest as well."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def arguments(name: str) -> dict[str, str]:
    """The defaults of a Dockerfile's build arguments."""
    return dict(re.findall(r"^ARG (\w+)=(.*)$", text_of(name), re.M))


def newest() -> Path:
    """The newest version of the default model."""
    versions = (ROOT / "models" / "lung-unet").iterdir()
    return max((v for v in versions if v.name.isdecimal()), key=lambda v: int(v.name))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_that_is_built_without_arguments_is_labelled_with_the_truth(name: str) -> None:
    """As a composition builds it: the project's version, the newest model, no made-up commit."""
    model = newest()
    expected = {"VERSION": VERSION, "REVISION": "unknown"}
    if name == "Dockerfile":
        content = (model / "model.onnx").read_bytes()
        expected["MODEL"] = f"lung-unet/{model.name}"
        expected["MODEL_SHA256"] = hashlib.sha256(content).hexdigest()
    found = arguments(name)
    assert {key: found[key] for key in expected} == expected
    label = text_of(name).partition("\nLABEL ")[2]
    assert set(re.findall(r"\$\{(\w+)\}", label)) == set(expected)


@pytest.mark.parametrize(
    ("name", "service"), [("docker-compose.yml", "service"), (COMPOSITIONS[2], "training")]
)
def test_a_composition_says_nothing_else_into_the_labels(name: str, service: str) -> None:
    """Base and commit come from the environment; a tag is no version."""
    build = yaml.safe_load(text_of(name))["services"][service]["build"]
    base = arguments(build.get("dockerfile", "Dockerfile"))["PYTHON_IMAGE"]
    assert build["args"] == {
        "PYTHON_IMAGE": f"${{PYTHON_IMAGE:-{base}}}",
        "REVISION": "${REVISION:-unknown}",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"VERSION": "9.9"}, f"about the version: expected {VERSION}, received 9.9"),
        ({"VERSION": ""}, f"about the version: expected {VERSION}, received nothing"),
        ({"MODEL_SHA256": "0" * 64}, f"about the SHA-256 of lung-unet/{newest().name}: expected "),
        ({"MODEL_SHA256": ""}, ", received nothing"),
        ({"MODEL": "lung-unet/1"}, "about the SHA-256 of lung-unet/1: expected "),
        ({"MODEL": "lung-unet/none"}, "models/lung-unet/none/model.onnx"),
        ({"MODEL": ""}, "models//model.onnx"),
    ],
)
def test_a_label_that_would_lie_ends_the_build(
    change: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Wrong, missing, or another model's; the Dockerfile's own command says the reason."""
    digest = hashlib.sha256((newest() / "model.onnx").read_bytes()).hexdigest()
    said = {"VERSION": VERSION, "MODEL": f"lung-unet/{newest().name}", "MODEL_SHA256": digest}
    for name in ("pyproject.toml", "models", "docker/check-labels.sh"):
        (tmp_path / Path(name).name).symlink_to(ROOT / name)
    (command,) = re.findall(r"^RUN (.*check-labels.*)$", text_of("Dockerfile"), re.M)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]} | said | change,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(message)
    assert message in done.stderr
    assert bool(done.stderr) == bool(message)


def test_every_base_image_can_be_replaced_and_is_one() -> None:
    """By a variable, with a mirror or a digest; the two Dockerfiles share theirs."""
    bases = {name: arguments(name)["PYTHON_IMAGE"] for name in DOCKERFILES}
    assert len(set(bases.values())) == 1
    for name in DOCKERFILES:
        froms = re.findall(r"^FROM (\S+)", text_of(name), re.M)
        assert set(froms) == {"${PYTHON_IMAGE}"}
    for name in COMPOSITIONS:
        for image in re.findall(r"^\s+image: (.*)$", text_of(name), re.M):
            assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-\S+:\S+\}|lungseg(-training)?:\S+", image), (
                image
            )


def checkout(folder: Path, unknown: str = "") -> Path:
    """The files that name images and the script beside them, with a Docker that knows digests."""
    for name in (*DOCKERFILES, *COMPOSITIONS, "docker/pin-images.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    docker = folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(unknown=unknown, wrong="f" * 64, digest=DIGEST))
    docker.chmod(0o755)
    return folder


def pin(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    command = [folder / "docker" / "pin-images.sh"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_images_are_pinned_to_the_digests_of_their_registries(tmp_path: Path) -> None:
    """In every file, behind the tag, and again where there was an older digest; nothing else."""
    folder = checkout(tmp_path)
    names = (*DOCKERFILES, *COMPOSITIONS)
    before = {name: (folder / name).read_text() for name in names}
    assert pin(folder).returncode == 0
    pinned = {name: (folder / name).read_text() for name in names}
    places = sum(text.count(f"@{DIGEST}") for text in pinned.values())
    assert places == sum(len(re.findall(r"_IMAGE(?:=|:-)", text)) for text in before.values())
    assert {name: text.replace(f"@{DIGEST}", "") for name, text in pinned.items()} == before
    for name, text in pinned.items():
        (folder / name).write_text(text.replace(DIGEST, "sha256:" + "a" * 64))
    said = pin(folder).stdout
    assert {name: (folder / name).read_text() for name in names} == pinned
    assert f"nginx:stable-bookworm@{DIGEST}\n" in said


@pytest.mark.parametrize("unknown", ["grafana/grafana:12.1.0", "python:3.11-slim-bookworm"])
def test_images_are_all_pinned_or_none(unknown: str, tmp_path: Path) -> None:
    """A registry that cannot be reached leaves every file as it was."""
    folder = checkout(tmp_path, unknown)
    names = (*DOCKERFILES, *COMPOSITIONS)
    before = {name: (folder / name).read_text() for name in names}
    assert pin(folder).returncode != 0
    assert {name: (folder / name).read_text() for name in names} == before
