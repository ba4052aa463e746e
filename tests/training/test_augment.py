"""Augmentation: slice and truth move together, and grey levels are what exports would make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.config import TrainConfig
from training.data.pieces import Piece
from training.synthetic.augment import SMALL_FIELD_SHIFT, augment, render
from training.synthetic.lumps import MOST_SOLID

STILL = TrainConfig(
    rotation_degrees=0,
    turn_probability=0,
    zoom=1,
    stretch=1,
    shift=0,
    flip_probability=0,
    window_probability=0,
    raw_probability=0,
    noise_hu=0,
    blur_pixels=0,
    padding_probability=0,
    background_probability=0,
    opacity_probability=0,
    effusion_probability=0,
    no_lung_probability=0,
    base_probability=0,
    apex_probability=0,
    gas_probability=0,
    streak_probability=0,
    mark_probability=0,
)
"""Changes nothing; each test turns on what it is about."""


def varied(piece: Piece, config: TrainConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return augment(piece, config, config.intensity, np.random.default_rng(seed))


def test_the_default_recipe_is_repeatable_and_in_range(piece: Piece) -> None:
    """Grey levels stay in 0…255 and shares in 0…1, whatever is drawn."""
    for seed in range(40):
        grey, lung = varied(piece, TrainConfig(), seed)
        assert 0 <= grey.min() <= grey.max() <= 255
        assert 0 <= lung.min() <= lung.max() <= 1
        again, lung_again = varied(piece, TrainConfig(), seed)
        assert np.array_equal(grey, again)
        assert np.array_equal(lung, lung_again)


def test_nothing_changes_when_all_is_off(piece: Piece) -> None:
    """HU in the model's window, and the truth as it was."""
    grey, lung = varied(piece, STILL, 0)
    assert np.allclose(grey, np.clip((piece.hu + 1000) / 1400 * 255, 0, 255), atol=0.01)
    assert np.array_equal(lung, piece.lung)
    other, _ = varied(piece, replace(STILL, window_low_hu=-1350, window_high_hu=150), 0)
    assert np.allclose(other, np.clip((piece.hu + 1350) / 1500 * 255, 0, 255), atol=0.01)


@pytest.mark.parametrize(
    "moved",
    [
        replace(STILL, rotation_degrees=30),
        replace(STILL, zoom=2.5, shift=0.1),
        replace(STILL, flip_probability=1, stretch=1.3),
    ],
    ids=["turned", "zoomed", "mirrored"],
)
def test_the_truth_moves_with_the_slice(piece: Piece, moved: TrainConfig) -> None:
    """A plane that is lung where the truth is lung stays so, to the rounding of interpolation."""
    drawn = replace(piece, hu=np.where(piece.lung > 0.5, 400, -1000).astype(np.float32))
    for seed in range(20):
        grey, lung = varied(drawn, moved, seed)
        assert np.allclose(grey / 255, lung, atol=1e-4)


def test_small_fields_of_view_leave_the_middle(piece: Piece) -> None:
    """A crop's centre moves by up to its share of the room, a whole field's hardly."""
    ramp = np.tile(np.linspace(-1000, 400, 128, dtype=np.float32), (120, 1))
    drawn = replace(piece, hu=ramp)
    crops = replace(STILL, zoom=2.5)
    offsets = []
    for seed in range(200):
        grey, _ = varied(drawn, crops, seed)
        inside = grey[60][grey[60] > 0]
        share = (inside.max() - inside.min()) / 255
        if share < 0.6 and grey[60].min() > 0:
            offsets.append(abs(grey[64, 63:65].mean() / 255 - 0.5) / (1 - share))
    assert len(offsets) > 10
    assert 0.15 < max(offsets) < SMALL_FIELD_SHIFT + 0.02


def test_padding_that_is_not_known_as_such_leaves_little_contrast(piece: Piece) -> None:
    """Uncalibrated slices are stretched both ways: without their padding, and with it."""
    padded = piece.hu.copy()
    padded[:20] = -3000
    config = replace(STILL, raw_probability=1)
    lungs = {
        round(float(np.median(grey[piece.lung > 0.5])))
        for grey in (
            render(padded, config, config.intensity, np.random.default_rng(seed))
            for seed in range(20)
        )
    }
    assert len(lungs) == 2
    assert min(lungs) < 60
    assert max(lungs) > 120


