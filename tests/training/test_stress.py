"""The stress set: each rule changes what it says and nothing else; the table is an evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.core.types import Scan
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from tests.standin import write_bundle
from training.__main__ import main
from training.data.dataset import Pair, Sample, list_pairs, read_sample
from training.data.pieces import Piece, as_piece
from training.evaluation.evaluate import evaluate
from training.evaluation.stress import StressResult, format_stress, joined, stress
from training.synthetic import anatomy
from training.synthetic.phantom import make_phantom
from training.synthetic.stress_set import STRESSES, Stress, stressed

RULES = {rule.name: rule for rule in STRESSES}


@pytest.fixture(scope="module")
def sample(phantoms: Path) -> Sample:
    return read_sample(list_pairs(phantoms).pairs[0])


def drawn() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("rule", STRESSES, ids=lambda rule: rule.name)
def test_a_stress_is_the_same_each_time(rule: Stress, sample: Sample) -> None:
    """Piece and truth have one size; the same name draws the same change."""
    (shown, truth, _), (again, truth_again, _) = (stressed(rule, sample) for _ in range(2))
    assert shown.values.shape == (1, *truth.shape)
    assert np.isfinite(shown.values).all()
    assert np.array_equal(shown.values, again.values)
    assert np.array_equal(truth, truth_again)
    assert truth.any() == (not rule.name.startswith("no lung"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("as stored", lambda mask: mask),
        ("JPEG quality 50, mediastinum", lambda mask: mask),
        ("turned by 90°", np.rot90),
        ("turned by 180°", lambda mask: mask[::-1, ::-1]),
        ("prone", lambda mask: mask[::-1, ::-1]),
        ("mirrored", np.fliplr),
        ("field halved", lambda mask: mask[16:48, 16:48]),
        ("white outside", lambda mask: mask),
        ("effusion", lambda mask: mask),
        ("consolidation", lambda mask: mask),
        ("expiration", lambda mask: mask),
        ("streaky noise", lambda mask: mask),
        ("bowel gas", lambda mask: mask),
    ],
)
def test_the_truth_moves_with_the_slice(sample: Sample, name: str, expected: object) -> None:
    """Exactly, wherever nothing is resampled."""
    _, truth, _ = stressed(RULES[name], sample)
    assert np.array_equal(truth, expected(sample.mask))  # type: ignore[operator]


WINDOWS = {
    "window lung [-1350, 150]": (-1350, 150, 1),
    "window narrow lung [-1200, -200]": (-1200, -200, 1),
    "window wide [-1024, 600]": (-1024, 600, 1),
    "window bone [-450, 1050]": (-450, 1050, 1),
    "window mediastinum [-160, 240]": (-160, 240, 1),
    "window abdomen [-125, 225]": (-125, 225, 1),
    "gamma 0.5": (-1350, 150, 0.5),
    "gamma 2": (-1350, 150, 2),
}
PLAIN = {
    *("as stored", "calibrated HU", "minimum to maximum", *WINDOWS),
    *("JPEG quality 50, lung", "JPEG quality 50, mediastinum"),
}
"""Stresses that show the slice as it is, in another way."""


@pytest.fixture(scope="module")
def mid_chest() -> Sample:
    """A calibrated slice that is large enough for a blur of a 256th of its side to be seen."""
    phantom = make_phantom((128, 128), seed=2)
    scan = Scan(values=phantom.hu[None], unit="HU", media_type="application/dicom")
    pair = Pair(name="e", image=Path(), mask=Path(), patient="e", source="s")  # its draws show
    nothing = np.zeros_like(phantom.lungs)
    return Sample(pair=pair, scan=scan, mask=phantom.lungs, ignored=nothing)


@pytest.mark.parametrize("rule", STRESSES, ids=lambda rule: rule.name)
def test_every_stress_but_the_plain_ones_changes_the_slice(rule: Stress, mid_chest: Sample) -> None:
    """And it is the changed slice that is shown, in the way that the name says."""
    shown, *_ = stressed(rule, mid_chest)
    if rule.show is None:
        assert rule.name == "as stored"
        assert shown is mid_chest.scan
        return
    still = rule.show(mid_chest.scan.values[0])
    same = still.values.shape == shown.values.shape and np.allclose(still.values, shown.values)
    assert same == (rule.name in PLAIN)
    ways = {"lung": (-1350, 150), "mediastinum": (-160, 240), "wide": (-1024, 600)}
    way = rule.name.rpartition(", ")[2]
    if "minimum to maximum" in rule.name:
        assert (shown.values.min(), shown.values.max(), shown.white) == (0, 255, 255)
    elif rule.name in WINDOWS or way in ways or "outside" in rule.name:
        low, high, gamma = WINDOWS.get(rule.name, (*ways.get(way, ways["lung"]), 1))
        expected = np.rint(
            np.clip((mid_chest.scan.values[0] - low) / (high - low), 0, 1) ** gamma * 255
        )
        error = np.abs(still.values[0] - expected)
        assert shown.unit == "grey level"
        if "JPEG" in rule.name:
            assert 0.5 < error.mean() < 12
        else:
            assert error.max() == 0
    else:
        assert shown.unit == "HU"
        assert np.array_equal(still.values[0], np.rint(mid_chest.scan.values[0]))


@pytest.mark.parametrize("name", ["noise", "streaky noise"])
def test_noise_has_the_spread_of_a_low_dose(name: str, mid_chest: Sample) -> None:
    """80 HU; streaks are alike along a row and not along a column."""
    noise = stressed(RULES[name], mid_chest)[0].values[0] - mid_chest.scan.values[0]
    assert noise.std() == pytest.approx(80, rel=0.05)


def test_slices_are_turned_and_mirrored_with_their_truth(mid_chest: Sample) -> None:
    for name, turn in (
        ("turned by 90°", np.rot90),
        ("turned by 180°", lambda plane: plane[::-1, ::-1]),
        ("mirrored", np.fliplr),
        ("field halved", lambda plane: plane[32:96, 32:96]),
    ):
        shown, *_ = stressed(RULES[name], mid_chest)
        assert np.array_equal(shown.values[0], turn(np.rint(mid_chest.scan.values[0])))


def test_whoever_lies_prone_lies_on_the_same_table(mid_chest: Sample) -> None:
    """The body is turned, what is around it is not, and where it was there is air."""
    body = as_piece(mid_chest).body > 0
    turned = body[::-1, ::-1]
    shown = stressed(RULES["prone"], mid_chest)[0].values[0]
    assert np.array_equal(shown[turned], np.rint(mid_chest.scan.values[0])[::-1, ::-1][turned])
    around, left = ~body & ~turned, body & ~turned
    assert np.array_equal(shown[around], np.rint(mid_chest.scan.values[0])[around])
    assert left.any()
    assert (shown[left] == -1000).all()


def test_grounds_and_gas_are_where_their_names_say(mid_chest: Sample) -> None:
    """White, grey and air around the body; gas in the body of an abdomen and in no other."""
    piece = as_piece(mid_chest)
    outside = piece.body == 0
    for name, value in (
        *(("white outside", 255), ("white outside, mediastinum", 255)),
        *(("grey outside", np.rint(850 / 1500 * 255)), ("table removed", -1000)),
    ):
        assert (stressed(RULES[name], mid_chest)[0].values[0][outside] == value).all()
    tissue = (piece.body == 1) & (piece.lung == 0) & (mid_chest.scan.values[0] > -50)
    gas = {
        name: (stressed(RULES[name], mid_chest)[0].values[0][tissue] < -400).any()
        for name in ("bowel gas", "no lung, bowel gas", "no lung")
    }
    assert gas == {"bowel gas": True, "no lung, bowel gas": True, "no lung": False}


def test_a_doubled_field_shows_a_quarter(sample: Sample) -> None:
    """The lungs keep their shape and lie in the middle."""
    _, truth, _ = stressed(RULES["field doubled"], sample)
    assert truth.sum() == pytest.approx(sample.mask.sum() / 4, rel=0.1)
    assert not truth[:16].any()
    assert not truth[48:].any()


def test_windows_clip_as_they_say(sample: Sample) -> None:
    """Eight-bit steps from black to white, on the scale that the slice has."""
    shown, *_ = stressed(RULES["window mediastinum [-160, 240]"], sample)
    assert set(np.unique(shown.values)) <= set(range(256))
    assert (shown.values[0][sample.mask] == 0).mean() > 0.5  # aerated lung is clipped


@pytest.mark.parametrize("change", [anatomy.consolidated, anatomy.with_effusion, anatomy.expired])
def test_disease_stays_inside_and_stays_lung(piece: Piece, change: object) -> None:
    """Nothing outside the lungs changes; inside it gets denser; the truth is the same."""
    ill = change(piece, drawn())  # type: ignore[operator]
    assert np.array_equal(ill.lung, piece.lung)
    assert np.array_equal(ill.hu[piece.lung == 0], piece.hu[piece.lung == 0])
    assert (ill.hu > piece.hu + 100).any()


def test_gas_is_in_the_body_and_no_lung(piece: Piece) -> None:
    """Lungs and the room remain as they are; somewhere tissue has become darker."""
    bloated = anatomy.with_gas(piece, drawn())
    assert np.array_equal(bloated.lung, piece.lung)
    same = (piece.lung == 1) | (piece.body == 0)
    assert np.array_equal(bloated.hu[same], piece.hu[same])
    assert (bloated.hu < piece.hu - 300).any()


def test_lungs_can_vanish_shrink_and_give_way(piece: Piece) -> None:
    """None is left; a share of them is left, where they were; organs take a part."""
    gone = anatomy.without_lungs(piece, drawn())
    assert not gone.lung.any()
    assert gone.hu[piece.lung == 1].min() > -400
    small = anatomy.shrunken(piece, drawn(), (0.5, 0.5))
    assert 0.1 < small.lung.sum() / piece.lung.sum() < 0.3
    assert small.hu[small.lung == 1].mean() == pytest.approx(
        piece.hu[piece.lung == 1].mean(), abs=30
    )
    assert np.allclose(small.hu[piece.body == 0], piece.hu[piece.body == 0], atol=0.01)
    domed = anatomy.with_domes(piece, drawn())
    assert 0 < domed.lung.sum() < piece.lung.sum()
    assert (domed.lung <= piece.lung).all()
    taken = (piece.lung == 1) & (domed.lung == 0)
    assert domed.hu[taken].mean() > 0


def test_another_ground_leaves_the_body(piece: Piece) -> None:
    grounded = anatomy.on_ground(piece, 1000.0)
    assert (grounded.hu[piece.body == 0] == 1000.0).all()
    assert np.allclose(grounded.hu[piece.body == 1], piece.hu[piece.body == 1])


def test_changes_take_slices_without_lung(piece: Piece) -> None:
    """An empty truth stays empty, and nothing divides by it."""
    empty = anatomy.without_lungs(piece, drawn())
    for change in (
        anatomy.consolidated,
        anatomy.with_effusion,
        anatomy.expired,
        anatomy.with_domes,
    ):
        assert not change(empty, drawn()).lung.any()
    assert not anatomy.shrunken(empty, drawn(), (0.3, 0.5)).lung.any()


def test_unstressed_slices_score_as_in_an_evaluation(phantoms: Path, tmp_path: Path) -> None:
    """The same pipeline: "as stored" is what ``evaluate`` says, slice by slice."""
    write_bundle(tmp_path)
    model = Model.load(tmp_path / "standin" / "1", Engine())
    pairs = list_pairs(phantoms).pairs[:4]
    (table,) = stress([model], pairs)
    evaluated = [result.metrics.dice for result in evaluate(model, pairs)]
    assert [item.name for item in table] == list(RULES)
    assert table[0].dice.tolist() == pytest.approx(evaluated)
    (fewer,) = stress([model], pairs, limit=2)
    assert fewer[0].dice.tolist() == pytest.approx([evaluated[0], evaluated[2]])
    assert joined([table, fewer])[0].dice.size == 6


def test_a_stress_with_any_lung_is_one_with_lung(phantoms: Path, tmp_path: Path) -> None:
    """Only where no slice shows any do false positives tell alone; what is ignored never counts."""
    write_bundle(tmp_path, cut=120.0, size=(32, 32))
    model = Model.load(tmp_path / "standin" / "1", Engine())
    full = list_pairs(phantoms).pairs[0]
    mask = np.array(Image.open(full.mask))
    for name, values in (("empty", 0 * mask), ("half", mask)):
        values[:, :20] = 128 if name == "half" else 0
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    empty, half = (replace(full, mask=tmp_path / f"{name}.png") for name in ("empty", "half"))
    (mixed,) = stress([model], [empty, half])
    named = {item.name: item for item in mixed}
    assert not named["as stored"].without_lung
    assert named["no lung"].without_lung
    assert all(item.without_lung for item in stress([model], [empty])[0])
    for number, (pair, metrics) in enumerate(
        (item.pair, item.metrics) for item in evaluate(model, [empty, half])
    ):
        assert pair in (empty, half)
        assert named["as stored"].dice[number] == pytest.approx(metrics.dice)
        share = 1 if pair is empty else 44 / 64  # of the slice that is known
        assert named["as stored"].false_positive[number] == pytest.approx(
            metrics.false_positive_fraction * share
        )
    both = joined([mixed, mixed])
    assert both[0].false_positive.tolist() == [*mixed[0].false_positive] * 2


def test_the_command_prints_the_table_of_unseen_slices(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that the bundle's provenance names, of one model or several."""
    write_bundle(tmp_path)
    folder = tmp_path / "standin" / "1"
    held_out = [f"phantoms/{pair.name}" for pair in list_pairs(phantoms).pairs[:2]]
    (folder / "provenance.json").write_text(json.dumps({"validation": held_out}))
    command = ["stress", "--data", str(phantoms), "--model", str(folder)]
    assert main(command) == 0
    alone = capsys.readouterr().out
    assert "| as stored | 2 |" in alone
    assert "| no lung | 2 | – | – | – |" in alone
    assert main([*command, str(folder)]) == 0
    assert "| as stored | 4 |" in capsys.readouterr().out


