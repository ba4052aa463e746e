"""Figures by what a slice holds: areas that a hand can count, on phantom stacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungseg.core.types import Scan, Segmentation
from tests.masks import segmentation
from training.data.dataset import Pair, Sample
from training.evaluation.compare import group_setbacks
from training.evaluation.doubts import DOUBTS, format_doubts
from training.evaluation.evaluate import SliceResult, measure_slice
from training.evaluation.groups import airway_share, by_lung, format_groups
from training.evaluation.metrics import measure_areas

PLACE = Path("unused")
SIDE = 40
CELL_MM = 5.0
"""A pixel of 5 × 5 mm is a quarter of a cm²."""


def box(height: int, width: int, top: int = 5) -> np.ndarray:
    plane = np.zeros((SIDE, SIDE), bool)
    plane[top : top + height, 5 : 5 + width] = True
    return plane


def result(
    truth: np.ndarray,
    mask: np.ndarray,
    *,
    name: str = "a",
    height_mm: float | None = None,
    group: str = "",
) -> SliceResult:
    """A slice of a stack, as it was measured."""
    scan = Scan(
        values=np.zeros((1, SIDE, SIDE), np.float32),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(CELL_MM, CELL_MM),
        positions_mm=None if height_mm is None else np.array([[0.0, 0.0, height_mm]]),
    )
    pair = Pair(name=name, image=PLACE, mask=PLACE, patient=name[0], source="s", group=group)
    sample = Sample(pair=pair, scan=scan, mask=truth, ignored=np.zeros_like(truth))
    found: Segmentation = segmentation(scan, mask)
    return measure_slice(sample, found)


def test_areas_are_what_a_hand_counts() -> None:
    """Ignored pixels are in none of them."""
    truth, mask, airway = box(8, 10), box(8, 12), box(2, 2, top=30)
    ignored = np.zeros_like(truth)
    ignored[5] = True
    found = measure_areas(
        mask | airway, truth, (CELL_MM, CELL_MM), ignored=ignored, airway=box(4, 2, top=30)
    )
    assert found.truth_cm2 == pytest.approx(7 * 10 / 4)
    assert found.found_cm2 == pytest.approx((7 * 12 + 4) / 4)
    assert found.false_cm2 == pytest.approx((7 * 2 + 4) / 4)
    assert (found.airway_cm2, found.airway_called_lung_cm2) == (2.0, 1.0)


def test_slices_are_grouped_by_their_lung() -> None:
    """Much, slivers found and lost, and none with a false area."""
    none = np.zeros((SIDE, SIDE), bool)
    results = [
        result(box(20, 10), box(20, 10), name="a1"),
        result(box(20, 10), box(20, 5), name="b1"),
        result(box(3, 10), box(3, 10), name="a2"),
        result(box(3, 10), none, name="b2"),
        result(none, none, name="a3"),
        result(none, box(4, 8), name="c1"),
    ]
    much, slivers, without = by_lung(results)
    assert (much.slices, much.patients, much.worst) == (2, 2, "s/b1")
    assert much.mean == pytest.approx((1 + 2 / 3) / 2)
    assert much.least == pytest.approx(2 / 3)
    assert np.isnan(much.found)
    assert slivers.found == 0.5
    assert slivers.area_error_cm2 == pytest.approx(7.5 / 2)
    assert (without.false_cm2, without.most_false_cm2, without.worst) == (4.0, 8.0, "s/c1")
    assert np.isnan(without.mean)
    table = format_groups(results)
    assert "| no lung | 2 / 2 | – | – | – | – | – | 4.00 | 8.00 | s/c1 |" in table
    assert "Airways" not in table


def test_regions_follow_the_way_to_the_head() -> None:
    """Of a patient with a whole stack; others have none."""
    lung = box(20, 10)
    stack = [result(lung, lung, name=f"a{n:02d}", height_mm=5.0 * n) for n in range(21)]
    few = [result(lung, lung, name=f"b{n}", height_mm=5.0 * n) for n in range(3)]
    counts = {group.name: group.slices for group in by_lung(stack + few)}
    assert counts == {
        "lung, 10 cm² or more": 24,
        "· apex": 3,
        "· upper": 7,
        "· mid": 7,
        "· base": 4,
    }


def test_ten_square_centimetres_are_no_sliver() -> None:
    """What is smaller is found from a Dice above one half."""
    much, sliver = box(4, 10), box(3, 13)  # 10 cm² and 9.75
    names = [group.name for group in by_lung([result(much, much), result(sliver, sliver)])]
    assert names == ["lung, 10 cm² or more", "slivers below 10 cm²"]
    for mask, found in ((box(1, 13), 0.0), (box(2, 7), 1.0)):  # Dice 26 / 52 and 28 / 53
        (group,) = by_lung([result(sliver, mask)])
        assert group.found == found


@pytest.mark.parametrize(("slices", "told"), [(11, False), (12, True)])
def test_regions_are_told_of_a_stack_of_twelve_slices(slices: int, told: bool) -> None:
    """Of each patient by himself, and by the way from feet to head."""
    lung = box(20, 10)
    stack = [
        result(lung, box(20, 9), name=f"a{n:02d}", height_mm=5.0 * n)
        if n == slices - 1
        else result(lung, lung, name=f"a{n:02d}", height_mm=5.0 * n)
        for n in range(slices)
    ]
    below = [result(lung, lung, name=f"b{n:02d}", height_mm=5.0 * n - 900) for n in range(slices)]
    groups = {group.name: group for group in by_lung(stack + below)}
    assert ("· apex" in groups) == told
    if told:
        assert groups["· apex"].worst == "s/a11"
        assert groups["· apex"].patients == 2
        assert groups["· base"].mean == 1


def test_airways_that_are_called_lung_are_a_share_of_what_was_drawn() -> None:
    """Over all slices on which somebody drew some."""
    lung = box(20, 10)
    plain = result(lung, lung)
    assert plain.areas is not None
    drawn = [
        replace(plain, areas=replace(plain.areas, airway_cm2=area, airway_called_lung_cm2=wrong))
        for area, wrong in ((4.0, 1.0), (0.0, 0.0), (6.0, 0.0))
    ]
    assert airway_share(drawn) == (10.0, 0.1, 2)
    assert "Airways: 10.0% of 10.0 cm² on 2 slices are called lung." in format_groups(drawn)
    dice = np.linspace(0, 1, 21)
    many = [replace(plain, metrics=replace(plain.metrics, dice=value)) for value in dice]
    assert by_lung(many)[0].p5 == pytest.approx(0.05)


def test_without_spacing_there_is_no_group(tmp_path) -> None:
    """Pixels are no cm²."""
    mask = box(20, 10)
    scan = Scan(
        values=np.zeros((1, SIDE, SIDE), np.float32), unit="grey level", media_type="image/png"
    )
    pair = Pair(name="a", image=tmp_path, mask=tmp_path, patient="a", source="s")
    sample = Sample(pair=pair, scan=scan, mask=mask, ignored=np.zeros_like(mask))
    found = measure_slice(sample, segmentation(scan, mask))
    assert found.areas is None
    assert by_lung([found]) == []
    assert np.isnan(airway_share([found])[1])


def test_a_model_that_loses_slivers_is_named() -> None:
    """So is one that finds lung where there is none; a gain is no setback."""
    none, sliver, much = np.zeros((SIDE, SIDE), bool), box(3, 10), box(20, 10)
    good = [result(much, much, name="a1"), result(sliver, sliver), result(none, none, name="c")]
    bad = [result(much, box(20, 9), name="a1"), result(sliver, none), result(none, much, name="c")]
    assert group_setbacks(good, good) == group_setbacks(bad, good) == ()
    found = group_setbacks(good, bad)
    assert found == (
        "lung, 10 cm² or more: mean Dice 1.0000 → 0.9474",
        "slivers below 10 cm²: mean Dice 1.0000 → 0.0000",
        "slivers below 10 cm²: found 100% → 0%",
        "no lung: 0.00 → 50.00 cm² called lung",
    )


def test_examples_of_a_disease_judge_by_themselves() -> None:
    """A loss that three healthy slices hide is named; so is the worst slice of the group."""
    lung = box(10, 10)
    before = [result(lung, lung, name=name, group="disease" * (name == "d")) for name in "abcd"]
    after = [*before[:3], result(lung, box(9, 10), name="d", group="disease")]
    groups = {group.name: group for group in by_lung(after)}
    assert groups["· disease"].worst == "s/d"
    assert (groups["· disease"].slices, groups["· disease"].mean) == (1, pytest.approx(18 / 19))
    assert "· disease: mean Dice 1.0000 → 0.9474" in group_setbacks(before, after)


def test_flags_of_doubt_are_counted_on_bad_slices_and_on_good_ones() -> None:
    """A lost lung is bad whatever its Dice; lung in plain view that is left out is flagged."""
    truth = box(16, 24, top=8)
    both = truth | np.roll(box(4, 24, top=8), 24, axis=0)
    values = np.where(both, -850.0, 40.0)
    values[[0, -1]] = values[:, [0, -1]] = -1000
    pair = Pair(name="a", image=PLACE, mask=PLACE, patient="a", source="s")

    def slice_of(mask: np.ndarray) -> SliceResult:
        scan = Scan(
            values=values[None].astype(np.float32),
            unit="HU",
            media_type="application/dicom",
            spacing_mm=(CELL_MM, CELL_MM),
        )
        sample = Sample(pair=pair, scan=scan, mask=both, ignored=np.zeros_like(both))
        return measure_slice(sample, segmentation(scan, mask))

    good, lost = slice_of(both), slice_of(truth)
    assert (good.lost, lost.lost) == (False, True)
    assert not {*DOUBTS} & good.flags
    assert "air_unlabelled" in lost.flags
    *_, last = format_doubts([good, good, lost]).splitlines()
    assert last == "| any of them | 1 of 1 (100.0%) | 0 of 2 (0.0%) |"
