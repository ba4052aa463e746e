"""Rules that repair masks: what each one takes and adds; the command measures them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungseg.core.types import Scan, Segmentation
from tests.masks import segmentation
from tests.standin import write_bundle
from training.__main__ import main
from training.evaluation.rules import RULES
from training.synthetic.phantom import make_phantom

pytestmark = pytest.mark.training

SIZE = (256, 256)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan(values=make_phantom(SIZE, seed=2).hu[None], unit="HU", media_type="image/png")


def drawn(probability: np.ndarray) -> Segmentation:
    scan = Scan(values=probability[None], unit="HU", media_type="image/png")
    return segmentation(scan, probability >= 0.5, probability)


def block(rows: tuple[int, int], columns: tuple[int, int], height: float = 1.0) -> np.ndarray:
    plane = np.zeros(SIZE, np.float32)
    plane[slice(*rows), slice(*columns)] = height
    return plane


LUNGS = block((80, 160), (60, 100)) + block((80, 160), (150, 190))
SPECK = block((200, 205), (90, 95))  # 0.04% of the slice
TRACHEA = block((100, 112), (120, 132))  # 0.2%, square, in the middle
ROUND_AT_THE_SIDE = block((60, 72), (70, 82))
OUTSIDE = block((2, 14), (2, 14))
FAINT = block((100, 120), (110, 140), 0.45)
HOLE = block((100, 110), (70, 80))


@pytest.mark.parametrize(
    ("name", "found", "kept"),
    [
        ("as published", LUNGS + SPECK + FAINT, LUNGS + SPECK),
        ("threshold 0.4", LUNGS + FAINT, LUNGS + FAINT),
        ("threshold 0.6", LUNGS + block((5, 9), (5, 9), 0.55), LUNGS),
        ("two largest regions", LUNGS + SPECK + TRACHEA, LUNGS),
        ("three largest regions", LUNGS + SPECK + TRACHEA, LUNGS + TRACHEA),
        ("no region under 0.05% of the slice", LUNGS + SPECK + TRACHEA, LUNGS + TRACHEA),
        ("no region under 0.2% of the slice", LUNGS + SPECK + TRACHEA, LUNGS + TRACHEA),
        ("holes filled", LUNGS - HOLE, LUNGS),
        ("nothing outside the body", LUNGS + OUTSIDE, LUNGS),
        (
            "no small round region in the middle",
            LUNGS + TRACHEA + ROUND_AT_THE_SIDE,
            LUNGS + ROUND_AT_THE_SIDE,
        ),
        ("no small round region in the middle", 0 * LUNGS, 0 * LUNGS),
    ],
)
def test_a_rule_repairs_what_its_name_says(
    name: str, found: np.ndarray, kept: np.ndarray, scan: Scan
) -> None:
    assert np.array_equal(RULES[name](drawn(found), scan), kept > 0)


def test_the_command_prints_a_row_for_each_rule(
    tmp_path: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stand-in thresholds well: what fills holes or cuts elsewhere shows in its row."""
    write_bundle(tmp_path)
    arguments = ["--model", str(tmp_path / "standin" / "1"), "--data", str(phantoms)]
    assert main(["rules", *arguments, "--subset", "all", "--limit", "2"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("| rule | as stored |")
    assert [row.split("|")[1].strip() for row in rows] == list(RULES)
    assert len({row.split("|", 2)[2] for row in rows}) > 2
