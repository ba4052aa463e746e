"""Augmentation: slice and truth move together, and grey levels are what exports would make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from lungseg.core.preprocess import IntensityRule, to_grey
from training.config import TrainConfig
from training.data.pieces import Piece
from training.synthetic.augment import SMALL_FIELD_SHIFT, USUAL_WINDOWS_HU, augment, render
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
DEFAULT = TrainConfig()
WIDE = replace(STILL, window_low_hu=-4000, window_high_hu=4000)
"""Shows all HU that are drawn, 31 of them a grey level, in fractions of it."""
AS_IT_IS = IntensityRule(grey_percentiles=(0.0, 100.0))
"""Leaves the levels of an 8-bit picture that has black and white as they are."""


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
        assert np.abs(lung - piece.lung).mean() > 0.001


@dataclass(frozen=True)
class View:
    """How a slice was moved, read off ramps that were moved with it."""

    angle: float
    scale: float
    stretch: float
    mirrored: bool
    shift: np.ndarray


def views(count: int = 100, **changes: Any) -> Iterator[View]:
    """What the given settings alone do to a slice; the truth has to move alike."""
    none = np.zeros((30, 34), np.float32)
    piece = Piece(hu=none, lung=none, body=none, ignored=none, airway=none)
    side = np.array(none.shape)
    places = np.indices(none.shape).astype(np.float32)
    ramps = [(place + 1) / (place.max() + 2) for place in places]
    middle = side // 2
    for seed in range(count):
        found = []
        for ramp in ramps:
            drawn = replace(piece, hu=1400 * ramp - 1000, lung=ramp)
            grey, lung = varied(drawn, replace(STILL, **changes), seed)
            assert np.allclose(grey / 255, lung, atol=1e-4)
            found.append(grey / 255)
        source = np.stack([level * (size + 1) - 1 for level, size in zip(found, side, strict=True)])
        y, x = middle
        matrix = np.stack(
            [
                (source[:, y + 2, x] - source[:, y - 2, x]) / 4,
                (source[:, y, x + 2] - source[:, y, x - 2]) / 4,
            ],
            axis=1,
        )
        centre = (side - 1) / 2
        start = source[:, y, x] - matrix @ (middle - centre)
        area = float(np.linalg.det(matrix))
        scale = abs(area) ** 0.5
        yield View(
            angle=float(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))),
            scale=scale,
            stretch=float(np.hypot(*matrix[:, 0])) / scale,
            mirrored=area < 0,
            shift=-np.linalg.solve(matrix, start - centre) / side,
        )


def test_slices_are_rotated_both_ways_by_the_range() -> None:
    """By the default range, and nothing else is done to them."""
    found = list(views(rotation_degrees=DEFAULT.rotation_degrees))
    angles = [view.angle for view in found]
    assert -15.01 < min(angles) < -13
    assert 13 < max(angles) < 15.01
    for view in found:
        assert (view.scale, view.stretch) == pytest.approx((1, 1), abs=2e-3)
        assert not view.mirrored
        assert view.shift == pytest.approx([0, 0], abs=2e-3)


def test_some_lie_on_a_side_or_on_the_belly() -> None:
    """By quarters of a turn, as often as the recipe says."""
    found = [round(view.angle) % 360 for view in views(turn_probability=0.5)]
    assert set(found) == {0, 90, 180, 270}
    assert 35 < found.count(0) < 65


def test_slices_are_mirrored_from_left_to_right(piece: Piece) -> None:
    """Half of them, and never upside down."""
    found = list(views(flip_probability=DEFAULT.flip_probability))
    assert 35 < sum(view.mirrored for view in found) < 65
    assert [round(view.angle) for view in found] == [0] * len(found)
    grey, lung = varied(piece, replace(STILL, flip_probability=1), 0)
    still, _ = varied(piece, STILL, 0)
    assert np.allclose(grey, still[:, ::-1], atol=0.01)
    assert np.allclose(lung, piece.lung[:, ::-1], atol=1e-5)


def test_fields_grow_and_shrink_some_of_them_by_the_whole_range() -> None:
    """Three of five slices use all of it, the others its root."""
    zoom = DEFAULT.zoom
    logs = [np.log(view.scale) / np.log(zoom) for view in views(zoom=zoom)]
    assert -1.01 < min(logs) < -0.8
    assert 0.8 < max(logs) < 1.01
    assert 18 < sum(abs(log) > 0.5 for log in logs) < 42


def test_proportions_and_places_change_by_the_range() -> None:
    """Both ways; a slice that is stretched keeps its area."""
    ratios = [view.stretch**2 for view in views(stretch=DEFAULT.stretch)]
    assert 1 / 1.101 < min(ratios) < 0.93
    assert 1.07 < max(ratios) < 1.101
    shifts = np.stack([view.shift for view in views(shift=DEFAULT.shift)])
    assert (np.abs(shifts).max(axis=0) < 0.081).all()
    assert (shifts.min(axis=0) < -0.06).all()
    assert (shifts.max(axis=0) > 0.06).all()


def test_the_body_moves_with_the_slice(piece: Piece) -> None:
    """A ground laid after the move ends where the moved body begins."""
    drawn = replace(piece, hu=np.where(piece.body > 0, 400, -1000).astype(np.float32))
    config = replace(STILL, rotation_degrees=40, zoom=1.5, background_probability=1)
    for seed in range(20):
        grey, _ = varied(replace(drawn, lung=piece.body), config, seed)
        _, body = varied(replace(drawn, lung=piece.body), config, seed)
        assert np.allclose(grey[body > 0.999], 255, atol=0.5)
        assert np.ptp(grey[body < 0.001]) < 0.5


def test_a_round_field_ends_slice_and_truth_in_padding(piece: Piece) -> None:
    """Where it ends there is air or the padding of a scanner, and never lung."""
    full = np.ones_like(piece.hu)
    drawn = replace(piece, hu=4000 * full, lung=full, body=full)
    config = replace(WIDE, padding_probability=1, circle=0.4)
    outside, shares = [], []
    for seed in range(60):
        grey, lung = varied(drawn, config, seed)
        seen = grey == 255
        assert np.array_equal(lung, seen)
        shares.append(seen.mean())
        values = np.unique(np.rint(grey[~seen] / 255 * 8000 - 4000))
        assert len(values) <= 1
        outside += values.tolist()
    assert min(shares) < 0.2  # π/4 · 0.4² = 0.13
    assert max(shares) > 0.8  # beyond π/4 = 0.79 only the corners are missing
    air = sum(abs(value + 1000) < 2 for value in outside)
    assert 24 < air < 50
    assert min(outside) < -3200
    assert max(outside) < -990
    without = sum(
        float(varied(drawn, replace(config, padding_probability=0.5), seed)[1].min())
        for seed in range(60)
    )
    assert 15 < without < 45


VARIATIONS = (
    "turn", "flip", "raw", "padding", "background", "opacity", "effusion", "no_lung", "base",
    "apex", "gas", "streak",
)  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_the_default_recipe_varies_as_often_as_it_says(piece: Piece, name: str) -> None:
    """Each of its kinds is on, and is no more frequent than its probability."""
    planes = {item.name: getattr(piece, item.name)[::2, ::2] for item in fields(piece)}
    small = Piece(**planes)
    probability = getattr(DEFAULT, f"{name}_probability")
    config = replace(STILL, **{f"{name}_probability": probability})
    still, truth = varied(small, STILL, 0)
    count = 120
    changed = 0
    for seed in range(count):
        grey, target = varied(small, config, seed)
        changed += not (np.allclose(grey, still, atol=0.5) and np.allclose(target, truth))
    assert 0 < changed / count < probability + 3 * (probability * (1 - probability) / count) ** 0.5
    assert changed / count > probability - 3 * (probability * (1 - probability) / count) ** 0.5


def dark_where_tissue_was(piece: Piece, grey: np.ndarray) -> bool:
    hu = grey / 255 * 8000 - 4000
    return bool(((hu < -500) & (piece.hu > -200) & (piece.body == 1) & (piece.lung == 0)).any())


def test_painting_changes_the_truth_as_it_changes_the_lungs(piece: Piece) -> None:
    """Lungs that are painted out, risen into or shrunk are less; filled ones are as they were."""
    whole = piece.lung == 1
    still, _ = varied(piece, WIDE, 0)
    shares, gassy = [], 0
    for seed in range(24):
        assert not varied(piece, replace(WIDE, no_lung_probability=1), seed)[1].any()
        grey, lung = varied(piece, replace(WIDE, base_probability=1), seed)
        assert (lung <= piece.lung + 1e-6).all()
        assert np.allclose(grey[lung == 1], still[lung == 1], atol=1)  # one change alone
        _, lung = varied(piece, replace(WIDE, apex_probability=1), seed)
        shares.append(lung.sum() / piece.lung.sum())
        grey, lung = varied(piece, replace(WIDE, opacity_probability=1), seed)
        assert np.array_equal(lung, piece.lung)
        assert (grey[whole] > still[whole] + 3).any()
        grey, _ = varied(piece, replace(WIDE, gas_probability=1), seed)
        gassy += dark_where_tissue_was(piece, grey)
        grey, lung = varied(piece, replace(WIDE, streak_probability=1), seed)
        assert grey.max() > 6900 / 8000 * 255
        assert np.array_equal(lung, piece.lung)
    assert gassy > 12  # gas or stool, some bubbles tiny
    assert 0.03 < min(shares) < 0.2
    assert 0.35 < max(shares) < 0.75


def test_lungs_change_in_one_way_at_a_time(piece: Piece) -> None:
    """Of two kinds of a half each, every slice gets one; half of the abdomens hold gas."""
    config = replace(WIDE, no_lung_probability=0.5, opacity_probability=0.5)
    still, _ = varied(piece, WIDE, 0)
    empty, gassy = 0, 0
    for seed in range(60):
        grey, lung = varied(piece, config, seed)
        if lung.any():
            assert np.array_equal(lung, piece.lung)
            assert not np.allclose(grey, still, atol=1)
        else:
            empty += 1
            gassy += dark_where_tissue_was(piece, grey)
    assert 18 < empty < 42
    assert 0.25 * empty < gassy < 0.75 * empty


def test_fluid_stays_lung_and_lies_at_the_back(piece: Piece) -> None:
    """Most slices get some, and the truth of none changes."""
    still, _ = varied(piece, WIDE, 0)
    wet = 0
    for seed in range(20):
        grey, lung = varied(piece, replace(WIDE, effusion_probability=1), seed)
        assert np.array_equal(lung, piece.lung)
        denser = (grey > still + 10) & (piece.lung == 1)
        wet += denser.any()
        rows = np.flatnonzero((piece.lung == 1).any(axis=1))
        assert not denser[: int(rows.mean())].any()
    assert wet > 12


def ramp() -> np.ndarray:
    """Every HU from −4000 to 4000 in half steps, shape (120, 128)."""
    return np.linspace(-4000, 4000, 120 * 128, dtype=np.float32).reshape(120, 128)


def window_of(grey: np.ndarray) -> tuple[float, float]:
    """What HU of the ramp are black and white, of a linear picture of it."""
    hu, level = ramp().ravel(), grey.ravel()
    first, last = hu[np.argmax(level >= 1)], hu[np.argmax(level >= 255)]
    width = (last - first) * 255 / 254
    return float(first - width / 510), float(first - width / 510 + width)


def test_windows_are_the_usual_ones_and_any_others() -> None:
    """Two thirds are near one that readers use; none clips tissue, but for those of lung."""
    config = replace(STILL, window_probability=1, gamma=1)
    exact = {high - low for low, high in USUAL_WINDOWS_HU}
    starts = {low for low, _ in USUAL_WINDOWS_HU}
    clipping, widths, lows = 0, [], []
    for seed in range(300):
        grey = render(ramp(), config, AS_IT_IS, np.random.default_rng(seed))
        assert np.array_equal(grey, np.rint(grey))
        low, high = window_of(grey)
        assert len(np.unique(grey)) == 256
        assert high > min(low + 900, 100) - 3
        clipping += low > -250 and high - low < 600
        widths.append(high - low)
        lows.append(low)
    assert 65 < clipping < 110
    assert sum(any(abs(width - one) < 2 for one in exact) for width in widths) < 30
    assert sum(any(abs(low - one) < 2 for one in starts) for low in lows) < 30
    assert max(widths) > 2400
    assert sum(low < -150 and width > 700 for low, width in zip(lows, widths, strict=True)) > 100
    assert any(low > -400 and width > 800 for low, width in zip(lows, widths, strict=True))


def test_gamma_bends_the_levels_both_ways() -> None:
    """By the default range: the middle of a window becomes darker or lighter than half."""
    found = []
    for seed in range(60):
        straight, bent = (
            render(
                ramp(),
                replace(STILL, window_probability=1, gamma=gamma),
                AS_IT_IS,
                np.random.default_rng(seed),
            )
            for gamma in (1.0, DEFAULT.gamma)
        )
        low, high = window_of(straight)
        middle = bent.ravel()[np.argmax(ramp().ravel() >= (low + high) / 2)] / 255
        found.append(np.log(middle) / np.log(0.5))
    assert 1 / 1.52 < min(found) < 0.75
    assert 1.33 < max(found) < 1.52


def test_slices_are_shown_in_three_ways() -> None:
    """As HU in the model's window, uncalibrated, or through a window, as often as is said."""
    config = replace(STILL, raw_probability=0.25, window_probability=0.45)
    as_hu = to_grey(ramp(), "HU", AS_IT_IS)
    as_stored = to_grey(ramp(), "grey level", AS_IT_IS)
    shown = [render(ramp(), config, AS_IT_IS, np.random.default_rng(seed)) for seed in range(200)]
    calibrated = sum(np.array_equal(grey, as_hu) for grey in shown)
    stored = sum(np.array_equal(grey, as_stored) for grey in shown)
    assert 40 < calibrated < 80
    assert 30 < stored < 70