def result(name: str, dice: float, wrong: float, *, without_lung: bool = False) -> StressResult:
    return StressResult(
        name=name,
        dice=np.array([dice]),
        false_positive=np.array([wrong]),
        without_lung=without_lung,
    )


def test_the_tail_of_a_stress_is_its_lowest_slices() -> None:
    """Of 21 Dice from 0 to 1 the 5th percentile is the second; a mean has its own worst."""
    spread = replace(result("blur", 0, 0.0), dice=np.linspace(0, 1, 21))
    even = replace(result("noise", 0, 0.0), dice=np.full(21, 0.4))
    text = format_stress([spread, even])
    assert "| blur | 21 | 0.5000 | 0.0500 | 0.0000 | – |" in text
    assert "lowest mean 0.4000 (noise), lowest p5 0.0500 (blur)." in text


def test_the_table_reads_as_markdown() -> None:
    text = format_stress([result("blur", 0.9, 0.1), result("no", 1.0, 0.01, without_lung=True)])
    assert "| blur | 1 | 0.9000 | 0.9000 | 0.9000 | – |" in text
    assert "| no | 1 | – | – | – | 1.000% |" in text


def test_a_line_sums_the_table_up() -> None:
    table = [
        result("blur", 0.9, 0.1),
        result("noise", 0.7, 0.1),
        result("no", 1.0, 0.01, without_lung=True),
        result("gas", 1.0, 0.03, without_lung=True),
    ]
    assert format_stress(table).splitlines()[-1] == (
        "All: mean Dice 0.8000 over the stresses with lung, lowest mean 0.7000 (noise), "
        "lowest p5 0.7000 (noise), false-positive area 2.000% where there is no lung, "
        "at most 3.000% (gas)."
    )
    assert format_stress(table[:1]).endswith("lowest p5 0.9000 (blur).")
