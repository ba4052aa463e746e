"""The command line as a user runs it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lungseg.cli import main
from lungseg.cli.errors import EXITS
from lungseg.formats.table import SLICES
from tests.client.conftest import Here, run
from tests.client.test_client import Scripted
from tests.conftest import encode
from tests.serving import Running, running
from tests.standin import write_bundle
from training.synthetic.phantom import Phantom, dicom_bytes


def test_a_folder_to_a_folder_with_a_table(folder: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("segment", folder, "-o", out, "--format", "png", models=models)
    assert (done.returncode, done.stderr) == (0, b"")
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["a_mask.png", "deeper/b_mask.png", "statistics.csv"]
    rows = list(csv.DictReader((out / "statistics.csv").read_text().splitlines()))
    assert tuple(rows[0]) == SLICES.columns
    for row in rows:
        mask = np.asarray(Image.open(out / row["result"]))
        assert int(row["pixels"]) == np.count_nonzero(mask)


def test_one_bad_file_gives_1_and_its_reason(folder: Path, here: Here, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no slice")
    done = here("segment", folder, "--csv", tmp_path / "t.csv")
    assert done.returncode == 1
    assert b"notes.txt: expected PNG" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["filename"] for line in lines] == ["a.dcm", "deeper/b.png"]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["error"] for row in rows] == ["", "", "unsupported_media_type"]


def test_odd_names_and_spellings(here: Here, tmp_path: Path, dicom: bytes) -> None:
    """A name that is no UTF-8 costs nobody the table, and units are spelt as people do."""
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/b\xff.dcm")).write_bytes(dicom)
    out = tmp_path / "out"
    done = here("segment", tmp_path / "in", "-o", out, "--unit", "HU")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "b\\udcff.dcm" in (out / "statistics.csv").read_text()


def test_a_file_that_cannot_be_read_fails_alone(folder: Path, here: Here) -> None:
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.bind(str(folder / "pipe"))  # can't be opened as a file, not even by root
        done = here("segment", folder / "pipe", folder / "a.dcm")
    assert done.returncode == 1
    assert done.stderr == b"pipe: the file cannot be read: No such device or address\n"
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


def test_a_server_answers_as_this_process_does(folder: Path, here: Here, service: Running) -> None:
    mine = here("segment", folder, "--threshold", "0.4")
    there = here("segment", folder, "--threshold", "0.4", "--url", service.url)
    assert (mine.returncode, there.returncode) == (0, 0)

    def stable(done: subprocess.CompletedProcess) -> list[dict]:
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        spare = ("request_id", "timings_ms")
        return [{k: v for k, v in answer.items() if k not in spare} for answer in answers]

    assert stable(mine) == stable(there)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "expected a file or folder, received an empty name"),
        (["{folder}", "--csv", "/dev/full", "-o", "{folder}"], "/dev/full: No space left"),
        (["{folder}", "--url", "{url}", "--models-dir", "x"], "--models-dir is for running here"),
        (
            ["{folder}", "-o", "{folder}", "--csv", "{folder}/a.json"],
            "{folder}/a.json is a result's",
        ),
        (["{folder}", "--url", "{url}?a=b"], "--url: expected a URL as http://"),
        (["{folder}", "--url", "http://127.0.0.1:99999"], "--url: expected a URL as http://"),
        (["{folder}", "--url", "{tls}"], "cannot be reached: wrong version number"),
        (["nowhere.png"], "expected a file or folder, received nowhere.png: there is none"),
        (["{folder}", "--format", "png"], "png of several files needs a folder"),
        (["-", "-"], "standard input can be read only once"),
        (["{folder}/a.dcm", "{folder}/../in/a.dcm"], "two slices are called a.dcm"),
        (["{folder}", "--threshold", "3"], "--threshold: expected a value less than 1"),
        (["{folder}", "--spacing-mm", "wide"], "--spacing-mm: expected two finite"),
        (["{folder}", "--window-hu", "-5"], "--window-hu: expected two finite"),
        (["{folder}", "-o", "{folder}/a.dcm"], "a folder for -o, received {folder}/a.dcm: it is"),
        (["{folder}", "-o", "{folder}/a.dcm/x"], "{folder}/a.dcm/x: Not a directory"),
        (["{folder}", "-o", ""], "expected a name after --output, received an empty one"),
        (["{folder}", "--csv", "{folder}"], "a file for --csv, received {folder}: it is a folder"),
        (["{folder}", "--csv", "-", "-o", "-"], "results and table can't both go to standard"),
        (["{folder}", "--csv", "-", "--format", "json"], "results and table can't both go to"),
        (["{folder}", "--csv", "{folder}/a.dcm", "--force"], "{folder}/a.dcm is an input itself"),
        (["{folder}", "--skip-existing"], "--skip-existing needs a folder of results"),
        (["{folder}", "--model", "nobody"], "(looked for nobody in {models})"),
        (["{folder}", "--version", "7"], "(looked for standin 7 in {models})"),
        (["{folder}", "--models-dir", "{folder}/a.dcm"], "received {folder}/a.dcm: it is none"),
        (["{folder}", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9 cannot be reached: "),
        (["{folder}", "--url", "http://u:secret@127.0.0.1:9"], "http://127.0.0.1:9 cannot be"),
        (["{folder}", "--url", "http://[::1"], "--url: expected a URL as http://"),
        (["{folder}", "--url", "localhost:8000"], "received localhost:8000"),
        (
            ["{folder}", "--url", ""],
            "--url: expected a URL as http://127.0.0.1:8000, received none",
        ),
        (["{folder}", "--url", "{url}", "--model", "nobody"], "{url} has no model nobody that"),
        (["{folder}", "--url", "{url}/elsewhere"], "{url}/elsewhere is not where lungseg answers"),
    ],
)
def test_what_cannot_be_done_at_all_gives_2_and_names_it(
    folder: Path, models: Path, service: Running, arguments: list[str], said: str, here: Here
) -> None:
    """The message has the object in the words of who called."""
    names = {"folder": folder, "models": models, "url": service.url}
    names["tls"] = service.url.replace("http", "https")
    done = here("segment", *(part.format(**names) for part in arguments))
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().startswith("lungseg: ")
    assert said.format(**names) in done.stderr.decode()
    assert "Errno" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORKERS", "x", "LUNGSEG_WORKERS: "),
        ("DECODER_MEMORY_BYTES", "1", "expected a whole number, at least 16777216, received"),
        ("MODEL_VERSION", "newest", "LUNGSEG_MODEL_VERSION: "),
        ("MODEL_VERSION", "7", "(looked for standin 7 in "),
        ("PROVIDERS", "Nowhere", "LUNGSEG_PROVIDERS: expected providers among"),
        ("MODELS_DIR", "/nowhere", "expected a folder of models, received /nowhere: it is none"),
    ],
)
def test_a_wrong_setting_is_wrong_usage(
    folder: Path, here: Here, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """It has its full name, whatever the command."""
    monkeypatch.setenv(f"LUNGSEG_{name}", value)
    done = here("segment", folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    if name in ("WORKERS", "PROVIDERS"):
        assert here("openapi").returncode == 2


def test_this_process_needs_no_key_and_takes_the_version_that_is_set(
    folder: Path, here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys are for those who call a server; a version is that of the model that is set."""
    for version in ("1", "2"):
        write_bundle(tmp_path / "models", version=version)
    write_bundle(tmp_path / "models", name="other", version="2")
    monkeypatch.setenv("LUNGSEG_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_API_KEYS_FILE", "/nowhere")
    monkeypatch.setenv("LUNGSEG_MODEL_VERSION", "1")

    def answered(*arguments: str) -> str:
        return json.loads(here("segment", folder / "a.dcm", *arguments).stdout)["model"]["version"]

    assert here("openapi").returncode == 0
    assert answered() == "1"
    assert answered("--version", "2") == "2"
    assert answered("--model", "other") == "2"


