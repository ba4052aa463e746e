"""The README: what it shows is what happens, against the model in ``models/``."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.examples import (
    ADDRESS,
    ROOT,
    blocks,
    commands,
    environment,
    prepare,
    run,
    run_line,
)
from tests.serving import Running, running
from training.synthetic.phantom import make_phantom

README = "README.md"
MOST_LINES = 120
LEFT_OUT = "…"
OTHER_PROCESSOR = 1e-3
"""Relative: a network's last bit differs there, and may tip a pixel that lies at the threshold."""
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def shipped() -> Iterator[Running]:
    """The service with the model that the repository ships."""
    with running(ROOT / "models", model="lung-unet") as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the files that the examples name."""
    return prepare(tmp_path)


def test_the_readme_is_short_and_its_examples_are_found() -> None:
    """An edit that hides the examples from these tests fails here."""
    assert len((ROOT / README).read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert len(commands(README)) >= 4
    assert [ADDRESS in block for block in blocks(README, "python")] == [True]
    assert len(blocks(README, "json")) == 1


@needs_curl
def test_the_commands_of_the_readme_succeed(shipped: Running, folder: Path) -> None:
    """In order, by a shell, in a folder with the files that they name."""
    for line in commands(README):
        run_line(line, shipped.port, folder)


@needs_curl
def test_the_answer_shown_is_the_answer_given(shipped: Running, folder: Path) -> None:
    """Every member and value that the README shows is the first command's answer."""
    (shown,) = blocks(README, "json")
    answer = json.loads(run_line(commands(README)[0], shipped.port, folder))
    assert_shows(json.loads(shown), answer, "answer")


def assert_shows(shown: Any, given: Any, place: str) -> None:
    """``…`` stands for any value, for the rest of a text, and as a member for all left out."""
    if isinstance(shown, dict):
        members = [name for name in shown if name != LEFT_OUT]
        assert members == [name for name in given if name in members], place
        assert LEFT_OUT in shown or members == list(given), place
        for name in members:
            assert_shows(shown[name], given[name], f"{place}.{name}")
    elif isinstance(shown, str) and shown.endswith(LEFT_OUT):
        rest = shown.removesuffix(LEFT_OUT)
        assert not rest or given.startswith(rest), place
    elif isinstance(shown, int | float):
        assert shown == pytest.approx(given, rel=OTHER_PROCESSOR), place
    else:
        assert shown == given, place


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": {"name": "lung-unet"}},
        {"model": {"name": "lung-unet", "version": "1"}},
        {"model": "…", "speed": "…"},
        {"model": {"name": "x…", "…": "…"}},
        {"model": {"version": "2", "name": "lung-unet"}},
    ],
    ids=[
        "left out in silence",
        "other value",
        "member too many",
        "other beginning",
        "other order",
    ],
)
def test_a_wrong_answer_in_the_readme_would_be_noticed(wrong: dict[str, Any]) -> None:
    """The comparison itself can fail."""
    given = {"model": {"name": "lung-unet", "version": "2"}}
    assert_shows({"model": {"name": "lung-…", "version": "2"}}, given, "answer")
    with pytest.raises(AssertionError):
        assert_shows(wrong, given, "answer")


def test_the_program_of_the_readme_runs(shipped: Running, folder: Path) -> None:
    """The library and the client give the same statistics of the same slice."""
    (program,) = blocks(README, "python")
    script = program.replace(ADDRESS, f"127.0.0.1:{shipped.port}")
    by_library, of_volume, by_server = run([sys.executable, "-c", script], folder).splitlines()
    assert float(of_volume.split()[0]) > 100
    assert (folder / "mask.nii.gz").stat().st_size
    assert by_library == by_server
    assert "area_mm2" in by_library


def test_the_server_of_the_readme_starts_and_stops(folder: Path) -> None:
    """``lungseg serve`` as it stands there, at any free port; SIGTERM ends it with status 0."""
    (line,) = re.findall(r"^(lungseg serve .*?)  +#", "\n".join(blocks(README, "sh")), re.M)
    line = re.sub(r"--port \d+", "--port 0", line)
    with subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        cwd=folder,
        env=environment(folder),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        try:
            started = (re.search(r"running on (http://\S+:\d+)", line) for line in process.stderr)
            url = next(found[1] for found in started if found)
            assert httpx.get(f"{url}/readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait() == 0
        finally:
            process.kill()


def test_the_figures_are_the_cards() -> None:
    """Each row of the table of real slices is one of the model card, digit by digit."""
    card = (ROOT / "models" / "lung-unet" / "3" / "CARD.md").read_text(encoding="utf-8")
    text = (ROOT / README).read_text(encoding="utf-8").partition("| real slices |")[2]
    measured = {tuple(_cells(line)[1:5]) for line in card.splitlines() if line.startswith("| ")}
    rows = [_cells(line) for line in text.partition("\n\n")[0].splitlines()[2:]]
    assert len(rows) >= 4
    for row in rows:
        assert tuple(row[1:5]) in measured, row[0]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_shipped_model_finds_the_phantoms_lungs(shipped: Running, folder: Path) -> None:
    """Not a measure of quality, which the card gives, but proof of the whole path."""
    answer = shipped.client.post("/segment?format=png", content=(folder / "slice.dcm").read_bytes())
    mask = np.asarray(Image.open(io.BytesIO(answer.content))) > 0
    truth = make_phantom(seed=2).lungs
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
