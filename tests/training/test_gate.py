"""The gate, objection by objection: models and figures of which nothing else speaks against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from tests.standin import write_bundle
from training.data.dataset import Pair, list_pairs
from training.data.learnt import LEARNT, PROVENANCE, Learnt, learnt_record
from training.errors import DataError
from training.evaluation.evaluate import SliceResult, evaluate
from training.evaluation.stress import stress
from training.release.gate import Judgement, judge
from training.release.target import Release
from training.synthetic.phantom_set import write_phantom_set

GRID = (32, 32)
NOTHING = -1000.0
"""The cut of a model that calls no pixel lung."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 calls what is dark lung, 2 is its equal, 3 calls nothing lung."""
    folder = tmp_path_factory.mktemp("models")
    for version, cut in (("1", 120.0), ("2", 120.0), ("3", NOTHING)):
        write_bundle(folder, version=version, cut=cut, size=GRID)
    return folder / "standin"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    """Three slices of known spacing of three patients; all show much lung."""
    folder = tmp_path_factory.mktemp("ct") / "ct"
    write_phantom_set(folder, count=3, patients=3, side=48, file_format="dicom")
    return list_pairs(folder).pairs


@pytest.fixture(scope="module")
def results(models: Path, pairs: tuple[Pair, ...]) -> list[SliceResult]:
    """What version 1, and so its equal, finds."""
    return list(evaluate(Model.load(models / "1", Engine()), pairs))


def release(**changes: Any) -> Release:
    return Release(**({"models": Path("unused"), "name": "standin"} | changes))


def with_dice(results: list[SliceResult], *changes: float) -> list[SliceResult]:
    """As if the candidate were better or worse by so much, slice by slice."""
    return [
        replace(item, metrics=replace(item.metrics, dice=item.metrics.dice + change))
        for item, change in zip(results, changes, strict=True)
    ]


def test_an_equal_version_may_follow(models: Path, results: list[SliceResult]) -> None:
    """The comparison is of both models on the same slices, and finds no difference."""
    judgement = judge(models / "2", models / "1", results, release())
    assert judgement.comparison is not None
    assert judgement.comparison.slices == judgement.comparison.patients == 3
    assert judgement.comparison.difference == judgement.comparison.tail_difference == 0
    assert judgement.comparison.setbacks == ()
    assert judgement.overruled == ()
    assert "keeps no record" in judgement.remark


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ((-0.0004, -0.0004, -0.0004), None),
        ((-0.0006, -0.0006, -0.0006), r"difference -0\.0006"),
        ((0.001, 0.001, 0.001), None),
        ((-0.01, 0.005, 0.02), r"5th percentile -0\.00\d+"),
    ],
)
def test_the_mean_and_the_tail_of_real_slices_decide(
    models: Path, results: list[SliceResult], changes: tuple[float, ...], verdict: str | None
) -> None:
    """Each by itself: the models are equal under stress, and groups take more than that."""
    ordered = sorted(results, key=lambda item: item.metrics.dice)
    found = {id(item): change for item, change in zip(ordered, changes, strict=True)}
    candidate = with_dice(results, *(found[id(item)] for item in results))
    if verdict is None:
        judgement = judge(models / "2", models / "1", candidate, release())
        assert judgement.comparison is not None
        assert judgement.comparison.difference == pytest.approx(np.mean(changes), abs=1e-9)
        assert judgement.comparison.candidate == pytest.approx(
            judgement.comparison.reference + np.mean(changes)
        )
        return
    with pytest.raises(DataError, match=rf"version 1 is better .*\n.*{verdict}"):
        judge(models / "2", models / "1", candidate, release())
    forced = judge(models / "2", models / "1", candidate, release(force=True))
    assert forced.overruled == ("version 1 is better on the validation slices or under stress",)


