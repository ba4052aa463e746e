"""Grey levels of uncalibrated slices: scanner padding must not take the contrast."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.core.preprocess import IntensityRule, to_grey, without_padding
from training.synthetic.phantom import make_phantom

RULE = IntensityRule(skip_padding=True)


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return make_phantom((200, 240), seed=4).hu.astype(np.float32)


def circle(shape: tuple[int, int]) -> np.ndarray:
    y, x = (np.linspace(-1, 1, side)[:, None] for side in shape)
    return y**2 + x.T**2 <= 1.1


@pytest.mark.parametrize("padding", [-3024.0, -2000.0, -1500.0])
def test_padding_outside_the_circle_changes_nothing_inside(hu: np.ndarray, padding: float) -> None:
    """Whatever value a scanner writes there; without the rule it takes the contrast."""
    seen = circle(hu.shape)
    padded = np.where(seen, hu, np.float32(padding))
    plain, with_rule = (to_grey(padded, "grey level", rule) for rule in (IntensityRule(), RULE))
    reference = to_grey(np.where(seen, hu, -1000).astype(np.float32), "grey level", RULE)
    assert np.abs(with_rule[seen] - reference[seen]).mean() < 3
    assert np.abs(plain[seen] - reference[seen]).mean() > 15
    assert (with_rule[~seen] == 0).all()


def test_a_slice_without_padding_keeps_all_its_values(hu: np.ndarray) -> None:
    assert without_padding(hu) is hu
    assert np.array_equal(
        to_grey(hu, "grey level", RULE), to_grey(hu, "grey level", IntensityRule())
    )
    assert np.array_equal(to_grey(hu, "HU", RULE), to_grey(hu, "HU", IntensityRule()))


@pytest.mark.parametrize("low", [-1350.0, -160.0])
def test_black_of_a_window_stays_black(hu: np.ndarray, low: float) -> None:
    """Air, and in a narrow window the lungs, whether they are taken for padding or not."""
    picture = np.rint(np.clip((hu - low) / 400, 0, 1) * 255).astype(np.float32)
    grey = to_grey(picture, "grey level", RULE)
    assert (grey[picture == 0] == 0).all()
    assert grey.max() == 255


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_and_tiny_slices_have_no_padding(value: float) -> None:
    for shape in ((1, 1), (3, 2), (64, 64)):
        plane = np.full(shape, value, np.float32)
        assert without_padding(plane) is plane
        assert not to_grey(plane, "grey level", RULE).any()
