"""``evaluate`` and ``compare`` as a researcher runs them, on a bundle and phantom slices."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.core.types import Scan
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from tests.masks import segmentation
from tests.standin import write_bundle
from training.__main__ import main
from training.data.dataset import Pair, Sample, list_pairs, read_sample
from training.data.intensity import find_peaks
from training.evaluation.evaluate import (
    SliceResult,
    evaluate,
    format_table,
    measure_slice,
    predict,
    summarise,
    summarise_by,
    worst,
)
from training.evaluation.metrics import bootstrap_interval, compare_masks
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
    assert "cm²" not in capsys.readouterr().out
    write_phantom_set(tmp_path / "ct", count=2, patients=2, side=64, file_format="dicom")
    assert _run("compare", bundle, blind, "--data", tmp_path / "ct") == 1
    assert re.search(
        r"\n  lung, 10 cm² or more: mean Dice 0\.\d+ → 0\.0000", capsys.readouterr().out
    )


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


def with_dice(data: Path, bundle: Path, *dice: float) -> list[SliceResult]:
    """Results of as many slices of a patient each, as if they had scored that."""
    (one,) = evaluate(Model.load(bundle, Engine()), list_pairs(data).pairs[:1])
    return [
        replace(
            one,
            pair=replace(one.pair, name=f"{number:02d}", patient=f"p{number // 3}"),
            metrics=replace(one.metrics, dice=value),
        )
        for number, value in enumerate(dice)
    ]


def test_a_summary_names_the_tail_and_the_least(data: Path, bundle: Path) -> None:
    """Of 21 values from 0 to 1 the 5th percentile is the second; intervals are by patient."""
    values = np.linspace(0, 1, 21)[::-1]
    results = with_dice(data, bundle, *values)
    summary = summarise("x", results)
    assert (summary.slices, summary.p5, summary.minimum) == (21, pytest.approx(0.05), 0)
    assert summary.means["dice"] == pytest.approx(0.5)
    patients = [number // 3 for number in range(21)]
    assert summary.interval == bootstrap_interval(values, patients)
    assert summary.interval != bootstrap_interval(values, range(21))
    other = [replace(r, pair=replace(r.pair, source=f"s{n % 3}")) for n, r in enumerate(results)]
    assert summarise("x", other).interval == bootstrap_interval(values, range(21))
    assert [item.metrics.dice for item in worst(results)] == pytest.approx(values[::-1][:12])
    halves = summarise_by(results, lambda item: "a" if item.metrics.dice < 0.5 else "b")
    assert [(item.group, item.slices) for item in halves] == [("a", 10), ("b", 11)]
    assert summary.calibration_error == pytest.approx(results[0].calibration.expected_error)
    blank = replace(
        results[0],
        calibration=replace(results[0].calibration, lung=0 * results[0].calibration.lung),
    )
    both = results[0].calibration + blank.calibration
    assert summarise("x", [results[0], blank]).calibration_error == both.expected_error


@pytest.mark.parametrize(
    ("small", "found", "lost"),
    [(19, 0, False), (20, 0, True), (20, 1, True), (20, 2, False), (50, 4, True), (50, 5, False)],
)
def test_a_lung_is_lost_where_next_to_nothing_of_it_is_found(
    small: int, found: int, lost: bool
) -> None:
    """One of a fifth of the lungs or more, of which less than a tenth is in the mask."""
    truth = np.zeros((30, 120), bool)
    truth[5, : 100 - small] = True
    truth[20, :small] = True
    mask = truth.copy()
    mask[20, found:] = False
    scan = Scan(
        values=np.zeros((1, 30, 120), np.float32), unit="grey level", media_type="image/png"
    )
    pair = Pair(name="a", image=Path(), mask=Path(), patient="a", source="s")
    sample = Sample(pair=pair, scan=scan, mask=truth, ignored=np.zeros_like(truth))
    assert measure_slice(sample, segmentation(scan, mask)).lost == lost


def test_what_is_ignored_counts_in_no_figure_of_a_slice(tmp_path: Path) -> None:
    """Nor in its areas; airways are those of the pair's own mask."""
    airway = np.zeros((20, 20), np.uint8)
    airway[15:17, 4:8] = 255
    Image.fromarray(airway).save(tmp_path / "airway.png")
    scan = Scan(
        values=np.zeros((1, 20, 20), np.float32),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(10.0, 10.0),
    )
    truth, mask, ignored = (np.zeros((20, 20), bool) for _ in range(3))
    truth[2:10, 2:10] = True
    mask[4:16, 2:10] = True
    ignored[:, 8:] = True
    pair = Pair(
        name="a", image=Path(), mask=Path(), patient="a", source="s", airway=tmp_path / "airway.png"
    )
    probability = np.where(mask, 0.6, 0.3).astype(np.float32)
    sample = Sample(pair=pair, scan=scan, mask=truth, ignored=ignored)
    result = measure_slice(sample, segmentation(scan, mask, probability))
    assert result.metrics == compare_masks(mask, truth, (10.0, 10.0), ignored=ignored)
    assert result.metrics != compare_masks(mask, truth, (10.0, 10.0))
    assert result.calibration.pixels.sum() == 160
    assert result.areas is not None
    assert (result.areas.truth_cm2, result.areas.found_cm2) == (48, 72)
    assert (result.areas.airway_cm2, result.areas.airway_called_lung_cm2) == (8, 4)
