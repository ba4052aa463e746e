"""What goes wrong in practice, through the command line: a sentence, a code, nothing half-made."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.inference.contract import Contract
from training.__main__ import main
from training.commands import data
from training.config import read_config
from training.data.material import read_material
from training.errors import DataError
from training.release.target import NAME

TINY = ["--grid", "32", "--width", "2", "--depth", "2", "--epochs", "1", "--batch-size", "8"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Runs a command that must be refused; returns what it says."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    answer = capsys.readouterr()
    assert answer.err.startswith("error: ")
    return answer.err


@pytest.fixture
def copy(phantoms: Path, tmp_path: Path) -> Path:
    """The phantoms, to be spoiled."""
    return Path(shutil.copytree(phantoms, tmp_path / "copy"))


def train(capsys: pytest.CaptureFixture[str], data: Path, *flags: str) -> str:
    out = data.parent / "runs" / "run"
    answer = refused(capsys, "run", "--data", data, "--out", out, *TINY, *flags)
    assert not out.exists()
    return answer


def test_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Says which layouts are understood."""
    (tmp_path / "empty").mkdir()
    assert "expected images/ and masks/" in train(capsys, tmp_path / "empty")
    assert "expected a folder" in train(capsys, tmp_path / "missing")


def test_masks_of_another_size(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    """Names the mask, both sizes and the remedy."""
    mask = sorted((copy / "masks").iterdir())[3]
    Image.open(mask).resize((30, 40)).save(mask)
    answer = train(capsys, copy)
    assert f"{mask.name}: expected a mask of 64 x 64" in answer
    assert "found 40 x 30; export it again at the image's size" in answer
    assert "--skip-unreadable" in answer


def test_masks_that_are_all_empty(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    """Names the first; slices without lung make the same masks plausible, but not trainable."""
    for mask in (copy / "masks").iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask)
    answer = train(capsys, copy)
    assert "patient-0000_slice-0000.png: empty_mask" in answer
    for number, image in enumerate(sorted((copy / "images").iterdir())):
        plain = np.full((64, 64), 10, np.uint8)
        plain[10:50, 10:50] = 150 + number
        Image.fromarray(plain).save(image)
    assert "all 20 usable masks are empty" in train(capsys, copy)


def test_a_corrupt_file_among_good_ones(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    """The run stops before it writes; with the flag it goes on without the file."""
    image = sorted((copy / "images").iterdir())[5]
    image.write_bytes(image.read_bytes()[:200])
    answer = train(capsys, copy)
    assert f"{image.name}: the content is PNG, but it is damaged" in answer
    assert "repair the file or take it out" in answer
    from training.config import TrainConfig
    from training.data.material import prepare

    material = prepare([copy], TrainConfig(skip_unreadable=True))
    assert len(material.training) + len(material.validation) == 19
    assert material.dropped[0][0].image == image


def test_two_files_of_one_name(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    """A slice that is there twice in two formats is named."""
    image = sorted((copy / "images").iterdir())[0]
    Image.open(image).save(image.with_suffix(".tif"))
    assert f"{image.stem}.tif: {image.name} has the same name" in train(capsys, copy)


def test_settings_that_cannot_train(capsys: pytest.CaptureFixture[str], phantoms: Path) -> None:
    """The field, what it may be, and what it was."""
    for flags, sentence in (
        (["--grid", "33"], "grid: expected a multiple of 4"),
        (["--folds", "3", "--fold", "4"], "fold: expected 2 folds or more and one of them, got 4"),
        (["--patient-pattern", "("], "patient_pattern: no regular expression"),
        (["--encoder-weights", "imagenet"], "encoder_weights: name their network too"),
    ):
        out = phantoms.parent / "never"
        answer = refused(capsys, "run", "--data", phantoms, "--out", out, *TINY, *flags)
        assert sentence in answer
        assert not out.exists()
    answer = refused(capsys, "inspect", phantoms, "--patient-pattern", "(")
    assert "--patient-pattern: no regular expression" in answer
    assert "expected slices: --data DIR" in refused(capsys, "run", "--out", phantoms / "x")


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """Writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_before_the_first_epoch(
    capsys: pytest.CaptureFixture[str], copy: Path, tmp_path: Path
) -> None:
    """While the decoded slices are written: a sentence with the remedy, no traceback."""
    with files_of_at_most(4096):
        answer = refused(capsys, "run", "--data", copy, "--out", tmp_path / "r" / "run", *TINY)
    assert "make room and start the same command again" in answer


def test_a_folder_that_cannot_be_made(
    capsys: pytest.CaptureFixture[str], phantoms: Path, tmp_path: Path
) -> None:
    """The file that is in its place is named."""
    (tmp_path / "file").touch()
    answer = refused(capsys, "phantom", "--out", tmp_path / "file" / "data")
    assert str(tmp_path / "file") in answer
    assert main(["inspect", str(phantoms), "--json", str(tmp_path / "new" / "report.json")]) == 0


def test_ctrl_c_promises_to_resume_what_can_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, phantoms: Path
) -> None:
    """An inspection has no epochs."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "parse_source", interrupted)
    assert main(["inspect", str(phantoms)]) == 130
    assert "the same command starts anew" in capsys.readouterr().err


def test_what_cannot_be_published_is_known_before_training(
    capsys: pytest.CaptureFixture[str], phantoms: Path, tmp_path: Path
) -> None:
    """A name that no contract takes, and external slices that are not there."""
    run = ("run", "--data", phantoms, *TINY, "--out")
    assert "'My Lung' can't be a model's name" in refused(capsys, *run, tmp_path / "My Lung")
    answer = refused(capsys, *run, tmp_path / "run", "--external", tmp_path / "elsewhere")
    assert "elsewhere: expected a folder" in answer
    assert list(tmp_path.iterdir()) == []
    assert Contract.model_fields["name"].metadata[0].pattern == f"^{NAME.pattern}$"


def test_resume_wants_a_run(
    capsys: pytest.CaptureFixture[str], phantoms: Path, tmp_path: Path
) -> None:
    """A misspelt folder begins nothing."""
    out = tmp_path / "rum"
    answer = refused(capsys, "run", "--data", phantoms, "--out", out, "--resume", *TINY)
    assert "rum: holds no run to resume" in answer
    assert not out.exists()


def test_a_runs_record_is_missing_or_damaged(tmp_path: Path) -> None:
    """It is named, and that the run's command writes it."""
    for content in (None, "{", "[]", '{"training": [{}]}'):
        if content is not None:
            (tmp_path / "material.json").write_text(content)
        with pytest.raises(DataError, match=r"material\.json: .* start its command again"):
            read_material(tmp_path)


def test_a_recipe_with_an_unknown_setting(tmp_path: Path) -> None:
    """And with one of another type or out of range, and no TOML at all."""
    recipe = tmp_path / "recipe.toml"
    for text, sentence in (
        ("widht = 3", "widht: no such setting"),
        ("width = 'three'", "width: expected int, got 'three'"),
        ("window_high_hu = -1000.0", "window_high_hu: expected more than window_low_hu"),
        ("white_percentile = 0.5", r"white_percentile: expected one above 0\.5, to 100"),
        ("width = ", r"recipe\.toml: expected a readable TOML file"),
    ):
        recipe.write_text(text)
        with pytest.raises(DataError, match=sentence):
            read_config(recipe, {})


def test_inspect_names_everything_that_is_wrong(
    capsys: pytest.CaptureFixture[str], copy: Path, tmp_path: Path
) -> None:
    """Unmatched, unreadable, implausible, equal and nearly equal slices; code 1, JSON, a sheet."""
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    assert main(["inspect", str(copy), "--json", str(report), "--sheet", str(sheet)]) == 0
    images, masks = (sorted((copy / name).iterdir()) for name in ("images", "masks"))
    (copy / "images" / "lonely.png").write_bytes(images[0].read_bytes())
    images[2].write_bytes(b"no picture")
    Image.fromarray(255 - np.asarray(Image.open(masks[4]))).save(masks[4])
    for number, suffix, name in ((6, ".png", "patient-0090_x"), (8, ".jpg", "patient-0091_x")):
        shutil.copy(masks[number], copy / "masks" / f"{name}.png")
        if suffix == ".png":
            shutil.copy(images[number], copy / "images" / f"{name}.png")
        else:
            Image.open(images[number]).save(copy / "images" / f"{name}.jpg", quality=80)
    capsys.readouterr()
    assert main(["inspect", str(copy), "--json", str(report), "--sheet", str(sheet)]) == 1
    content = json.loads(report.read_text())
    found = {(entry["code"], Path(entry["name"]).stem) for entry in content["findings_by_slice"]}
    assert found == {
        ("unmatched", "lonely"),
        ("unreadable", images[2].stem),
        ("too_large", images[4].stem),
        ("duplicate", "patient-0090_x"),
        ("near_duplicate", "patient-0091_x"),
    }
    assert content["pairs"] == 22
    assert content["usable"] == 19
    assert content["sizes"] == {"64 x 64": 21}
    assert 0.05 < content["mean_lung_fraction"] < 0.4
    assert f"unreadable: copy/{images[2].stem}" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture)
    assert (pixels == (64, 220, 90)).all(axis=-1).any()  # outlines of what is kept
    assert (pixels == (255, 70, 70)).all(axis=-1).any()  # and of what is dropped
