"""The scripts of ``docker/`` and ``.ci/``: without arguments, and when something fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.container import engine as container_engine

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p for top in ("docker", "tests") for p in (ROOT / top).rglob("*.sh"))
ENGINE = """#!/usr/bin/env bash
echo "$*" >> "{calls}"
case "$1 ${{!#}}" in
  "inspect unknown") echo "no such object" >&2; exit 1 ;;
  "inspect "*) echo healthy ;;
esac
"""
"""Answers as Docker's command does; one container is unknown to it."""


def run(script: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    command = [str(ROOT / "docker" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_the_first_failure(script: Path) -> None:
    """Those of a pipe and of an unset variable too, and each can be run as it is."""
    assert "set -euo pipefail" in script.read_text().splitlines()
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    """In any script of the repository."""
    command = ["shellcheck", ROOT / ".ci" / "run", *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("rolling-restart.sh", ()),
        ("rolling-restart.sh", ("",)),
        ("image-size.sh", ()),
        ("image-size.sh", ("base",)),
        ("nginx/certificate.sh", ("--days", "9")),
        ("nginx/certificate.sh", ("a", "b", "c")),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(script: str, arguments: tuple[str, ...]) -> None:
    """Nothing to do is no success: a name that came to nothing would go unseen."""
    done = run(script, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: docker/{script} ")


def engine(folder: Path) -> tuple[Path, Path]:
    """A folder with a program ``docker``, and the file of what it was asked for."""
    program, calls = folder / "docker", folder / "calls"
    program.write_text(ENGINE.format(calls=calls))
    program.chmod(0o755)
    calls.touch()
    return folder, calls


def test_replicas_are_restarted_in_their_order(tmp_path: Path) -> None:
    """Each once."""
    path, calls = engine(tmp_path)
    assert run("rolling-restart.sh", "one", "two", path=path).returncode == 0
    asked = [line for line in calls.read_text().splitlines() if line.startswith("restart")]
    assert asked == ["restart --time 30 one", "restart --time 30 two"]


def test_a_name_that_is_no_replica_restarts_none(tmp_path: Path) -> None:
    """Also those before it: a round is whole or not begun."""
    path, calls = engine(tmp_path)
    done = run("rolling-restart.sh", "one", "unknown", path=path)
    assert done.returncode == 2
    assert "unknown is no container with a health check" in done.stderr
    assert "restart" not in calls.read_text()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_certificate_is_made_or_the_reason_said(tmp_path: Path) -> None:
    """openssl's own words are shown where it fails only."""
    made = run("nginx/certificate.sh", "scans.example", str(tmp_path))
    assert (made.returncode, made.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"gateway.crt", "gateway.key"}
    (tmp_path / "sub" / "gateway.key").mkdir(parents=True)
    failed = run("nginx/certificate.sh", "scans.example", str(tmp_path / "sub"))
    assert failed.returncode == 1
    assert "openssl made no certificate for scans.example" in failed.stderr


STEPS = ("setup", "pip-check", "check", "test", "test-wheel", "sbom", "test-container")
"""The targets that `.ci/run` makes, in their order."""
CLOSING = "=== 2 failed, 30 passed, 1 skipped in 9.87s (0:00:09) ==="
NOT_ALL = "every step ended well, yet not all was run; skipped tests"
MAKE = """#!/usr/bin/env bash
echo "$1" >> "{folder}/made"
if [[ -f "{folder}/$1" ]]; then . "{folder}/$1"; fi
"""
"""Stands in for Make: a target does what the file of its name says, or nothing."""


def ci(folder: Path, **targets: str) -> tuple[int, list[str]]:
    """The exit code of `.ci/run` and what it prints, with targets that are small scripts."""
    (folder / "make").write_text(MAKE.format(folder=folder))
    (folder / "apt-get").write_text("#!/bin/sh\n")  # what it would install is no matter here
    for name in ("make", "apt-get"):
        (folder / name).chmod(0o755)
    for name, script in targets.items():
        (folder / name.replace("_", "-")).write_text(script)
    done = subprocess.run(
        [ROOT / ".ci" / "run"],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (folder / "made").read_text().split() == [*STEPS]
    return done.returncode, done.stdout.splitlines()


def pytest_says(closing: str, *reasons: str) -> str:
    lines = [f"SKIPPED [1] tests/some/test_it.py:7: {reason}" for reason in reasons]
    return "\n".join(["cat <<'END'", *lines, closing, "END", ""])


@pytest.mark.parametrize(
    ("targets", "code", "last"),
    [
        ({}, 0, "all steps passed"),
        ({"check": "exit 2"}, 1, "failed: check"),
        ({"setup": "exit 2", "sbom": "exit 1"}, 1, "failed: install sbom"),
        (
            {"test_container": pytest_says("=== 27 skipped in 3.21s ===", "no engine: it's off")},
            0,
            f"{NOT_ALL}: 27 of container (no engine: it's off)",
        ),
        (
            {
                "test": pytest_says(CLOSING, "needs nginx") + "exit 1",
                "test_container": pytest_says("== 3 passed, 2 skipped in 1.00s ==", "b", "a", "b"),
            },
            1,
            "failed: test; skipped tests: 1 of test (needs nginx), 2 of container (a; b)",
        ),
    ],
    ids=["nothing", "failure", "failures", "skipped", "both"],
)
def test_ci_says_that_all_passed_only_where_nothing_failed_or_was_skipped(
    targets: dict[str, str], code: int, last: str, tmp_path: Path
) -> None:
    """Its last line counts and names the rest, whichever step it was; no step is left out."""
    found, said = ci(tmp_path, **targets)
    assert (found, said[-1]) == (code, last)
    assert said.count("all steps passed") == (last == "all steps passed")


def test_ci_ends_with_the_closing_line_of_the_tests(tmp_path: Path) -> None:
    """That of the suite, not of the containers; and it says so where the tests did not run."""
    containers = pytest_says("=== 27 passed in 3.21s ===")
    assert ci(tmp_path, test=pytest_says(CLOSING), test_container=containers)[1][-2] == CLOSING
    (tmp_path / "made").unlink()
    said = ci(tmp_path, test="echo broken; exit 2")[1]
    assert said[-2] == "no closing line: the tests did not run"


def lab(folder: Path, script: str) -> dict[str, str]:
    """An environment with a Docker that answers once there is a file `up`, and a script's start."""
    for name, text in {
        "docker": '[[ -f "{0}/up" ]]',
        "lab": 'echo try >> "{0}/tries"; ' + script,
    }.items():
        (folder / name).write_text("#!/usr/bin/env bash\n" + text.format(folder) + "\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "CONTAINER_LAB": str(folder / "lab")}


def test_where_no_engine_starts_ci_names_the_containers_that_were_skipped(tmp_path: Path) -> None:
    """A start is tried twice; real tests are skipped then, counted, and the reason is shown."""
    environment = lab(tmp_path, "echo no such kernel; exit 3")
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a second less
    exports = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
    tests = f"{exports}{sys.executable} -m pytest -m container tests/container/test_subpath.py"
    code, said = ci(tmp_path, test_container=tests)
    count = len(
        re.findall(r"^def test_", (ROOT / "tests/container/test_subpath.py").read_text(), re.M)
    )
    script = tmp_path / "lab"
    why = f"{script} started none in 2 tries: {script}: exit 3; no such kernel"
    assert said[-1] == f"{NOT_ALL}: {count} of container (no container engine answers, and {why})"
    assert code == 0
    assert (tmp_path / "tries").read_text() == "try\n" * 2


def test_an_engine_that_starts_at_the_second_try_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No third start, and its address is known from then on; one that answers isn't started."""
    script = '[[ $(wc -l < "{0}/tries") == 2 ]] || exit 1; touch "{0}/up"; echo export DOCKER_HOST=unix:///a'
    for name, value in lab(tmp_path, script).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_HOST", "unix:///none")
    assert container_engine.start() is None
    assert os.environ["DOCKER_HOST"] == "unix:///a"
    assert container_engine.start() is None
    assert (tmp_path / "tries").read_text() == "try\n" * 2


def test_without_a_script_that_starts_engines_the_reason_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the variable to set."""
    for name, value in (lab(tmp_path, "") | {"CONTAINER_LAB": str(tmp_path / "none")}).items():
        monkeypatch.setenv(name, value)
    assert container_engine.start() == (
        f"no container engine answers, and CONTAINER_LAB names no script but {tmp_path / 'none'}"
    )