def test_limits_hold_here_as_in_a_service(
    folder: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGSEG_MAX_PIXELS", "100")
    done = here("segment", folder, "--csv", "-")
    assert done.returncode == 1
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    assert {row["error"] for row in rows} == {"image_too_large"}


def test_what_is_no_ct_is_taken_where_the_settings_say_so(
    here: Here, tmp_path: Path, phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an option; else it is refused, and with it alone nothing is done, which is 1."""
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(phantom, Modality="MR"))
    assert here("segment", tmp_path / "a.dcm").returncode == 1
    assert here("segment", tmp_path / "a.dcm", "--allow-non-ct").returncode == 0
    monkeypatch.setenv("LUNGSEG_ALLOW_NON_CT", "true")
    assert here("segment", tmp_path / "a.dcm").returncode == 0


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ((413, {}, b"<html>"), 1, "a.dcm: expected an answer of lungseg, received status 413"),
        ((429, {}, b"<html>"), 1, "a.dcm: expected an answer of lungseg, received status 429"),
        ((502, {}, b"<html>"), 1, "a.dcm: expected an answer of lungseg, received status 502"),
        ((403, {}, b"<html>"), 2, "is not where lungseg answers: received status 403"),
        ((404, {}, b'{"code": "not_found", "detail": "No."}'), 2, "is not where lungseg answers"),
        ((422, {}, b'{"code": "not_ct", "detail": "An MR."}'), 1, "a.dcm: An MR."),
        ((404, {}, b'{"code": "unknown_model", "detail": "No."}'), 2, "has no model that could"),
        ((503, {}, b'{"code": "model_not_ready", "detail": "Gone."}'), 2, "answer: Gone."),
    ],
)
def test_what_a_server_refuses_is_one_files_or_all_files_trouble(
    folder: Path, here: Here, answer: Any, code: int, said: str
) -> None:
    """What something before the service refuses may be this one's: the next file is sent."""
    with Scripted(answer) as server:
        done = here("segment", folder / "a.dcm", folder / "deeper", "--url", server.url)
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == (2 if code == 1 else 1)


@pytest.mark.parametrize("equals", [True, False])
def test_values_may_begin_with_a_minus(here: Here, tmp_path: Path, equals: bool) -> None:
    """With and without ``=``, written out or shortened; of every option that takes a value."""
    (tmp_path / "a.png").write_bytes(encode(np.full((40, 50), 99, np.uint8), "PNG"))
    options = [("--window-hu", "-1350,150"), ("--spacing", "0.5,0.5"), ("-o", "-out")]
    words = [f"{name}={value}" for name, value in options] if equals else sum(options, ())
    with contextlib.chdir(tmp_path):
        done = here("segment", "a.png", "-q", *words, "--unit", "grey")
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads((tmp_path / "-out" / "a.json").read_text())
    assert answer["image"]["intensity_unit"] == "HU"


@pytest.mark.parametrize("value", ["-1e-3", "-.5"])
def test_every_number_is_a_value(here: Here, folder: Path, value: str) -> None:
    done = here("segment", folder, "--threshold", value)
    assert b"--threshold: expected a value greater than 0" in done.stderr


def test_an_option_that_begins_another_ones_name_takes_its_value(here: Here, folder: Path) -> None:
    """``--model`` is no abbreviation of ``--models-dir``, and choices are spelt as people do."""
    done = here("segment", folder, "--model", "-x", "--format", "JSON")
    assert (done.returncode, b"looked for -x in" in done.stderr) == (2, True)


def test_a_missing_extra_is_said_once(folder: Path) -> None:
    """And how to get it, before any file is read."""
    code = (
        "import sys; sys.modules['highdicom'] = None;from lungseg.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "segment", ".", "-o", "out", "--format", "dicom-seg"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b'pip install "lungseg[dicom-seg]"' in done.stderr


def test_a_key_that_a_server_does_not_know_is_said_once(
    folder: Path, models: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(models, api_keys=("secret",)) as service:
        done = here("segment", folder, "--url", service.url)
        monkeypatch.setenv("LUNGSEG_API_KEY", "bad\nkey")
        never = here("segment", folder, "--url", service.url)
    said = f"{service.url} expects an API key that it knows: LUNGSEG_API_KEY holds none"
    assert done.stderr.decode().startswith(f"lungseg: {said}")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert never.stderr.startswith(b"lungseg: LUNGSEG_API_KEY: expected an API key of printable")


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
    for wrong in ([], ["segment"], ["segment", "x", "--force", "--skip-existing"], ["nothing"]):
        with pytest.raises(SystemExit) as raised:
            main(wrong)
        assert raised.value.code == 2


def test_the_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{code} = {meaning}" in said for code, meaning in EXITS.items())
    assert list(EXITS) == [0, 1, 2, 3, 130, 141]
