"""Domes of the diaphragm out of a mask, and tumours, vessels and lung left in."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.core.soft_tissue import EDGE_HU, LEAST_MM2, SURE, take_out_tissue

SIZE = (300, 400)
LUNG = np.s_[60:240, 80:320]
SPACING = (0.8, 0.8)


def taken_out(
    side: int = 40, hu: float = 40, probability: float = 0.7, spacing: object = SPACING
) -> tuple[np.ndarray, np.ndarray]:
    """What is taken out of a lung with a square of tissue in it, and the square."""
    noise = np.random.default_rng(2).normal(0, 40, SIZE)
    values = np.full(SIZE, 50.0)
    values[LUNG] = -850
    square = np.zeros(SIZE, bool)
    square[120 : 120 + side, 150 : 150 + side] = True
    values[square] = hu
    mask = np.zeros(SIZE, bool)
    mask[LUNG] = True
    sure = np.where(square, probability, 0.98).astype(np.float32)
    found = mask.copy()
    take_out_tissue(found, sure, (values + noise).astype(np.int16), spacing)
    assert not (found & ~mask).any()
    return mask & ~found, square


def test_an_unsure_dome_is_taken_out_whole_and_no_lung_with_it() -> None:
    out, square = taken_out()
    assert (out & square).sum() >= 0.99 * square.sum()
    assert not (out & ~square).any()


def test_a_blurred_dome_goes_as_far_as_it_is_tissue() -> None:
    out, square = taken_out(hu=-120)
    assert (out & square).sum() >= 0.95 * square.sum()
    assert not taken_out(hu=EDGE_HU + 20)[0].any()  # more air than tissue: lung


@pytest.mark.parametrize(
    "kept",
    [
        {"probability": SURE + 0.02},
        {"side": 20},
        {"side": 8, "spacing": (5.0, 5.0)},
        {"hu": -500},
    ],
)
def test_sure_small_narrow_and_aerated_regions_stay(kept: dict) -> None:
    """A tumour, a vessel, two cells of a coarse field, and lung itself."""
    assert not taken_out(**kept)[0].any()


def test_sizes_are_square_millimetres_and_of_a_usual_field_where_unknown() -> None:
    """Of 40 pixels a side, less its rim of cells: by the spacing alone it stays or goes."""
    for spacing, expected in (((0.8, 0.8), True), ((0.4, 0.4), False), (None, True)):
        assert taken_out(spacing=spacing)[0].any() == expected
    assert 40**2 * 0.4**2 < LEAST_MM2 < 40**2 * 0.8**2


def test_nothing_is_left_as_it_is() -> None:
    for size in ((1, 1), (3, 200), SIZE):
        mask = np.zeros(size, bool)
        take_out_tissue(mask, np.zeros(size, np.float32), np.zeros(size, np.int16), None)
        assert not mask.any()
