"""The scripts in ``docker/``: what they do without arguments, and when something fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
