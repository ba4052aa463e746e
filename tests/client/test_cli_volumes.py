"""``lungseg volume`` and ``lungseg compare`` as a user runs them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import lungseg
from lungseg.cli.bar import Bar
from lungseg.formats.archive import write_archive
from lungseg.formats.table import VOLUMES
from tests.client.conftest import Here, run
from tests.client.studies import SLICES, instances_of, study
from tests.serving import Running
from tests.volume.grids import affine_of, chest, nifti, npy, nrrd


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two studies in folders of folders, one as a zip, and a zip that is damaged."""
    root = tmp_path / "in"
    study(root / "A", "1.2.3")
    study(root / "deeper" / "B", "1.2.4")
    packed = write_archive({f"{k}": one for k, one in enumerate(instances_of("1.2.5"))})
    (root / "c.zip").write_bytes(packed)
    (root / "d.zip").write_bytes(packed[:9000])
    return root


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == VOLUMES.columns
    return {row["filename"]: row for row in rows}


def test_a_folder_of_studies_to_a_folder_with_a_table(
    studies: Path, models: Path, tmp_path: Path
) -> None:
    """Each study has its files and its row, and a bad one fails alone."""
    out = tmp_path / "out"
    done = run("volume", studies, "-o", out, "--format", "NIfTI,glb", models=models)
    assert done.returncode == 1
    assert b"d.zip: expected a zip archive, received a damaged one\n" in done.stderr
    assert b"skipped, as no volumes: 2 (A/notes.txt, deeper/B/notes.txt)" in done.stderr
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    names = ("A", "deeper/B", "c")
    results = {f"{name}_{end}" for name in names for end in ("mask.nii.gz", "lungs.glb")}
    assert found == {*results, "statistics.csv"}
    rows = rows_of(out / "statistics.csv")
    assert {name: row["error"] for name, row in rows.items()} == {
        "A": "",
        "deeper/B": "",
        "c.zip": "",
        "d.zip": "malformed_request",
    }
    row = rows["deeper/B"]
    assert row["result"] == "deeper/B_mask.nii.gz; deeper/B_lungs.glb"
    labels = np.asarray(nibabel.load(out / "deeper/B_mask.nii.gz").dataobj)
    assert (int(row["voxels"]), int(row["slices"])) == (np.count_nonzero(labels), SLICES)
    sides = float(row["right_volume_ml"]) + float(row["left_volume_ml"])
    assert float(row["volume_ml"]) == pytest.approx(sides)
    assert (row["kernel"], row["kvp"], row["contrast"]) == ("SOFT", "120.0", "")


