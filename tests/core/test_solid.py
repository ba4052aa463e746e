"""Labels over whole volumes: neighbours agree, and what is no lung goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lungseg.core.solid import settle
from lungseg.core.solid_runs import SolidRuns
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from tests.core.ellipsoids import cut

STEPS = np.full(61, 4.0)
ACROSS = np.zeros((3, 3, 3), bool)
ACROSS[1] = True
ACROSS[:, 1] = True
"""What touches: within planes also corners, across planes the same row's."""


@pytest.fixture
def lungs() -> np.ndarray:
    return cut()[1].labels


def swapped(labels: np.ndarray, planes: object) -> np.ndarray:
    found = labels.copy()
    found[planes] = np.where(found[planes] > 0, RIGHT + LEFT - found[planes], 0)
    return found


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.98))
@settings(max_examples=60, deadline=None)
def test_runs_that_touch_make_the_regions_of_scipy(seed: int, share: float) -> None:
    """Of noise of any thickness; faces are those that a comparison of neighbours counts."""
    noise = np.random.default_rng(seed)
    mask = noise.random(tuple(noise.integers(1, 9, 3))) < share
    runs = SolidRuns.of(mask.astype(np.uint8))
    assert runs is not None
    count = runs.lengths.size
    assert SolidRuns.of(mask.astype(np.uint8), count) is not None
    assert count == 0 or SolidRuns.of(mask.astype(np.uint8), count - 1) is None
    assert runs.lengths.sum() == mask.sum()
    one, other, faces = runs.touching()
    region = runs.regions(one, other)
    numbers = np.zeros(mask.shape, np.uint8)
    runs.paint(numbers, np.ones(region.size, bool), (region + 1).astype(np.uint8))
    expected = np.asarray(ndimage.label(mask, ACROSS)[0])
    count = int(expected.max())
    assert np.unique(region).size == count
    assert not numbers[~mask].any()
    pairs = np.unique(np.stack([numbers[mask], expected[mask]]), axis=1)
    assert pairs.shape[1] == count
    along = (mask[1:] & mask[:-1]).sum() + (mask[:, 1:] & mask[:, :-1]).sum()
    assert faces.sum() == along  # and none within rows, where runs end


def test_sides_that_meet_in_a_row_touch_by_one_face() -> None:
    labels = np.array([[[0, 1, 1, 2, 2, 0, 1]]], np.uint8)
    runs = SolidRuns.of(labels)
    assert runs is not None
    assert runs.labels.tolist() == [1, 2, 1]
    assert [part.tolist() for part in runs.touching()] == [[0], [1], [1]]


@pytest.mark.parametrize(
    "planes", [[30], [3], [29, 30, 31], [20, 22, 24, 25], list(range(44, 61)), [56, 57]]
)
def test_planes_that_were_labelled_the_wrong_way_round_are_turned(
    lungs: np.ndarray, planes: list[int]
) -> None:
    labels = swapped(lungs, planes)
    assert settle(labels, STEPS)
    assert np.array_equal(labels, lungs)


def test_planes_without_sides_follow_their_neighbours(lungs: np.ndarray) -> None:
    """The whole top and a plane in the middle, by the nearest lung of the plane beside."""
    labels = lungs.copy()
    for index in (25, *range(48, 61)):
        labels[index] = np.minimum(labels[index], 1) * UNSIDED
    assert settle(labels, STEPS)
    assert np.array_equal(labels, lungs)


def test_without_sides_in_most_planes_there_are_none(lungs: np.ndarray) -> None:
    shown = lungs.any(axis=(1, 2))
    for index in np.flatnonzero(shown)[: int(shown.sum() * 0.6)]:
        lungs[index] = np.minimum(lungs[index], 1) * UNSIDED
    mask = lungs > 0
    assert not settle(lungs, STEPS)
    assert np.array_equal(lungs, mask * np.uint8(UNSIDED))


def test_specks_go_and_slivers_stay(lungs: np.ndarray) -> None:
    """By their share of all lung: a tip of a lung may hang together with nothing."""
    labels, least = lungs.copy(), int(1e-4 * (lungs > 0).sum())
    labels[2, 60, 50 : 50 + least + 1] = RIGHT
    expected = labels.copy()
    labels[30, 5, 5 : 5 + least] = LEFT
    assert settle(labels, STEPS)
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize(("below_mm", "stays"), [(28.0, True), (36.0, False)])
def test_gas_far_from_the_lungs_goes(lungs: np.ndarray, below_mm: float, stays: bool) -> None:
    """Of the bowel below and the throat above, by the distance of planes; large lung stays."""
    body = np.concatenate([np.zeros((20, *lungs.shape[1:]), np.uint8), lungs])
    lowest = int(np.flatnonzero(body.any(axis=(1, 2)))[0])
    for turned in (body, body[::-1]):
        labels = turned.copy()
        first = int(np.flatnonzero(labels.any(axis=(1, 2)))[0 if turned is body else -1])
        away = round(below_mm / 4)
        gas = first - away if turned is body else first + away
        labels[gas, 50:70, 60:80] = LEFT
        expected = labels if stays else turned
        found = labels.copy()
        assert settle(found, np.full(81, 4.0))
        assert np.array_equal(found, expected)
    assert lowest > 10


def test_crumbs_of_a_cut_go_to_the_lung_that_they_touch() -> None:
    """Near the midline, where the place tells nothing; hardly touching they stay."""
    labels = np.zeros((20, 60, 100), np.uint8)
    labels[:, 10:50, 5:50], labels[:, 10:50, 52:95] = RIGHT, LEFT
    labels[8:12, 20:30, 50:52] = LEFT
    labels[8:12, 32:40, 46:50] = 0
    labels[8:12, 33:39, 47:49] = RIGHT
    expected = labels.copy()
    labels[8:12, 20:30, 48:50] = LEFT  # hangs together with the left lung: it is that
    expected[8:12, 20:30, 48:50] = LEFT
    labels[4:6, 25:28, 47:50] = LEFT
    expected[4:6, 25:28, 47:50] = RIGHT
    assert settle(labels, np.ones(20))
    assert np.array_equal(labels, expected)


def test_one_lung_and_none_stay_as_they_are(lungs: np.ndarray) -> None:
    for labels in (np.where(lungs == LEFT, lungs, 0), np.zeros_like(lungs)):
        found = labels.copy()
        assert settle(found, STEPS)
        assert np.array_equal(found, labels)