def test_padding_is_known_only_where_the_rule_skips_it(piece: Piece) -> None:
    """A model that stretches all values is shown all of them stretched."""
    padded = piece.hu.copy()
    padded[:20] = -3000
    config = replace(STILL, raw_probability=1)
    shown = {
        render(padded, config, AS_IT_IS, np.random.default_rng(seed)).tobytes()
        for seed in range(12)
    }
    assert len(shown) == 1


def test_marks_are_burnt_in_near_the_edges() -> None:
    """White or grey bars on a picture, as often as the recipe says, and on nothing else."""
    plain = np.zeros((120, 128), np.float32)
    config = replace(STILL, window_probability=1, mark_probability=0.5)
    marked, levels = 0, set()
    for seed in range(60):
        grey = render(plain, config, AS_IT_IS, np.random.default_rng(seed))
        levels |= set(np.unique(grey).tolist())
        marked += grey.any()
        found: Any = ndimage.label(grey)
        for rows, columns in ndimage.find_objects(found[0]):
            assert min(rows.start, columns.start, 120 - rows.stop, 128 - columns.stop) <= 2
    assert 18 < marked < 42
    assert levels == {0, 128, 255}
    assert DEFAULT.mark_probability > 0
    raw = replace(config, window_probability=0, raw_probability=1)
    assert not render(plain, raw, AS_IT_IS, np.random.default_rng(0)).any()


