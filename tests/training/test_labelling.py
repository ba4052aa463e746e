"""The labelling tool through the command line, on a chest whose lungs are known."""

from __future__ import annotations

import csv
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from tests.training.labelling_phantom import (
    CARINA,
    DIAPHRAGM,
    PIXEL_MM,
    SLICES,
    Chest,
    make_chest,
    name_of,
    write_chest,
    write_slice,
)
from training.__main__ import main
from training.data.dataset import read_sample
from training.data.sources import read_table
from training.labelling.masks import SliceMask, without_hila
from training.labelling.slabs import slabs
from training.labelling.stacks import read_stacks


@pytest.fixture(scope="module")
def chest() -> Chest:
    """A volume with all that the tool must tell apart."""
    return make_chest()


@pytest.fixture(scope="module")
def series(chest: Chest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its slices in a folder."""
    folder = tmp_path_factory.mktemp("ct") / "chest"
    write_chest(chest, folder)
    return folder


@pytest.fixture(scope="module")
def proposed(series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a first run writes."""
    out = tmp_path_factory.mktemp("proposed")
    assert main(["label", str(series), "--out", str(out)]) == 0
    return out


def planes(out: Path, role: str) -> np.ndarray:
    """Masks of a run in the volume's order, shape (Z, Y, X)."""
    folder = out / role / "chest"
    pictures: list[np.ndarray] = []
    for index in range(SLICES):
        with Image.open(folder / f"{name_of(index)}.png") as picture:
            pictures.append(np.array(picture))
    return np.stack(pictures)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    """The table by slice."""
    with (out / "masks" / "table.csv").open(newline="", encoding="utf-8") as stream:
        return {Path(row["mask"]).stem: row for row in csv.DictReader(stream)}


def test_a_volume_is_proposed_from_apex_to_abdomen(chest: Chest, proposed: Path) -> None:
    """Aerated lung is found slice by slice; consolidation needs a person."""
    mask = planes(proposed, "masks")
    aerated = chest.lung & ~chest.consolidation
    assert set(np.unique(mask)) == {0, 255}
    assert dice(mask == 255, aerated) > 0.95
    worst = min(dice(mask[k] == 255, aerated[k]) for k in range(SLICES) if aerated[k].sum() > 200)
    assert worst > 0.9
    assert not (mask[-2:] == 255).any()


def test_bowel_gas_is_not_lung(chest: Chest, proposed: Path) -> None:
    """Gas below the diaphragm is numbered and proposed as gas, in the table too."""
    mask = planes(proposed, "masks")
    assert not (mask[chest.bowel] == 255).any()
    assert ":gas" in rows_of(proposed)[name_of(6)]["proposed"]


def test_airways_are_taken_out(chest: Chest, proposed: Path) -> None:
    """Trachea and main bronchi are in the airway mask and not in the lung."""
    airway = planes(proposed, "airways") == 255
    assert dice(airway[CARINA:], chest.airway[CARINA:]) > 0.9
    assert (airway & chest.airway).sum() > 0.8 * chest.airway.sum()
    assert not (airway & (planes(proposed, "masks") == 255)).any()


def test_the_dome_of_the_diaphragm_is_no_vessel(chest: Chest, proposed: Path) -> None:
    """A hole of the lung over more tissue below stays open; vessels are filled."""
    mask = planes(proposed, "masks") == 255
    dome = chest.hu[DIAPHRAGM + 3, 60, 45] > 0
    assert dome
    assert not mask[DIAPHRAGM + 3, 60, 45]
    vessels = chest.lung & ~chest.consolidation & (chest.hu > 0)
    assert mask[vessels].mean() > 0.95


def test_hila_can_be_left_to_other_sources(
    chest: Chest, series: Path, proposed: Path, tmp_path: Path
) -> None:
    """What a wide closing adds is ignored; lung and airways stay what they are."""
    assert main(["label", str(series), "--out", str(tmp_path), "--ignore-hila"]) == 0
    before, after = planes(proposed, "masks"), planes(tmp_path, "masks")
    assert np.array_equal(before == 255, after == 255)
    assert np.array_equal(planes(proposed, "airways"), planes(tmp_path, "airways"))
    assert (after == 128).any()
    assert not ((after == 128) & (planes(proposed, "airways") > 0)).any()


def test_a_hilum_is_a_bay_of_a_large_lung() -> None:
    """A bay of 2 × 2 cm is ignored but for its bronchus; one of 4 cm and small lungs are not."""
    lung = np.zeros((120, 120), bool)
    lung[10:110, 10:70] = True
    lung[20:40, 50:70] = lung[60:100, 50:70] = False
    airway = np.zeros_like(lung)
    airway[26:34, 56:64] = True
    before = SliceMask(mask=np.where(lung, 255, 0).astype(np.uint8), airway=airway)
    after = without_hila(before, (1.0, 1.0))
    assert np.array_equal(after.mask == 255, lung)
    ignored = after.mask == 128
    bay = np.zeros_like(lung)
    bay[20:40, 50:62] = True
    assert ignored[bay & ~airway].mean() > 0.7
    assert not ignored[airway].any()
    assert not ignored[75:85, 55:].any()
    assert np.array_equal(without_hila(before, (0.5, 0.5)).mask, before.mask)


def test_sheets_show_each_slice_large(proposed: Path) -> None:
    """At least 480 pixels a slice."""
    sheets = sorted((proposed / "sheets" / "chest").iterdir())
    assert len(sheets) == -(-SLICES // 6)
    with Image.open(sheets[0]) as sheet:
        assert sheet.width >= 3 * 480


def decide(proposed: Path, folder: Path, **changes: str) -> Path:
    """Fills in the file of decisions: all accepted but for those given, by slice."""
    text = (proposed / "decisions" / "chest.toml").read_text(encoding="utf-8")
    text = text.replace('verdict = "undecided"', 'verdict = "accept"')
    for name, change in changes.items():
        head = f'[slices."{name.removeprefix("s")}"]\n'
        assert head in text
        verdict = change if change in ("reject", "empty") else "edit"
        start = text.index(head)
        end = text.index("\n\n", start) if "\n\n" in text[start:] else len(text)
        section = text[start:end].replace('"accept"', f'"{verdict}"')
        lines = "" if verdict == change else "\n" + change
        text = text[:start] + section.rstrip("\n") + lines + "\n" + text[end:]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chest.toml").write_text(text, encoding="utf-8")
    return folder


def rerun(series: Path, decisions: Path, out: Path) -> int:
    return main(["label", str(series), "--out", str(out), "--decisions", str(decisions)])


def test_decisions_are_applied_exactly(
    chest: Chest, series: Path, proposed: Path, tmp_path: Path
) -> None:
    """Polygons add and ignore, numbers drop and keep, a rejected slice is ignored whole."""
    square = "[[100, 70], [110, 70], [110, 80], [100, 80]]"
    gas = rows_of(proposed)[name_of(6)]["proposed"].split(":gas")[0].split()[-1]
    changes = {
        f"s{name_of(16)}": f"lung = [{square}]",
        f"s{name_of(17)}": f"ignore = [{square}]",
        f"s{name_of(6)}": f"keep = [{gas}]",
        f"s{name_of(20)}": "drop = [1]",
        f"s{name_of(30)}": "not_airway = [[[0, 0], [150, 0], [150, 120], [0, 120]]]",
        f"s{name_of(33)}": "empty",
        f"s{name_of(43)}": "reject",
    }
    decisions = decide(proposed, tmp_path / "decisions", **changes)
    assert rerun(series, decisions, tmp_path / "a") == 0
    before, after = planes(proposed, "masks"), planes(tmp_path / "a", "masks")
    assert (after[16, 70:80, 100:110] == 255).all()
    assert (after[17, 70:80, 100:110] == 128).all()
    assert (after[17] == 128).sum() == 100
    assert (after[6][chest.bowel[6]] == 255).mean() > 0.9
    assert (after[20] == 255).sum() < (before[20] == 255).sum()
    assert not planes(tmp_path / "a", "airways")[30].any()
    assert (after[30][planes(proposed, "airways")[30] == 255] == 255).all()
    assert (after[43] == 128).all()
    assert (before[33] == 255).any()
    assert not after[33].any()
    assert not planes(tmp_path / "a", "airways")[33].any()
    untouched = [
        k for k in range(SLICES) if k not in (6, 7, 16, 17, 18, 20, 21, 30, 31, 33, 34, 43)
    ]
    assert (after[untouched] == before[untouched]).all()
    rows = rows_of(tmp_path / "a")
    assert rows[name_of(16)]["decided"] == "lung × 1"
    assert rows[name_of(43)]["verdict"] == "reject"
    assert rows[name_of(0)]["verdict"] == "accept"
    assert float(rows[name_of(17)]["ignored_cm2"]) == pytest.approx(100 * 0.25**2, abs=0.01)
    assert rerun(series, decisions, tmp_path / "b") == 0
    assert (planes(tmp_path / "b", "masks") == after).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("keep = [99]", "expected components of the slice"),
        ("lung = [[[1, 2], [3, 4]]]", "at least three corners"),
        ("lungs = []", "found lungs"),
        ('note = "no change"', "expected changes with the verdict edit"),
        ("keep = [1.5]", "expected numbers of components"),
    ],
)
def test_decisions_that_make_no_sense(
    capsys: pytest.CaptureFixture[str],
    series: Path,
    proposed: Path,
    tmp_path: Path,
    change: str,
    sentence: str,
) -> None:
    """Each is refused by a sentence that names the slice, and no mask is written."""
    decisions = decide(proposed, tmp_path / "decisions", s003=change)
    assert rerun(series, decisions, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "slice 003" in error
    assert sentence in error
    assert not list((tmp_path / "out").rglob("*.png"))


def test_decisions_about_other_slices(
    capsys: pytest.CaptureFixture[str], chest: Chest, series: Path, proposed: Path, tmp_path: Path
) -> None:
    """Other pixels under the same name, another proposal or a missing slice are found out."""
    decisions = decide(proposed, tmp_path / "decisions")
    other = tmp_path / "other" / "chest"
    other.parent.mkdir()
    write_chest(make_chest(seed=1), other)
    assert rerun(other, decisions, tmp_path / "out") == 2
    assert "found other pixels" in capsys.readouterr().err
    text = (decisions / "chest.toml").read_text(encoding="utf-8")
    (decisions / "chest.toml").write_text(text.replace('"000"', '"999"'), encoding="utf-8")
    assert rerun(series, decisions, tmp_path / "out") == 2
    assert "slice 999: expected a slice of the folder" in capsys.readouterr().err
    first = next(iter(tomllib.loads(text)["slices"].values()))["proposal"]
    (decisions / "chest.toml").write_text(text.replace(first, "0" * 16), encoding="utf-8")
    assert rerun(series, decisions, tmp_path / "out") == 2
    assert "look at the slice again" in capsys.readouterr().err


def test_slices_far_apart_are_labelled_one_by_one(chest: Chest, tmp_path: Path) -> None:
    """Slices 20 mm apart are no volume; each is proposed alone, and lung and trachea found."""
    folder = tmp_path / "chest"
    write_chest(chest, folder, step_mm=20.0)
    assert main(["label", str(folder), "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out")
    assert {row["dimensions"] for row in rows.values()} == {"2"}
    mask = planes(tmp_path / "out", "masks") == 255
    assert dice(mask[28], chest.lung[28]) > 0.95
    airway = planes(tmp_path / "out", "airways") == 255
    assert dice(airway[30], chest.airway[30]) > 0.85


def test_lung_that_the_field_of_view_cuts(chest: Chest, tmp_path: Path) -> None:
    """Lung at the reconstruction circle is kept, the air beside the body and the padding not."""
    part = (slice(10, 110), slice(0, 100))
    y, x = np.indices((100, 100)) - 49.5
    circle = y**2 + x**2 <= 49.5**2
    plane = np.where(circle, chest.hu[28][part], -1024)
    truth = chest.lung[28][part] & circle
    assert truth[:, -10:].any()
    write_slice(plane, tmp_path / "cut")
    assert main(["label", str(tmp_path / "cut"), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "masks" / "cut" / "000.png") as picture:
        mask = np.array(picture) == 255
    assert dice(mask, truth) > 0.95


def test_folders_that_hold_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing folder, an empty one, one with other files and a name given twice are refused."""
    empty = tmp_path / "empty"
    empty.mkdir()
    out = str(tmp_path / "out")
    assert main(["label", str(tmp_path / "missing"), "--out", out]) == 2
    assert "expected a folder of DICOM slices" in capsys.readouterr().err
    assert main(["label", str(empty), "--out", out]) == 2
    assert "found no file" in capsys.readouterr().err
    assert main(["label", str(empty), str(empty), "--out", out]) == 2
    assert "different names" in capsys.readouterr().err
    (empty / "a.dcm").write_bytes(b"no picture")
    assert main(["label", str(empty), "--out", out]) == 2
    assert "a.dcm: expected" in capsys.readouterr().err


def test_thick_slices_are_means_of_neighbours(series: Path, chest: Chest, tmp_path: Path) -> None:
    """Their masks are what most of the thickness is, and their table is one of pairs."""
    assert main(["label", str(series), "--out", str(tmp_path), "--slabs-mm", "10", "1"]) == 0
    masks = planes(tmp_path, "masks") == 255
    pairs = read_table(tmp_path / "masks" / "slabs.csv", source="none").pairs
    assert len(pairs) == SLICES // 2
    for pair in pairs:
        upper = list(map(name_of, range(SLICES))).index(pair.name.removesuffix("-10mm"))
        both = slice(upper - 1, upper + 1)
        sample = read_sample(pair)
        assert np.abs(sample.scan.values[0] - chest.hu[both].mean(axis=0)).max() <= 0.5
        assert (sample.mask == masks[both].any(axis=0)).all()
        assert sample.scan.spacing_mm == (PIXEL_MM, PIXEL_MM)


@pytest.fixture
def thin(chest: Chest, tmp_path: Path) -> Path:
    """Eight slices 5 mm apart, through the middle of the lungs."""
    write_chest(replace(chest, hu=chest.hu[20:28]), tmp_path / "chest")
    return tmp_path / "chest"


def slabs_of(out: Path) -> list[Dataset]:
    """The thick slices that the table of a run lists, each of which can be read once."""
    pairs = read_table(out / "masks" / "slabs.csv", source="none").pairs
    return [pydicom.dcmread(pair.image) for pair in pairs]


def test_thicknesses_of_the_same_slices_are_one(thin: Path, tmp_path: Path) -> None:
    """What comes to the same number of slices is written once, what no volume has not at all."""
    out = tmp_path / "out"
    asked = ["10", "10", "9.8", "1000", "inf"]
    assert main(["label", str(thin), "--out", str(out), "--slabs-mm", *asked]) == 0
    assert [slab.SliceThickness for slab in slabs_of(out)] == [10] * 4


def test_slabs_of_one_name(thin: Path, tmp_path: Path) -> None:
    """Of thicknesses that round to the same millimetre one is made; their files are the same."""
    for file in thin.iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.ImagePositionPatient[2] /= 25
        slice_.save_as(file)
    out = tmp_path / "out"
    assert main(["label", str(thin), "--out", str(out), "--slabs-mm", "0.6", "0.8", "1.6"]) == 0
    assert sorted(slab.SliceThickness for slab in slabs_of(out)) == [0.6, 0.6, 1.6]


@pytest.mark.parametrize("thickness", ["0", "-5", "nan"])
def test_thicknesses_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], thin: Path, tmp_path: Path, thickness: str
) -> None:
    """They are refused before anything is written."""
    out = tmp_path / "out"
    assert main(["label", str(thin), "--out", str(out), "--slabs-mm", "10", thickness]) == 2
    assert "--slabs-mm: expected thicknesses above 0 mm" in capsys.readouterr().err
    assert not out.exists()


def test_slabs_know_whose_they_are(thin: Path, tmp_path: Path) -> None:
    """A name in any script is kept, and each thickness is a series of its own."""
    for file in thin.iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.SpecificCharacterSet, slice_.PatientID = "ISO_IR 192", "山田"
        slice_.save_as(file)
    out = tmp_path / "out"
    assert main(["label", str(thin), "--out", str(out), "--slabs-mm", "10", "20"]) == 0
    made = slabs_of(out)
    assert {slab.PatientID for slab in made} == {"山田"}
    series = {(slab.SliceThickness, slab.SeriesInstanceUID) for slab in made}
    assert len({uid for _, uid in series}) == len(series) == 2


def test_a_slice_without_a_position_is_no_neighbour(thin: Path, tmp_path: Path) -> None:
    """It is labelled alone, and no slab takes it in."""
    lost = pydicom.dcmread(thin / f"{name_of(0)}.dcm")
    del lost.ImagePositionPatient
    lost.save_as(thin / f"{name_of(0)}.dcm")
    out = tmp_path / "out"
    assert main(["label", str(thin), "--out", str(out), "--slabs-mm", "10"]) == 0
    assert rows_of(out)[name_of(0)]["dimensions"] == "2"
    assert len(slabs_of(out)) == 3


@pytest.mark.parametrize("value", [[1.0, 2.0], [0.0, 0.0, float("nan")]])
def test_positions_that_are_none(
    capsys: pytest.CaptureFixture[str], thin: Path, tmp_path: Path, value: list[float]
) -> None:
    """A damaged position is refused with the name of its file."""
    lost = pydicom.dcmread(thin / f"{name_of(0)}.dcm")
    lost.ImagePositionPatient = value
    lost.save_as(thin / f"{name_of(0)}.dcm")
    assert main(["label", str(thin), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{name_of(0)}.dcm: expected 3 numbers as ImagePositionPatient" in error


def test_a_rerun_leaves_no_table_of_other_masks(
    capsys: pytest.CaptureFixture[str], thin: Path, tmp_path: Path
) -> None:
    """Without slabs an earlier run's table of them, and of its masks, goes."""
    out = tmp_path / "out"
    assert main(["label", str(thin), "--out", str(out), "--slabs-mm", "10"]) == 0
    assert "4 slabs" in capsys.readouterr().out
    assert main(["label", str(thin), "--out", str(out)]) == 0
    assert "slabs" not in capsys.readouterr().out
    assert not (out / "masks" / "slabs.csv").exists()


def test_a_slab_does_not_replace_a_slice(
    capsys: pytest.CaptureFixture[str], thin: Path, tmp_path: Path
) -> None:
    """A slice that is called what a slab would be called keeps its mask."""
    (thin / f"{name_of(0)}.dcm").rename(thin / f"{name_of(1)}-10mm.dcm")
    out = str(tmp_path / "out")
    assert main(["label", str(thin), "--out", out, "--slabs-mm", "10"]) == 2
    assert f"{name_of(1)}-10mm: expected a name that no slab has" in capsys.readouterr().err


def test_what_most_of_a_slab_is(thin: Path) -> None:
    """Half of the thickness is enough; where ignored slices could make the half, it is ignored."""
    stack = replace(read_stacks(thin)[0], hu=np.zeros((8, 1, 5), np.int16))
    columns = ("LL00", "LI00", "L000", "IIAA", "AAII")  # a pixel of four slices each
    masks = np.array([[{"L": 255, "I": 128}.get(sign, 0) for sign in one] for one in columns])
    airways = np.array([[sign == "A" for sign in one] for one in columns])
    results = [
        SliceMask(mask=masks[None, :, k].astype(np.uint8), airway=airways[None, :, k])
        for k in (0, 1, 2, 3) * 2
    ]
    for slab in slabs(stack, results, [20.0]):
        assert slab.mask.tolist() == [[255, 128, 0, 128, 128]]
        assert slab.airway.tolist() == [[False, False, False, True, True]]
