"""The rules that drop pairs: true bases, gas and white pages stay, forgotten lungs go."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.clean import body_and_dark, suspect
from training.data.intensity import find_peaks, page_around
from training.synthetic.phantom import Phantom, make_phantom


@pytest.fixture(scope="module")
def chest() -> Phantom:
    """A mid-chest slice."""
    return make_phantom((256, 256), seed=4)


def base(gas_radius: int) -> tuple[np.ndarray, np.ndarray]:
    """An abdomen with a sliver of lung and a stomach full of gas: intensities, mask."""
    chest = make_phantom((256, 256), seed=4)
    hu = np.where(chest.lungs, 60, chest.hu).astype(np.float32)
    y, x = np.indices(hu.shape)
    sliver = chest.right & (x < np.flatnonzero(chest.right.any(axis=0))[0] + 5)
    hu[sliver] = -550  # half air, half liver
    hu[(y - 120) ** 2 + (x - 165) ** 2 < gas_radius**2] = -980
    return hu, sliver


@pytest.mark.parametrize("gas_radius", [0, 16, 24])
def test_a_small_true_base_beside_a_stomach_full_of_gas_is_kept(gas_radius: int) -> None:
    """The gas has many times the sliver's area, and the sliver is hardly dark."""
    hu, sliver = base(gas_radius)
    body, _ = body_and_dark(hu, "HU")
    assert 0 < sliver.sum() < 0.015 * body.sum()
    assert suspect(hu, sliver, unit="HU") is None
    assert suspect(hu, np.zeros_like(sliver), unit="HU") is None


def test_a_forgotten_lung_is_found(chest: Phantom) -> None:
    """One of two, both, or one that nobody labelled beside a sliver."""
    for mask, code in (
        (chest.left, "missing_lung"),
        (np.zeros_like(chest.left), "empty_mask"),
        (chest.left & (np.indices(chest.left.shape)[0] > 150), "missing_lung"),
    ):
        found = suspect(chest.hu, mask)
        assert found is not None
        assert found.code == code


def test_a_lung_that_is_ignored_is_not_missing(chest: Phantom) -> None:
    """Nobody could tell, and that is what the mask says."""
    assert suspect(chest.hu, chest.left, ignored=chest.right) is None
    assert suspect(chest.hu, np.zeros_like(chest.left), ignored=chest.lungs) is None


@pytest.mark.parametrize("window", [(-1350, 150), (-160, 240), (-1000, 1000)])
def test_a_white_page_is_neither_body_nor_tissue(
    chest: Phantom, window: tuple[float, float]
) -> None:
    """The same body and the same peaks as on air, whatever the window."""
    low, high = window
    body, _ = body_and_dark(chest.hu)
    grey = np.rint(np.clip((chest.hu - low) / (high - low), 0, 1) * 255).astype(np.float32)
    paged = np.where(body, grey, 255).astype(np.float32)
    aired = np.where(body, grey, 0).astype(np.float32)
    page = page_around(paged)
    assert page.sum() == pytest.approx((~body).sum(), rel=0.02)
    assert not page_around(aired).any()
    found, expected = (body_and_dark(shown)[0] for shown in (paged, aired))
    assert (found != expected).mean() < 0.01
    assert find_peaks(paged)[1] == pytest.approx(find_peaks(aired)[1], abs=8)
    assert suspect(paged, chest.lungs) is None


def test_a_body_that_fills_the_field_is_no_page(chest: Phantom) -> None:
    """Tissue at the corners has noise; so has the heart, zoomed into."""
    assert not page_around(chest.hu[100:150, 120:150]).any()
    assert not page_around(np.zeros((20, 20), np.float32)).any()
