"""The lock files agree with ``pyproject.toml``, which nothing else compares them with.

The project is installed with ``--no-deps``, so that a requirement that was never locked would be
missed only where it is imported.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = {"service": ["dicom-seg"], "training": ["training"], "dev": ["dev"]}
"""Which extras of the project each lock file is for."""
INSTALLERS = ("Makefile", "Dockerfile", "docker/Dockerfile.training", "tests/wheel.sh")


def locked(name: str) -> dict[str, list[Requirement]]:
    """The entries of a lock file by their names; some have one for each of several markers."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found: dict[str, list[Requirement]] = {}
    for line in re.findall(r"^([^\s#].*?) *\\\\?$", text, re.M):
        entry = Requirement(line)
        found.setdefault(canonicalize_name(entry.name), []).append(entry)
    return found


def version_of(entry: Requirement) -> Version:
    (pin,) = entry.specifier
    assert pin.operator == "=="
    return Version(pin.version)


def wanted(extras: list[str]) -> list[Requirement]:
    """What the project asks for with some extras; an extra may name others of its own."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    inner = [e for r in found if r.name == PROJECT["name"] for e in sorted(r.extras)]
    asked = [requirement for requirement in found if requirement.name != PROJECT["name"]]
    return asked + (wanted(inner) if inner else [])


def unmet(asked: list[Requirement], lock: dict[str, list[Requirement]]) -> list[str]:
    """What a lock file lacks, or pins to another version than it is asked for."""
    return [
        str(requirement)
        for requirement in asked
        for entries in [lock.get(canonicalize_name(requirement.name), [])]
        if not entries or not all(requirement.specifier.contains(version_of(e)) for e in entries)
    ]


@pytest.mark.parametrize("name", EXTRAS)
def test_what_the_project_asks_for_is_locked(name: str) -> None:
    """Each requirement is there by its name, in a version that it allows."""
    asked = wanted(EXTRAS[name])
    assert len(asked) >= len(PROJECT["dependencies"])
    assert unmet(asked, locked(name)) == []


def test_the_development_lock_is_for_every_extra() -> None:
    """`make setup` installs it alone, and it brings what tests import of any of them but Ray."""
    extras = PROJECT["optional-dependencies"].keys() - {"ray"}
    assert unmet(wanted(sorted(extras)), locked("dev")) == []
    asked = [Requirement(line) for line in PROJECT["optional-dependencies"]["ray"]]
    assert unmet(asked, locked("ray")) == []


@pytest.mark.parametrize("name", ["annotation", "build", "kserve", "ray"])
def test_what_an_input_file_asks_for_is_locked(name: str) -> None:
    """So are the requirements of the build, which are those of `pyproject.toml`."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").split()
    assert unmet([Requirement(line) for line in lines], locked(name)) == []
    if name == "build":
        assert lines == PYPROJECT["build-system"]["requires"]


@pytest.mark.parametrize("name", EXTRAS)
def test_nothing_is_locked_that_nobody_asks_for(name: str) -> None:
    """Each entry for every system is reached from the project's own, by what is installed."""
    reached: set[tuple[str, frozenset[str]]] = set()
    ahead = wanted(EXTRAS[name])
    while ahead:
        requirement = ahead.pop()
        node = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if node in reached:
            continue
        reached.add(node)
        for inner in map(Requirement, metadata.requires(node[0]) or []):
            extras = ("", *node[1])
            if not inner.marker or any(inner.marker.evaluate({"extra": e}) for e in extras):
                ahead.append(inner)
    everywhere = {name for name, entries in locked(name).items() if not entries[0].marker}
    assert everywhere - {name for name, _ in reached} == set()


@pytest.mark.parametrize("name", ["service", "training", "build"])
def test_what_is_tested_is_what_is_installed(name: str) -> None:
    """Images and wheel get the very versions and files that the tests ran with."""
    tested = locked("dev")
    for package, entries in locked(name).items():
        assert {version_of(e) for e in entries} <= {version_of(e) for e in tested[package]}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name
)
def test_requirements_are_pinned_hashed_and_without_addresses(path: Path) -> None:
    """So that any mirror serves them, and only the tested files are installed."""
    text = path.read_text()
    assert not re.search(r"://|^\s*--(index|extra-index|find-links|trusted)", text, re.M)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


def test_the_service_is_installed_without_what_trains() -> None:
    """No TensorFlow, Keras or ONNX among the service's requirements."""
    text = (ROOT / "requirements" / "service.txt").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", text, re.M))
    assert "onnxruntime" in names
    assert not names & {"tensorflow", "keras", "tf2onnx", "onnx", "pytest"}


@pytest.mark.parametrize("name", INSTALLERS)
def test_nothing_is_installed_without_a_hash(name: str) -> None:
    """By any command of ours: only what is locked, or the project itself without requirements."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    shorthand = re.search(r"^PIP := (.*)$", text, re.M)
    text = text.replace("$(PIP)", shorthand[1] if shorthand else "")
    lines = re.findall(r"^(?:.*\bpip install\b(?!.*\$@)|pip ).*$", text, re.M)
    assert lines
    assert [line for line in lines if not re.search("--require-hashes|--no-deps", line)] == []
