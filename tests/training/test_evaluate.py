"""``evaluate`` and ``compare`` as a researcher runs them, on a bundle and phantom slices."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from tests.masks import segmentation
from tests.standin import write_bundle
from training.__main__ import main
from training.data.dataset import list_pairs, read_sample
from training.data.intensity import find_peaks
from training.evaluation.evaluate import (
    evaluate,
    format_table,
    measure_slice,
    predict,
    summarise,
    worst,
)
from training.synthetic.phantom import make_phantom, write_png
from training.synthetic.phantom_set import write_phantom_set
from training.synthetic.views import through_window


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms with lung and one slice without."""
    folder = tmp_path_factory.mktemp("slices")
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(4):
        phantom = make_phantom((72, 80), seed=number)
        name = f"patient-{number // 2}-{number}.png"
        mask = phantom.lungs
        if number == 3:
            phantom = replace(phantom, hu=np.full_like(phantom.hu, 40.0))
            mask = np.zeros_like(mask)
        write_png(phantom, folder / "images" / name)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / name)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle: whatever is dark is lung to it."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder / "standin" / "1"


def _run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_evaluate_writes_a_line_a_slice_and_one_page(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CSV's mean is the printed one; the page needs no other file."""
    assert _run("evaluate", "--model", bundle, "--data", data, "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    with (tmp_path / "slices.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["patient"] for row in rows] == ["patient-0", "patient-0", "patient-1", "patient-1"]
    mean = np.mean([float(row["dice"]) for row in rows])
    assert f"| all | 4 | {mean:.4f} (" in shown
    assert rows[3]["area_error"] == ""  # unknown for a slice without lung, not 0
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 2


def test_evaluate_groups_the_listed_patients_of_known_spacing(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without spacing there are no cm²; a list of nobody is an error."""
    assert _run("evaluate", "--model", bundle, "--data", data) == 0
    assert "cm²" not in capsys.readouterr().out
    write_phantom_set(tmp_path / "ct", count=4, patients=4, side=64, file_format="dicom")
    listed = tmp_path / "held-out.csv"
    listed.write_text("source,patient,group\nct,PHANTOM-0001,\nct,PHANTOM-0002,disease\n")
    command = ("evaluate", "--model", bundle, "--data", tmp_path / "ct", "--held-out", listed)
    assert _run(*command) == 0
    shown = capsys.readouterr().out
    assert "| lung, 10 cm² or more | 2 / 2 |" in shown
    assert "| · disease | 1 / 1 |" in shown
    listed.write_text("source,patient\nct,patient-77\n")
    assert _run(*command) == 2
    assert "names no patient that is in the data" in capsys.readouterr().err


def test_evaluate_shows_windows_when_asked(
    data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("evaluate", "--model", bundle, "--data", data, "--windows") == 0
    shown = capsys.readouterr().out
    for window in ("[-1350, 150]", "[-1024, 600]", "[-160, 240]"):
        assert f"8 bit, window {window}" in shown


def test_lost_lungs_and_units_are_counted_beside_distances(data: Path, tmp_path: Path) -> None:
    """A lung that is missed has no distance; millimetres and pixels have no mean."""
    write_phantom_set(tmp_path / "ct", count=2, patients=2, side=64, file_format="dicom")
    pairs = [*list_pairs(data).pairs, *list_pairs(tmp_path / "ct").pairs]
    samples = [read_sample(pair) for pair in pairs]
    masks = [np.zeros_like(sample.mask) for sample in samples]
    masks[1:3] = [samples[1].mask, samples[2].mask]
    masks[3][:9] = True
    results = [
        measure_slice(sample, segmentation(sample.scan, mask))
        for sample, mask in zip(samples, masks, strict=True)
    ]
    pixels, both = summarise("pixels", results[:4]), summarise("both", results)
    assert (pixels.missed, pixels.invented, pixels.unit) == (1, 1, "px")
    assert pixels.means["hd95"] == 0.0
    assert (both.missed, both.unit) == (3, "mm/px")
    assert np.isnan(both.means["hd95"])
    table = format_table([pixels, both])
    assert "| 0.00 px | 0.00 px | 1 | 1 |" in table
    assert "| – | – | 3 | 1 |" in table


def test_the_validation_subset_is_the_bundles_own(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a record of the split there is an error that says so; with one it is followed."""
    arguments = ("--data", data, "--subset", "validation")
    assert _run("evaluate", "--model", bundle, *arguments) == 2
    assert "provenance.json" in capsys.readouterr().err
    record = {"validation": [f"{data.name}/patient-0-1"]}
    (bundle / "provenance.json").write_text(json.dumps(record))
    assert _run("evaluate", "--model", bundle, *arguments) == 0
    assert "| all | 1 |" in capsys.readouterr().out


def test_compare_says_by_its_exit_code_whether_b_may_replace_a(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with an impossible threshold finds nothing and must not replace a working one."""
    write_bundle(tmp_path)
    blind = tmp_path / "standin" / "1"
    contract = json.loads((blind / "contract.json").read_text())
    contract["mask"] = {"threshold": 0.999999, "largest_components": 0}
    (blind / "contract.json").write_text(json.dumps(contract))
    assert _run("compare", bundle, blind, "--data", data) == 1
    assert "B must not replace A on 4 slices" in capsys.readouterr().out
    assert _run("compare", bundle, bundle, "--data", data) == 0


def test_a_damaged_model_is_named(data: Path, bundle: Path, tmp_path: Path, capsys) -> None:
    write_bundle(tmp_path)
    damaged = tmp_path / "standin" / "1"
    content = bytearray((damaged / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "model.onnx").write_bytes(content)
    assert _run("evaluate", "--model", damaged, "--data", data) == 2
    assert "SHA-256" in capsys.readouterr().err


def test_slices_without_lung_count_by_their_false_area(data: Path, bundle: Path) -> None:
    """The summary's false-positive area is that of the lungless slice alone."""
    model = Model.load(bundle, Engine())
    results = list(evaluate(model, list_pairs(data).pairs))
    summary = summarise("all", results)
    assert summary.false_positive_fraction == results[3].metrics.false_positive_fraction
    assert worst(results)[0].metrics.dice == summary.minimum


def test_evaluation_sees_what_the_service_answers(data: Path, bundle: Path, service) -> None:
    """The same bytes over HTTP and in an evaluation give the same mask."""
    pair = list_pairs(data).pairs[0]
    expected = predict(Model.load(bundle, Engine()), read_sample(pair).scan).mask[0]
    answer = service.client.post("/segment?format=npy", content=pair.image.read_bytes())
    digest = hashlib.sha256(answer.content[-expected.size :]).hexdigest()
    found = (
        hashlib.sha256(part.tobytes()).hexdigest()
        for part in (expected.astype(np.uint8), expected.astype(np.uint8) * 255)
    )
    assert digest in found


def test_a_window_is_relative_to_the_slices_own_peaks(data: Path) -> None:
    """Through [-1000, 40] air becomes black and soft tissue white, whatever the file's scale."""
    sample = read_sample(list_pairs(data).pairs[0])
    air, tissue = find_peaks(sample.scan.values[0])
    shown = through_window(-1000, 40)(sample).scan.values[0]
    assert shown[np.abs(sample.scan.values[0] - air) <= 1].max() <= 3
    assert shown[np.abs(sample.scan.values[0] - tissue) <= 1].min() >= 252