def test_a_page_around_the_body_is_often_white(piece: Piece) -> None:
    """Air, white and everything between; the body stays."""
    config = replace(STILL, background_probability=1)
    outside = [
        float(np.median(varied(piece, config, seed)[0][piece.body == 0])) for seed in range(60)
    ]
    assert 8 < sum(grey == 255 for grey in outside) < 40
    assert 12 < sum(grey == 0 for grey in outside) < 50


def test_sharp_kernels_enhance_edges_and_nothing_else(piece: Piece) -> None:
    """The step from lung to wall overshoots on both sides; even ground and the truth stay."""
    step = np.where(np.arange(128) < 64, -850, 40).astype(np.float32)
    drawn = replace(piece, hu=np.tile(step, (120, 1)))
    wide = replace(STILL, sharpen_probability=1, window_low_hu=-6000, window_high_hu=6000)
    reaches = []
    for seed in range(30):
        grey, lung = varied(drawn, wide, seed)
        hu = grey[60] / 255 * 12000 - 6000
        assert hu[:50] == pytest.approx(-850, abs=1)
        assert hu[78:] == pytest.approx(40, abs=1)
        assert hu.min() < -860
        assert hu.max() > 50
        reaches.append(hu.max() - 40)
        assert np.array_equal(lung, piece.lung)
    assert max(reaches) > 4 * min(reaches)  # from gentle to violent


def test_some_windows_leave_fat_and_muscle_white(piece: Piece) -> None:
    """As narrow lung windows do; lung stays darker than they in every window that is shown so."""
    config = replace(STILL, window_probability=1, noise_hu=0)
    fat, lung = (piece.body == 1) & (piece.hu > -150) & (piece.hu < -50), piece.lung == 1
    white = 0
    for seed in range(200):
        grey = render(piece.hu, config, config.intensity, np.random.default_rng(seed))
        if np.median(grey[fat]) == 255:
            white += 1
            assert np.median(grey[lung]) < 200
    assert 5 < white < 60


def test_tumours_stay_lung_and_leave_most_of_it(piece: Piece) -> None:
    """Soft tissue in the lungs, at most a third of them; nothing changes elsewhere."""
    config = replace(STILL, mass_probability=1, window_low_hu=-2000, window_high_hu=2000)
    shares = []
    for seed in range(30):
        grey, lung = varied(piece, config, seed)
        hu = grey / 255 * 4000 - 2000
        inside = piece.lung > 0.5
        assert np.array_equal(lung, piece.lung)
        assert np.allclose(hu[piece.lung == 0], piece.hu[piece.lung == 0], atol=1)
        shares.append(
            ((hu > -100) & inside).sum() / inside.sum() - (piece.hu[inside] > -100).mean()
        )
    assert max(shares) < MOST_SOLID + 0.02
    assert sum(share > 0.005 for share in shares) > 20


def test_limbs_lie_beside_the_body_and_are_no_lung(piece: Piece) -> None:
    """Soft tissue where air was, none of it lung; the body and the truth stay as they were."""
    config = replace(STILL, limb_probability=1, window_low_hu=-2000, window_high_hu=2000)
    for seed in range(30):
        grey, lung = varied(piece, config, seed)
        hu = grey / 255 * 4000 - 2000
        body = piece.body == 1
        assert np.array_equal(lung, piece.lung)
        assert np.allclose(hu[body], piece.hu[body], atol=1)
        added = ((hu > -200) & (piece.body == 0)).sum() - (
            (piece.hu > -200) & (piece.body == 0)
        ).sum()
        assert added > 0.001 * hu.size


def test_a_small_circle_cuts_the_lungs(piece: Piece) -> None:
    """Slice and truth end at the same circle."""
    config = replace(STILL, padding_probability=1, circle=0.4)
    shares = [varied(piece, config, seed)[1].sum() / piece.lung.sum() for seed in range(40)]
    assert min(shares) < 0.8
    assert max(shares) == pytest.approx(1)