def test_a_group_of_real_slices_decides(models: Path, results: list[SliceResult]) -> None:
    """A loss on examples of one disease is named though the mean gains; a gain is no setback."""
    grouped = [
        replace(item, pair=replace(item.pair, group=name))
        for item, name in zip(results, "abc", strict=True)
    ]
    with pytest.raises(DataError, match=r"\n  · a: mean Dice \S+ → \S+\nVersion"):
        judge(models / "2", models / "1", with_dice(grouped, -0.02, 0.03, 0.03), release())
    better = with_dice(grouped, 0.02, 0.02, 0.02)
    assert judge(models / "2", models / "1", better, release()).overruled == ()


def test_stress_alone_decides(models: Path, pairs: tuple[Pair, ...]) -> None:
    """Of two models whose figures on real slices are the same, and the candidate's are kept."""
    blind = list(evaluate(Model.load(models / "3", Engine()), pairs))
    seeing = list(evaluate(Model.load(models / "1", Engine()), pairs))
    with pytest.raises(DataError, match=r"blur: mean Dice 0\.\d+ → 0\.0000"):
        judge(models / "3", models / "1", seeing, release())
    with pytest.raises(DataError, match=r"no lung: false-positive area 0\.00% → "):
        judge(models / "1", models / "3", blind, release())
    forced = judge(models / "3", models / "1", blind, release(force=True))
    assert forced.comparison is not None
    means = [np.mean([item.metrics.dice for item in results]) for results in (seeing, blind)]
    assert (forced.comparison.reference, forced.comparison.candidate) == pytest.approx(means)
    assert [len(item.dice) for item in forced.stressed] == [3] * len(forced.stressed)
    (expected,) = stress([Model.load(models / "3", Engine())], pairs)
    for item, other in zip(forced.stressed, expected, strict=True):
        assert np.array_equal(item.dice, other.dice)
        assert np.array_equal(item.false_positive, other.false_positive)


def test_the_floor_is_the_mean_of_all_validation_slices(
    models: Path, results: list[SliceResult]
) -> None:
    """Exactly reached it is enough; below it, and by force, the card will say so."""
    mean = float(np.mean([item.metrics.dice for item in results]))
    assert judge(models / "1", None, results, release(minimum_dice=mean)).overruled == ()
    over = release(minimum_dice=mean + 1e-6)
    with pytest.raises(DataError, match=rf"not published, the mean Dice of {mean:.4f} is below"):
        judge(models / "1", None, results, over)
    forced = judge(models / "1", None, results, replace(over, force=True))
    assert forced.overruled[0].startswith(f"the mean Dice of {mean:.4f} is below")
    assert forced.comparison is None
    assert len(forced.stressed[0].dice) == 3


def learnt(*pairs: Pair) -> dict[str, list[str]]:
    return learnt_record(pairs, (), None)


def judged(
    models: Path, results: list[SliceResult], seen: Learnt | None = None, **changes: Any
) -> Judgement:
    return judge(models / "2", models / "1", results, release(**changes), seen=seen)


def test_nobody_is_judged_by_what_either_has_learnt(
    models: Path, results: list[SliceResult], pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    """Slices that the version in place knows, or the candidate from its start, are left out."""
    record = models / "1" / PROVENANCE
    try:
        record.write_text(json.dumps({LEARNT: learnt(pairs[0])}))
        found = judged(models, with_dice(results, -0.2, 0.0, 0.0))
        assert found.comparison is not None
        assert found.comparison.slices == 2
        assert found.remark == (
            "1 validation slices that one of both has learnt from are left out."
        )
        assert len(found.stressed[0].dice) == 2
        began = Learnt(**{name: frozenset(items) for name, items in learnt(pairs[1]).items()})
        found = judged(models, with_dice(results, -0.2, -0.2, 0.0), seen=began)
        assert found.comparison is not None
        assert found.comparison.slices == 1
        record.write_text(json.dumps({LEARNT: learnt(*pairs)}))
        with pytest.raises(DataError, match="version 1 has learnt from all patients that validate"):
            judged(models, results)
        forced = judged(models, results, force=True)
        assert forced.overruled == ("version 1 has learnt from all patients that validate",)
        assert forced.comparison is None
        assert len(forced.stressed[0].dice) == 3
        record.write_text(json.dumps({LEARNT: learnt()}))
        assert judged(models, results).remark == ""
    finally:
        record.unlink()