def test_what_is_done_is_left_out_and_nothing_is_overwritten_unasked(
    studies: Path, here: Here, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (studies / "A" / "notes.txt").unlink()
    asked = ("volume", studies / "A", studies / "c.zip", "-o", out, "--format", "nrrd,npz")
    assert here(*asked).returncode == 0
    before = (out / "A_mask.nrrd").read_bytes()
    refused = here(*asked)
    assert refused.returncode == 2
    assert b"would be overwritten: --skip-existing goes on" in refused.stderr
    (out / "A_mask.npz").unlink()  # a run that was stopped between two files of a volume
    (out / "A_mask.nrrd").write_bytes(b"cut off")
    again = here(*asked, "--skip-existing", "-q")
    assert (again.returncode, again.stderr) == (0, b"")
    assert (out / "A_mask.nrrd").read_bytes() == before
    assert set(rows_of(out / "statistics.csv")) == {"A", "c.zip"}
    assert b"2 of 2 volumes are done already\n" in here(*asked, "--skip-existing").stderr
    assert here(*asked, "--force").returncode == 0


def test_results_are_no_inputs(studies: Path, here: Here) -> None:
    """They may lie among the studies: a second run sees the same volumes."""
    forms = "json,nifti,nrrd,npz,dicom-seg,dicom-sr,stl,png,zip"
    folder = studies / "deeper"
    assert here("volume", folder, "-o", folder, "--format", forms).returncode == 0
    again = here("volume", folder, "-o", folder, "--format", forms, "--skip-existing")
    assert b"1 of 1 volumes are done already" in again.stderr
    wrong = here("volume", folder, "--csv", folder / "B.json", "-o", folder)
    assert b"B.json is a result's" in wrong.stderr


def test_slices_are_told_apart_by_their_study(here: Here, tmp_path: Path) -> None:
    """Whatever folders they lie in; names hold no UID, and do not change with other studies."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for uid in ("1.2.77", "1.2.78"):
        for number, content in enumerate(instances_of(uid)):
            (flat / f"{uid[-1]}{number:03}").write_bytes(content)
    (flat / "DICOMDIR").write_bytes(b"an index")
    done = here("volume", flat, "--csv", "-")
    names = [row["filename"] for row in csv.DictReader(done.stdout.decode().splitlines())]
    assert done.returncode == 0, done.stderr
    assert len(names) == 2
    assert all(name.startswith("flat-") for name in names)
    assert not any("1.2.7" in name for name in names)
    files = sorted(path for path in flat.iterdir() if path.name.startswith("7"))
    line = json.loads(here("volume", *files).stdout)
    assert (line["filename"], line["volume"]["slices"]) == ("flat", SLICES)


def test_files_of_grids_are_volumes_by_their_content(here: Here, tmp_path: Path) -> None:
    """Whatever they are called; slices without a study are one volume for each folder."""
    root = tmp_path / "in"
    root.mkdir()
    values = chest((4, 40, 48))
    image = nifti(values, affine_of())
    (root / "a.nii").write_bytes(image)
    (root / "a.nii.gz").write_bytes(gzip.compress(image))
    (root / "b.bin").write_bytes(nrrd(values))
    (root / "c.npy").write_bytes(npy(values))
    for folder in ("x", "y"):
        for number, content in enumerate(instances_of(None)[:3]):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / f"{number}").write_bytes(content)
    out = tmp_path / "out"
    done = here("volume", root, "-o", out, "--format", "npz")
    assert (done.returncode, done.stderr) == (0, b"")
    found = sorted(path.name for path in out.iterdir())
    names = ["a.nii.gz", "a.nii", "b.bin", "c", "x", "y"]
    assert found == sorted([*(f"{name}_mask.npz" for name in names), "statistics.csv"])


def test_a_bar_shows_how_far_a_volume_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: what it is doing, and one bar that only grows."""
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", shown)
    with Bar(2, quiet=False) as bar:
        for stage in ("read", "decode", "segment"):
            for done in range(1, 5):
                bar.hear(stage, done, 4)
        bar.finish()
        bar.finish()
    lines = [line for line in shown.getvalue().split("\r") if line.strip()]
    assert lines[0].startswith("0 of 2:   0%")
    assert lines[-1].startswith("2 of 2: 100%")


def test_a_server_answers_as_this_process_does(
    studies: Path, here: Here, service: Running, tmp_path: Path
) -> None:
    """All forms and tables are the same, whoever computes."""
    asked = ("volume", studies, "--format", "json,npz,dicom-seg", "--threshold", "0.4", "-q")
    codes = [
        here(*asked, "-o", tmp_path / "here").returncode,
        here(*asked, "-o", tmp_path / "there", "--url", service.url).returncode,
    ]
    assert codes == [1, 1]
    for path in (tmp_path / "here").rglob("*"):
        other = tmp_path / "there" / path.relative_to(tmp_path / "here")
        if path.suffix == ".json":
            assert json.loads(path.read_bytes()) == json.loads(other.read_bytes())
        elif path.is_file():
            assert path.read_bytes() == other.read_bytes(), path.name


def test_standard_input_to_standard_output(here: Here, models: Path, studies: Path) -> None:
    zipped = (studies / "c.zip").read_bytes()
    done = run("volume", "-", models=models, stdin=zipped)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["filename"], answer["volume"]["slices"]) == ("stdin", SLICES)
    assert here("volume", studies / "c.zip", "--format", "stl").stdout.startswith(b"lungseg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{in}", "--format", "json,nifti"], "json and nifti together need a folder: -o FOLDER"),
        (["{in}", "--format", "nifti"], "nifti of several files needs a folder"),
        (["{in}/A", "--spacing-mm", "1,2"], "--spacing-mm: expected three finite numbers"),
        (["{in}/A", "--volume", "-1"], "--volume: expected a value greater than or equal to 0"),
        (["{in}/A", "--model", "nobody"], "looked for nobody in"),
        (["{in}/A", "--url", "{url}", "--model", "nobody"], "has no model nobody"),
        (["{in}/A", "{in}/deeper/../A"], "two volumes are called A"),
        (["{in}/nowhere"], "there is none"),
        (["{in}/A", "--url", "{url}", "--models-dir", "x"], "--models-dir is for running here"),
    ],
)
def test_what_cannot_be_done_gives_2_and_names_it(
    studies: Path, here: Here, service: Running, arguments: list[str], said: str
) -> None:
    names = {"in": str(studies), "url": service.url}
    done = here("volume", *(part.format(**names) for part in arguments))
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()


def test_an_unknown_form_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lungseg.cli.main(["volume", "x", "--format", "nifti,gif"])
    assert "expected forms among json, nifti" in capsys.readouterr().err


