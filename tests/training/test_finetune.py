"""Teaching a published model new slices, and publishing, as a user does it: by the commands."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import tiny
from training.__main__ import main
from training.config import read_config, write_config
from training.data.learnt import read_learnt
from training.errors import DataError
from training.fitting.start import read_recipe, tuning_recipe
from training.synthetic.phantom_set import write_phantom_set

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.training

FIRST = tiny(width=3, epochs=1, window_low_hu=-1200.0, learning_rate=0.003, augment=False)


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published model ``first``, made from the phantoms, and new slices."""
    folder = tmp_path_factory.mktemp("tuning")
    write_config(FIRST, folder / "first.toml")
    write_phantom_set(folder / "new", count=8, patients=4, side=64, seed=9)
    assert (
        call(
            *("run", "--data", phantoms, "--out", folder / "runs" / "first"),
            *("--config", folder / "first.toml", "--models", folder / "models"),
            *("--minimum-dice", 0),
        )
        == 0
    )
    return folder


@pytest.fixture
def models(place: Path, tmp_path: Path) -> Path:
    """The published model alone, to publish beside."""
    return Path(shutil.copytree(place / "models", tmp_path / "models"))


def test_a_published_model_is_taught_new_slices(
    place: Path, models: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its settings are found in it; Dice before and after on both; a floor; published once."""
    (tmp_path / "own.toml").write_text(f"init_from = '{models / 'first' / '1' / 'model.keras'}'\n")
    command = (
        *("finetune", "--data", place / "new", "--models", models, "--epochs", 1),
        *("--patient-pattern", r"^patient-\d+"),
        *("--config", tmp_path / "own.toml", "--out", tmp_path / "run", "--minimum-dice"),
    )
    assert call(*command, 1) == 2
    answer = capsys.readouterr()
    assert "None of the 4 slices that validated first 1 is in the data; --old-data" in answer.out
    assert re.search(r"not published, the mean Dice of 0\.\d+ is below 1 \(--min", answer.err)
    assert not (models / "first" / "2").exists()
    old = Path(shutil.copytree(phantoms, tmp_path / "old"))
    for path in old.glob("*/patient*"):  # --patient-pattern is about the new names
        path.rename(path.with_name(f"scan-{path.name}"))
    command = (*command, 0, "--force", "--old-data", old)
    assert call(*command) == 0
    said = capsys.readouterr().out
    assert re.search(r"\| new \| 2 / 1 \| 0\.\d{4} \| 0\.\d{4} \| [+-]", said)
    assert re.search(r"\| old \| 4 / 2 \| 0\.\d{4} \| 0\.\d{4} \| [+-]", said)
    assert f"published {models / 'first' / '2'}: mean Dice 0." in said
    assert "segment?model=first'" in said
    config = read_config(tmp_path / "run" / "config.toml", {})
    assert (config.width, config.window_low_hu, config.augment) == (3, -1200.0, False)
    assert (config.learning_rate, config.schedule) == (0.001, "cosine")
    card = (models / "first" / "2" / "CARD.md").read_text()
    assert "Mean Dice before and after fine-tuning" in card
    assert "| learnt by the network that it started from | unknown: not stated by" in card
    before, after = (read_learnt(models / "first" / version) for version in "12")
    assert before is not None
    assert after is not None
    assert after.slices > before.slices
    assert len(after.slices) == 16 + 6
    assert call(*command) == 0
    assert "is published already" in capsys.readouterr().out
    assert sorted(path.name for path in (models / "first").glob("[0-9]*")) == ["1", "2"]


def test_what_cannot_be_tuned_is_said_before_any_epoch(
    place: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model, a run instead of one, one without weights, a network of another shape."""
    out = tmp_path / "run"
    command = ("finetune", "--data", place / "new", "--models", models, "--out", out)
    assert call(*command) == 2
    assert "lung-unet: expected the folder of a published model" in capsys.readouterr().err
    assert call(*command, "--name", "clinic") == 2  # a new name starts from the shipped model
    assert "lung-unet: expected the folder of a published model" in capsys.readouterr().err
    assert call(*command, "--init-from", place / "runs" / "first") == 2
    assert "or begin from other weights with `run --init-from`" in capsys.readouterr().err
    assert call(*command, "--name", "first", "--width", 4) == 2
    assert "width: 4 was asked for, but the network of" in capsys.readouterr().err
    (models / "first" / "1" / "model.keras").unlink()
    assert call(*command, "--init-from", models / "first") == 2
    assert "expected a .keras file" in capsys.readouterr().err
    assert not out.exists()


def test_the_network_is_as_wide_as_the_one_it_starts_from(place: Path) -> None:
    """``--init-from`` of a model, a run or its file takes shape and grey levels over."""
    run, model = place / "runs" / "first", place / "models" / "first" / "1"
    for source in (run, run / "best.keras", model, model / "model.keras"):
        config = read_recipe(None, {"init_from": str(source), "window_high_hu": 300.0})
        assert (config.grid, config.width, config.depth) == (32, 3, 2)
        assert (config.window_low_hu, config.window_high_hu) == (-1200.0, 300.0)
        assert config.epochs == 10
    for name, value in (("grid", 64), ("stem", "half"), ("network", "light")):
        with pytest.raises(DataError, match=rf"{name}: {value} was asked for, but"):
            read_recipe(None, {"init_from": str(model), name: value})
    file = place / "alone.keras"
    shutil.copy(model / "model.keras", place / "elsewhere.keras")
    assert read_recipe(None, {"init_from": str(file)}).width == 16  # nothing is known of it


def test_a_recipe_of_an_older_version_is_understood(place: Path, tmp_path: Path) -> None:
    """Settings that are gone are passed over; one of a damaged record is named."""
    model = Path(shutil.copytree(place / "models" / "first" / "1", tmp_path / "model"))
    facts: dict[str, Any] = json.loads((model / "provenance.json").read_text())
    facts["config"] |= {"seed": 7, "average_momentum": 0.9, "gone": 1}
    (model / "provenance.json").write_text(json.dumps(facts))
    config = tuning_recipe(model, {})
    assert config == replace(FIRST, init_from=str(model), epochs=20, learning_rate=0.001,
                             schedule="cosine", warmup_epochs=1.0)  # fmt: skip
    (model / "provenance.json").write_text("{}")
    with pytest.raises(DataError, match=r"provenance\.json: the record is damaged"):
        tuning_recipe(model, {})


def test_evaluate_says_when_it_measures_what_was_learnt(
    place: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By content, whatever the folder is called; not of new slices, nor of the held-out ones."""
    command = ("evaluate", "--model", place / "models" / "first" / "1", "--data")
    capsys.readouterr()
    assert call(*command, f"else={phantoms}") == 0
    assert "16 of the 20 slices are ones that the model learnt from" in capsys.readouterr().out
    assert call(*command, place / "new") == 0
    assert call(*command, phantoms, "--subset", "validation") == 0
    assert "learnt from" not in capsys.readouterr().out


def test_models_are_compared_on_what_neither_has_learnt(
    place: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are left out, and said; where nothing is left there is no verdict."""
    model = place / "models" / "first" / "1"
    capsys.readouterr()
    assert call("compare", model, model, "--data", phantoms) == 0
    said = capsys.readouterr().out
    assert "16 slices that A or B learnt from are left out" in said
    assert "on 4 slices of 2 patients" in said
    with (place / "runs" / "first" / "split.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["remark"] == "training"]
    learnt = tmp_path / "learnt.csv"
    learnt.write_text(f"source,patient\nphantoms,{rows[0]['patient']}\n")
    assert call("compare", model, model, "--data", phantoms, "--held-out", learnt) == 2
    assert "all 2 slices are ones that A or B learnt from" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("network", ["classic", "light"])
def test_what_was_trained_in_16_bits_is_exported(kind: str, network: str, tmp_path: Path) -> None:
    """The weights are whole: ONNX Runtime agrees with them computed in 32 bits."""
    from training.fitting.checkpoints import load_network
    from training.fitting.train import _precision
    from training.networks.convert import parity, to_onnx
    from training.networks.unet import build_unet
    from training.release.export import _in_float32

    config = tiny(network=network, grid=64, mixed_precision=kind)
    with _precision(kind):
        build_unet(config).save(tmp_path / "net.keras")
    trained = load_network(tmp_path / "net.keras")
    plain = _in_float32(trained, config)
    assert {layer.compute_dtype for layer in plain.layers} == {"float32"}
    images = np.random.default_rng(0).uniform(0, 255, (2, 1, 64, 64, 1)).astype(np.float32)
    assert parity(plain, to_onnx(plain, {}), images) < 1e-4
    half = np.asarray(trained(images[0]), np.float32)
    np.testing.assert_allclose(half, np.asarray(plain(images[0])), atol=0.05)
