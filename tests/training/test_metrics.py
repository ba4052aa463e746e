"""Figures about masks: hand-computed values, and agreement with MedPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from training.evaluation.metrics import (
    bootstrap_interval,
    calibration,
    compare_masks,
    dice_of,
    measure_areas,
)


def _box(top: int, left: int, height: int, width: int) -> np.ndarray:
    plane = np.zeros((20, 30), bool)
    plane[top : top + height, left : left + width] = True
    return plane


def test_overlap_is_what_a_hand_counts() -> None:
    """Two 4×4 boxes that share 4×2 pixels."""
    found = compare_masks(_box(5, 5, 4, 4), _box(5, 7, 4, 4))
    assert found.dice == found.f1 == pytest.approx(8 * 2 / 32)
    assert found.iou == pytest.approx(8 / 24)
    assert found.precision == found.recall == pytest.approx(0.5)
    assert found.accuracy == pytest.approx(1 - 16 / 600)
    assert found.area_error == 0
    assert found.false_positive_fraction == pytest.approx(8 / 600)


def test_too_much_and_too_little_are_told_apart() -> None:
    """A mask of half the truth is precise; one of twice the truth misses nothing."""
    half, whole = _box(5, 5, 4, 4), _box(5, 5, 4, 8)
    little, much = compare_masks(half, whole), compare_masks(whole, half)
    assert (little.precision, little.recall, little.area_error) == (1, 0.5, -0.5)
    assert (much.precision, much.recall, much.area_error) == (0.5, 1, 1)
    assert (little.false_positive_fraction, little.truth_fraction) == (0, 32 / 600)
    assert (much.false_positive_fraction, much.truth_fraction) == (16 / 600, 16 / 600)
    assert little.iou == much.iou == 0.5
    assert little.dice == much.dice == dice_of(half, whole) == pytest.approx(2 / 3)
    assert little.accuracy == pytest.approx(1 - 16 / 600)
    areas = measure_areas(whole, half, (2.0, 5.0))
    assert (areas.found_cm2, areas.truth_cm2, areas.false_cm2) == pytest.approx((3.2, 1.6, 1.6))


def test_distances_are_in_millimetres_of_the_axis() -> None:
    """A box moved by two columns of 1.5 mm: its far borders are 3 mm away."""
    found = compare_masks(_box(5, 5, 4, 4), _box(5, 7, 4, 4), (0.5, 1.5))
    assert found.hd95 == pytest.approx(3.0)
    assert 0 < found.assd < 3.0


def test_equal_masks_are_perfect() -> None:
    found = compare_masks(_box(2, 3, 9, 8), _box(2, 3, 9, 8))
    assert (found.dice, found.iou, found.precision, found.recall) == (1, 1, 1, 1)
    assert (found.hd95, found.assd) == (0, 0)


def test_a_slice_without_lung_is_right_when_nothing_is_found() -> None:
    """An empty truth met by an empty mask is perfect; its area error is unknown, not 0."""
    empty = np.zeros((20, 30), bool)
    found = compare_masks(empty, empty)
    assert (found.dice, found.precision, found.recall, found.hd95) == (1, 1, 1, 0)
    assert np.isnan(found.area_error)


def test_invented_lung_scores_zero_and_has_no_distance() -> None:
    found = compare_masks(_box(5, 5, 4, 4), np.zeros((20, 30), bool))
    assert (found.dice, found.precision, found.iou) == (0, 0, 0)
    assert found.false_positive_fraction == pytest.approx(16 / 600)
    assert np.isnan(found.hd95)


def test_a_lung_that_is_missed_altogether_has_no_precision() -> None:
    """An empty mask is no precise one where there is lung."""
    found = compare_masks(np.zeros((20, 30), bool), _box(5, 5, 4, 4))
    assert (found.dice, found.precision, found.recall) == (0, 0, 0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_medpy_agrees(seed: int) -> None:
    """Dice, IoU, HD95 and ASSD of random blobs are MedPy's to rounding."""
    from medpy.metric import binary as medpy

    random = np.random.default_rng(seed)
    mask, truth = (ndimage.gaussian_filter(random.random((40, 57)), 3) > 0.5 for _ in range(2))
    spacing = (0.7, 1.3)
    found = compare_masks(mask, truth, spacing)
    assert found.dice == pytest.approx(medpy.dc(mask, truth))
    assert found.iou == pytest.approx(medpy.jc(mask, truth))
    assert found.hd95 == pytest.approx(medpy.hd95(mask, truth, spacing))
    assert found.assd == pytest.approx(medpy.assd(mask, truth, spacing))


def test_calibration_error_of_a_known_case() -> None:
    """Probability 0.75 where half the pixels are lung is off by 0.25."""
    probability = np.full((10, 10), 0.75, np.float32)
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    assert calibration(probability, truth).expected_error == pytest.approx(0.25)


def test_calibration_is_that_of_uncertain_pixels() -> None:
    """A thousand plain pixels don't hide what is wrong about ten; without any there is no error."""
    plain = np.where(np.arange(1000) % 2, 1.0, 0.0).astype(np.float32)[None]
    assert np.isnan(calibration(plain, plain > 0.5).expected_error)
    probability = np.concatenate([plain, np.full((1, 10), 0.3, np.float32)], axis=1)
    found = calibration(probability, probability > 0.5)
    assert found.expected_error == pytest.approx(0.3)


def test_uncertain_is_from_a_tenth_to_nine_tenths() -> None:
    """What lies nearer to certainty is not counted, however wrong."""
    nothing = np.zeros((10, 10), bool)
    for value, error in ((0.05, np.nan), (0.15, 0.15), (0.85, 0.85), (0.95, np.nan)):
        found = calibration(np.full((10, 10), value, np.float32), nothing).expected_error
        assert found == pytest.approx(error, nan_ok=True)


def test_an_interval_holds_95_of_100_means() -> None:
    """Of many values it is 1.96 standard errors wide either way."""
    values = np.random.default_rng(3).normal(0.9, 0.05, 400)
    low, high = bootstrap_interval(values, range(400))
    error = values.std() / 20
    assert (values.mean() - low) / error == pytest.approx(1.96, rel=0.07)
    assert (high - values.mean()) / error == pytest.approx(1.96, rel=0.07)


def test_calibration_adds_up_over_slices() -> None:
    """Two slices that err in opposite directions within a bin cancel, as pooled pixels do."""
    probability = np.full((10, 10), 0.75, np.float32)
    all_lung, half = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    half[:5] = True
    both = calibration(probability, all_lung) + calibration(probability, half)
    assert both.pixels.sum() == 200
    assert both.expected_error == pytest.approx(0.0)


def test_bootstrap_interval_holds_the_mean_and_repeats() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.05, 60)
    low, high = bootstrap_interval(values, range(60))
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, range(60))
    assert all(np.isnan(bootstrap_interval(np.array([np.nan]), ["p"])))


def test_slices_of_one_patient_count_as_what_they_are() -> None:
    """Twenty copies of each slice say no more than one, and a patient's NaN is left out."""
    values = np.random.default_rng(3).normal(0.9, 0.05, 12)
    once = bootstrap_interval(values, range(12))
    again = bootstrap_interval(np.repeat(values, 20), np.repeat(np.arange(12), 20).tolist())
    assert again == pytest.approx(once)
    many = bootstrap_interval(np.repeat(values, 20), range(240))
    assert many[1] - many[0] < 0.4 * (once[1] - once[0])
    assert bootstrap_interval(np.append(values, np.nan), [*range(12), 12]) == once
