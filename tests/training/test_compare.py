"""Whether one model may replace another: each tolerance, just within it and just beyond."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.dataset import Pair
from training.evaluation.compare import Comparison, compare_models, group_setbacks, setbacks
from training.evaluation.evaluate import SliceResult
from training.evaluation.metrics import Areas, bootstrap_interval, calibration, compare_masks
from training.evaluation.stress import StressResult

PIXEL = np.ones((1, 1), bool)
PLACE = Path("unused")


def measured(
    dice: float = 0.9,
    *,
    name: str = "a1",
    truth: float = 100.0,
    false: float = 0.0,
    airway: tuple[float, float] = (0.0, 0.0),
) -> SliceResult:
    """A slice of patient ``name[0]`` with these figures; areas in cm²."""
    pair = Pair(name=name, image=PLACE, mask=PLACE, patient=name[0], source="s")
    return SliceResult(
        pair=pair,
        metrics=replace(compare_masks(PIXEL, PIXEL), dice=dice),
        calibration=calibration(np.ones((1, 1), np.float32), PIXEL),
        areas=Areas(
            truth_cm2=truth,
            found_cm2=truth,
            false_cm2=false,
            airway_cm2=airway[0],
            airway_called_lung_cm2=airway[1],
        ),
    )


def test_models_are_compared_slice_by_slice() -> None:
    """The candidate minus the one in place: mean, tail, interval by patient, losses first."""
    random = np.random.default_rng(0)
    before = random.uniform(0.7, 0.9, 24)
    after = before + random.normal(0.02, 0.05, 24)
    names = [f"{'abcdef'[number // 4]}{number:02d}" for number in range(24)]
    one, other = (
        [measured(value, name=name) for value, name in zip(dice, names, strict=True)]
        for dice in (before, after)
    )
    outcome = compare_models(one, other)
    assert (outcome.slices, outcome.patients) == (24, 6)
    assert outcome.reference == pytest.approx(before.mean())
    assert outcome.candidate == pytest.approx(after.mean())
    assert outcome.difference == pytest.approx((after - before).mean())
    tail = np.percentile(after, 5) - np.percentile(before, 5)
    assert outcome.tail_difference == pytest.approx(tail)
    patients = [name[0] for name in names]
    assert outcome.interval == pytest.approx(bootstrap_interval(after - before, patients))
    order = np.argsort(after - before)
    assert [name for name, _ in outcome.changes] == [f"s/{names[number]}" for number in order]
    assert outcome.changes[0][1] == pytest.approx((after - before).min())
    lines = outcome.describe().splitlines()
    assert lines[0].startswith("B must not replace A on 24 slices of 6 patients: mean Dice ")
    assert f"{before.mean():.4f} → {after.mean():.4f}, difference +0.0" in lines[0]
    assert len(lines) == 6
    assert lines[1] == f"  s/{names[order[0]]}: {outcome.changes[0][1]:+.4f}"
    assert len(compare_models(one[:3], one[:3]).describe().splitlines()) == 1  # no loss


@pytest.mark.parametrize(
    ("difference", "tail", "replaces"),
    [
        (-0.0005, -0.005, True),
        (-0.00051, 0.1, False),
        (0.1, -0.0051, False),
        (-0.0004, 0.1, True),
        (0.1, -0.0049, True),
        (0.1, 0.1, True),
    ],
)
def test_a_version_may_lose_what_another_seed_loses_too(
    difference: float, tail: float, replaces: bool
) -> None:
    """On average and in the tail, each by itself; a setback forbids it whatever the figures."""
    comparison = Comparison(
        slices=9,
        patients=9,
        reference=0.9,
        candidate=0.9 + difference,
        difference=difference,
        interval=(-1.0, 1.0),
        tail_difference=tail,
        changes=(),
    )
    assert comparison.may_replace == replaces
    assert not replace(comparison, setbacks=("base: worse",)).may_replace
    assert "  base: worse" in replace(comparison, setbacks=("base: worse",)).describe()


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ({"dice": 0.9501}, ()),
        ({"dice": 0.9499}, ("blur: mean Dice 0.9600 → 0.9499",)),
        ({"dice": 0.99, "wrong": 0.5}, ()),
        ({"lungless": 0.0039}, ()),
        ({"lungless": 0.0041}, ("no lung: false-positive area 0.10% → 0.41%",)),
        ({"lungless": 0.0}, ()),
    ],
)
def test_clear_losses_under_stress_are_setbacks(
    after: dict[str, float], found: tuple[str, ...]
) -> None:
    """Dice tells where there is lung, and false positives where there is none."""

    def table(dice: float = 0.96, wrong: float = 0.01, lungless: float = 0.001) -> list:
        return [
            StressResult(
                name=name,
                dice=np.array([value, value]),
                false_positive=np.array([area, area]),
                without_lung=name == "no lung",
            )
            for name, value, area in (("blur", dice, wrong), ("no lung", 1 - dice, lungless))
        ]

    assert setbacks(table(), table(**after)) == found


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (measured(0.9), measured(0.8951), None),
        (measured(0.9), measured(0.8949), "lung, 10 cm² or more: mean Dice 0.9000 → 0.8949"),
        (measured(0.9), measured(0.95), None),
        (measured(1.0, truth=0.0), measured(0.0, truth=0.0, false=0.49), None),
        (
            measured(1.0, truth=0.0, false=0.1),
            measured(1.0, truth=0.0, false=0.61),
            "no lung: 0.10 → 0.61 cm² called lung",
        ),
        (measured(1.0, truth=0.0, false=9.0), measured(1.0, truth=0.0, false=0.0), None),
        (measured(false=0.0), measured(false=9.0), None),  # its Dice tells
        (measured(airway=(10.0, 1.0)), measured(airway=(10.0, 1.49)), None),
        (
            measured(airway=(10.0, 1.0)),
            measured(airway=(10.0, 1.51)),
            "airways called lung: 10% → 15%",
        ),
        (measured(airway=(10.0, 9.0)), measured(airway=(10.0, 0.0)), None),
    ],
)
def test_a_loss_in_a_group_of_real_slices_is_a_setback(
    before: SliceResult, after: SliceResult, found: str | None
) -> None:
    assert group_setbacks([before], [after]) == (() if found is None else (found,))


@pytest.mark.parametrize(
    ("lost", "found"), [(2, ()), (3, ("slivers below 10 cm²: found 100% → 92%",))]
)
def test_one_sliver_in_twenty_may_be_lost(lost: int, found: tuple[str, ...]) -> None:
    """Found or not is what counts of them, though the mean of the others rises."""
    slivers = [measured(0.6, truth=5.0) for _ in range(40)]
    worse = [measured(0.4, truth=5.0)] * lost + [measured(0.7, truth=5.0)] * (40 - lost)
    assert group_setbacks(slivers, worse) == found
    assert not any("found" in sentence for sentence in group_setbacks(worse, slivers))