def test_noise_and_blur_keep_to_their_ranges() -> None:
    """Half of the slices are noisy, a quarter of them smooth; a sharp kernel adds no noise."""
    none = np.zeros((40, 44), np.float32)
    flat = Piece(hu=none, lung=none, body=none, ignored=none, airway=none)
    edge = np.tile(np.where(np.arange(44) < 22, -800, 0).astype(np.float32), (40, 1))

    def hu_of(drawn: Piece, seed: int, **changes: Any) -> np.ndarray:
        return varied(drawn, replace(WIDE, **changes), seed)[0] / 255 * 8000 - 4000

    spreads = [hu_of(flat, seed, noise_hu=DEFAULT.noise_hu).std() for seed in range(100)]
    assert 35 < sum(spread > 0.1 for spread in spreads) < 65
    assert 50 < max(spreads) < 61
    sharp = [hu_of(flat, seed, noise_hu=60, sharpen_probability=1).std() for seed in range(60)]
    assert 20 < max(sharp) < 62
    steps = [
        float(np.diff(hu_of(replace(flat, hu=edge), seed, blur_pixels=2), axis=1).max())
        for seed in range(100)
    ]
    assert 12 < sum(step < 700 for step in steps) < 40
    assert min(steps) < 250
    assert max(steps) == pytest.approx(800, abs=1)


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
    assert sum(20 < grey < 235 for grey in outside) > 3


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
    assert max(reaches) > 600


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
