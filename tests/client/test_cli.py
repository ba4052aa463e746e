"""The command line as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.cli import main
from lungseg.formats.table import COLUMNS
from tests.serving import Running


@pytest.fixture
def folder(tmp_path: Path, dicom: bytes, grey_png: bytes) -> Path:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "a.dcm").write_bytes(dicom)
    (tmp_path / "in" / "deeper" / "b.png").write_bytes(grey_png)
    (tmp_path / "in" / ".hidden").write_bytes(b"x")
    return tmp_path / "in"


def run(*arguments: object, models: Path, stdin: bytes = b"") -> subprocess.CompletedProcess:
    environment = os.environ | {"LUNGSEG_MODEL": "standin", "LUNGSEG_MODELS_DIR": str(models)}
    command = [sys.executable, "-m", "lungseg", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)


def test_a_folder_to_a_folder_with_a_table(folder: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("segment", folder, "-o", out, "--format", "png", models=models)
    assert (done.returncode, done.stderr) == (0, b"")
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["a.dcm.mask.png", "deeper/b.png.mask.png", "statistics.csv"]
    rows = list(csv.DictReader((out / "statistics.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    for row in rows:
        mask = np.asarray(Image.open(out / f"{row['filename']}.mask.png"))
        assert int(row["pixels"]) == np.count_nonzero(mask)


def test_one_bad_file_gives_1_and_its_reason(folder: Path, models: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no slice")
    done = run("segment", folder, "--csv", tmp_path / "t.csv", models=models)
    assert done.returncode == 1
    assert b"notes.txt: expected PNG" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["filename"] for line in lines] == ["a.dcm", "deeper/b.png"]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["error"] for row in rows] == ["", "", "unsupported_media_type"]


def test_odd_names_and_spellings(models: Path, tmp_path: Path, dicom: bytes) -> None:
    """A name that is no UTF-8 costs nobody the table, and units are spelt as people do."""
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/b\xff.dcm")).write_bytes(dicom)
    out = tmp_path / "out"
    done = run("segment", tmp_path / "in", "-o", out, "--unit", "HU", models=models)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "b\\udcff.dcm" in (out / "statistics.csv").read_text()


def test_a_file_that_cannot_be_read_fails_alone(folder: Path, models: Path) -> None:
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.bind(str(folder / "pipe"))  # can't be opened as a file, not even by root
        done = run("segment", folder / "pipe", folder / "a.dcm", models=models)
    assert done.returncode == 1
    assert done.stderr == b"pipe: the file cannot be read\n"
    assert json.loads(done.stdout)["filename"] == "a.dcm"


@pytest.mark.parametrize("form", ["png", "overlay", "probability", "npy", "dicom-seg"])
def test_standard_input_to_standard_output(models: Path, dicom: bytes, form: str) -> None:
    done = run("segment", "-", "-o", "-", "--format", form, models=models, stdin=dicom)
    assert done.returncode == 0, done.stderr
    if form == "npy":
        assert np.load(io.BytesIO(done.stdout)).dtype == bool
    elif form == "dicom-seg":
        assert done.stdout[128:132] == b"DICM"
    else:
        assert Image.open(io.BytesIO(done.stdout)).format == "PNG"


def test_a_server_answers_as_this_process_does(
    folder: Path, models: Path, service: Running
) -> None:
    here = run("segment", folder, "--threshold", "0.4", models=models)
    there = run("segment", folder, "--threshold", "0.4", "--url", service.url, models=models)
    assert (here.returncode, there.returncode) == (0, 0)

    def stable(done: subprocess.CompletedProcess) -> list[dict]:
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        spare = ("request_id", "timings_ms")
        return [{k: v for k, v in answer.items() if k not in spare} for answer in answers]

    assert stable(here) == stable(there)


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "nowhere.png"],
        ["segment", "{folder}", "--format", "png"],
        ["segment", "{folder}", "--url", "http://127.0.0.1:9"],
        ["segment", "{folder}", "--url", "http://[::1"],
        ["segment", "{folder}", "--url", "foo:1/x"],
        ["segment", "{folder}", "--models-dir", "{folder}"],
        ["segment", "-", "-"],
        ["segment", "{folder}/a.dcm", "{folder}/../in/a.dcm"],
        ["segment", "{folder}", "--model", "nobody"],
        ["segment", "{folder}", "--threshold", "3"],
        ["segment", "{folder}", "--spacing-mm", "wide"],
    ],
)
def test_what_cannot_be_done_at_all_gives_2(
    folder: Path, models: Path, arguments: list[str]
) -> None:
    done = run(*(part.format(folder=folder) for part in arguments), models=models)
    assert done.returncode == 2, done.stderr
    assert done.stdout == b""
    assert done.stderr.startswith(b"lungseg: ")
    assert b"Traceback" not in done.stderr


def test_what_computes_nothing_here_loads_no_network(dicom: bytes, service: Running) -> None:
    """Help, version, sample and a server's callers do not wait for ONNX Runtime or FastAPI."""
    code = (
        "import sys; from lungseg.cli import main;"
        "main(sys.argv[1:]);"
        "sys.exit(' '.join({'onnxruntime', 'fastapi', 'starlette'} & set(sys.modules)) or 0)"
    )
    for arguments in (["sample"], ["segment", "-", "--url", service.url]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], input=dicom, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_an_empty_folder_and_wrong_usage_give_2(tmp_path: Path) -> None:
    assert main(["segment", str(tmp_path)]) == 2
    with pytest.raises(SystemExit) as raised:
        main(["segment"])
    assert raised.value.code == 2
