"""Objectives and the Dice metric: values that a hand can count."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.pieces import AIRWAY_TARGET
from training.fitting.losses import Dice, DiceLoss, make_loss

pytestmark = pytest.mark.training

SIDE = 100
SMOOTH_SHARE = 0.002
SMOOTH = SMOOTH_SHARE * SIDE * SIDE  # 20 pixels


def area(pixels: int) -> np.ndarray:
    """A slice whose first pixels are lung, shape (1, 100, 100, 1)."""
    plane = np.zeros(SIDE * SIDE, np.float32)
    plane[:pixels] = 1
    return plane.reshape(1, SIDE, SIDE, 1)


@pytest.mark.parametrize(
    ("truth", "guess", "expected"),
    [
        (0, 0, 0.0),
        (500, 500, 0.0),
        (500, 0, 1 - SMOOTH / (500 + SMOOTH)),
        (400, 200, 1 - (2 * 200 + SMOOTH) / (600 + SMOOTH)),
        (0, 20, 0.5),
        (0, 60, 0.75),
    ],
)
def test_dice_loss_is_what_a_hand_counts(truth: int, guess: int, expected: float) -> None:
    """Where there is no lung, a false area costs the more the larger it is."""
    assert float(DiceLoss()(area(truth), area(guess))) == pytest.approx(expected, abs=1e-6)


def test_each_slice_has_a_dice_of_its_own() -> None:
    """A batch's loss is their mean: a small lung counts as much as a large one."""
    truths, guesses = ((400, 0, 20), (400, 60, 0))
    pairs = [(area(truth), area(guess)) for truth, guess in zip(truths, guesses, strict=True)]
    alone = [float(DiceLoss()(truth, guess)) for truth, guess in pairs]
    truth, guess = (np.concatenate(planes) for planes in zip(*pairs, strict=True))
    assert float(DiceLoss()(truth, guess)) == pytest.approx(np.mean(alone))
    assert np.mean(alone) > 0.4  # of the whole batch it would be 0.09


def test_smoothing_is_a_share_of_the_slice() -> None:
    """As many pixels of a smaller slice are felt more."""
    truth, guess = area(0)[:, :50, :50], area(0)[:, :50, :50].copy()
    guess[:, 0, :5] = 1
    smooth = SMOOTH_SHARE * 50 * 50
    assert float(DiceLoss()(truth, guess)) == pytest.approx(1 - smooth / (5 + smooth), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [("bce", 1.0, 1.0), ("focal", 0.2**2, 0.8**2)],
)
def test_pixelwise_objectives_are_what_their_papers_say(
    name: str, right: float, wrong: float
) -> None:
    """−log of what the truth was given, in the focal loss times the square of what it was not."""
    truth = area(2500)
    guess = np.full_like(truth, 0.8)
    expected = (2500 * -np.log(0.8) * right + 7500 * -np.log(0.2) * wrong) / 10000
    assert float(make_loss(name)(truth, guess)) == pytest.approx(expected, rel=1e-4)
    half = truth.copy()
    half[:, 50:] = -1  # the mean is still over all pixels
    expected = (2500 * -np.log(0.8) * right + 2500 * -np.log(0.2) * wrong) / 10000
    assert float(make_loss(name)(half, guess)) == pytest.approx(expected, rel=1e-4)


def test_the_metric_cuts_truth_and_guess_at_one_half() -> None:
    """From one half on a pixel is lung, in both."""
    truth, guess = area(0), area(0)
    truth[0, 0, :4, 0] = (0.4, 0.5, 0.6, 1.0)
    guess[0, 0, 2:6, 0] = (0.4, 0.5, 0.6, 1.0)
    dice = Dice()
    dice.update_state(truth, guess)
    assert float(dice.result()) == pytest.approx(2 * 1 / (3 + 3), rel=1e-4)
    empty = Dice()
    empty.update_state(area(0), area(0))
    assert float(empty.result()) == 1


def test_a_mixed_objective_adds_both() -> None:
    truth, guess = area(400), area(400) * 0.8 + 0.1
    parts = [float(make_loss(name)(truth, guess)) for name in ("bce", "dice", "bce_dice")]
    assert parts[2] == pytest.approx(parts[0] + parts[1], rel=1e-4)


def test_the_metric_counts_all_pixels_since_its_reset() -> None:
    dice = Dice()
    dice.update_state(area(100), area(50))
    dice.update_state(area(0), area(50) * 0.4)
    assert float(dice.result()) == pytest.approx(2 * 50 / 150)


@pytest.mark.parametrize("name", ["bce", "dice", "bce_dice", "focal"])
def test_what_is_ignored_has_no_weight(name: str) -> None:
    """Neither in an objective nor in its gradient's direction: any guess there costs the same."""
    truth = area(400)
    truth[:, 50:] = -1
    guess = area(300) * 0.8 + 0.1
    other = guess.copy()
    other[:, 50:] = 0.95
    loss = make_loss(name)
    assert float(loss(truth, guess)) == pytest.approx(float(loss(truth, other)), abs=1e-7)
    wrong = guess.copy()
    wrong[:, 40:50] = 0.95
    assert float(loss(truth, wrong)) > float(loss(truth, guess)) + 0.01
    dice = Dice()
    dice.update_state(truth, other)
    assert float(dice.result()) == pytest.approx(2 * 300 / 700)


def test_airways_weigh_more_and_are_no_lung() -> None:
    """Pixelwise, calling them lung costs twenty times as much as elsewhere; Dice counts alike."""
    plain, airway = area(400), area(400)
    airway[:, 50:52] = AIRWAY_TARGET
    wrong = area(400) * 0.8 + 0.1
    wrong[:, 50:52] = 0.9
    right = area(400) * 0.8 + 0.1
    loss = make_loss("bce")
    here, there = (float(loss(airway, one)) for one in (wrong, right))
    assert here - there == pytest.approx(
        20 * (float(loss(plain, wrong)) - float(loss(plain, right))), rel=1e-3
    )
    assert float(DiceLoss()(airway, wrong)) == pytest.approx(float(DiceLoss()(plain, wrong)))