def test_limits_are_those_of_a_volume_and_not_of_a_folder(
    studies: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in a folder may be more than a service takes; a volume of it may not."""
    sizes = [path.stat().st_size for path in (studies / "A").rglob("*.dcm")]
    monkeypatch.setenv("LUNGSEG_MAX_VOLUME_BYTES", str(sum(sizes) - 1))
    assert here("volume", studies / "A").returncode == 0
    monkeypatch.setenv("LUNGSEG_MAX_VOLUME_SLICES", str(SLICES - 1))
    refused = here("volume", studies / "A", "--csv", "-")
    assert (refused.returncode, b"volume_too_large" in refused.stdout) == (1, True)


@pytest.fixture
def two(here: Here, studies: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Answers for one scan, of which the later one has less lung."""
    places = []
    for name, threshold in (("before", "0.4"), ("after", "0.7")):
        done = here("volume", studies / "A", "--threshold", threshold)
        places.append(tmp_path / f"{name}.json")
        places[-1].write_bytes(done.stdout)
    return places[0], places[1]


def test_answers_and_scans_are_compared(
    two: tuple[Path, Path], here: Here, studies: Path, service: Running
) -> None:
    """An answer that a file has, and one that is computed now, here or by a server."""
    before, after = (json.loads(path.read_bytes()) for path in two)
    expected = lungseg.compare(before, after)
    assert expected["differences"]["both"]["volume_ml"]["change"] < 0

    def changes(*arguments: object) -> Any:
        done = here("compare", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert changes(*two) == expected
    assert changes(two[0], studies / "A", "--threshold", "0.7") == expected
    assert changes(two[0], studies / "A", "--threshold", "0.7", "--url", service.url) == expected
    same = changes(studies / "A", studies / "c.zip")["differences"]["both"]["volume_ml"]
    assert same["change"] == 0


def test_an_answer_may_come_by_standard_input(two: tuple[Path, Path], models: Path) -> None:
    """As ``lungseg volume`` writes it; what is a scan there is no answer."""
    expected = lungseg.compare(*(json.loads(path.read_bytes()) for path in two))
    done = run("compare", two[0], "-", models=models, stdin=two[1].read_bytes())
    assert json.loads(done.stdout) == expected
    done = run("compare", two[0], "-", models=models, stdin=b"PK")
    assert done.returncode == 2
    assert b"-: expected one JSON answer" in done.stderr


def test_a_pipe_is_read_once(here: Here, studies: Path, tmp_path: Path) -> None:
    """As a shell makes one of what another command writes."""
    os.mkfifo(pipe := tmp_path / "pipe")
    content = (studies / "c.zip").read_bytes()
    with ThreadPoolExecutor() as pool:
        written = pool.submit(pipe.write_bytes, content)
        done = here("volume", pipe, "-q")
        assert written.result() == len(content)
    assert json.loads(done.stdout)["volume"]["slices"] == SLICES


def test_a_table_of_changes_is_for_people(two: tuple[Path, Path], here: Here) -> None:
    done = here("compare", *two, "--format", "table").stdout.decode()
    heading, first, *others = done.splitlines()
    assert heading.split()[:5] == ["part", "figure", "unit", "before", "after"]
    before, after = (json.loads(path.read_bytes())["statistics"]["volume_ml"] for path in two)
    values = [f"{before:.2f}", f"{after:.2f}"]
    assert first.split()[:6] == ["both", "lungs", "volume_ml", "ml", *values]
    assert sum("third" in line for line in others) > 6
    assert any(line.startswith("incomplete_lung: ") for line in others)


def test_what_cannot_be_compared_is_said(
    two: tuple[Path, Path], here: Here, studies: Path, tmp_path: Path
) -> None:
    """Refused scans give 1 as everywhere, and what is wrongly named gives 2."""
    refused = here("compare", two[0], studies / "d.zip")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"d.zip: expected a zip archive, received a damaged one" in refused.stderr
    shutil.copy(two[0], lines := tmp_path / "lines.json")
    with lines.open("ab") as stream:
        stream.write(two[1].read_bytes())
    (tmp_path / "other.json").write_text('{"a": 1}')
    for other, said in (
        (studies, b"expected one study in "),
        (lines, b"lines.json: expected one JSON answer, received something else"),
        (tmp_path / "other.json", b"expected an answer for a volume"),
        (tmp_path / "nowhere", b"there is none"),
    ):
        done = here("compare", two[0], other)
        assert (done.returncode, done.stdout) == (2, b"")
        assert said in done.stderr
