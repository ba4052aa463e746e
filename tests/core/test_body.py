"""The body's box: never a lung outside it, little air inside it, and the way back beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.core.body import body_box, body_extent, cell_step
from lungseg.core.postprocess import restore
from lungseg.core.preprocess import IntensityRule, fit, place
from lungseg.core.resample import resample
from lungseg.core.types import Scan, Unit
from training.synthetic.phantom import make_phantom

RULE = IntensityRule(window_hu=(-1350.0, 150.0))
SIDE = 256
CHEST = make_phantom((SIDE, SIDE), seed=5)
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-1350, 150),
    "mediastinum": (-160, 240),
    "least to greatest": (-1024, 3071),
}


def in_field(share: float, top: float, left: float) -> tuple[np.ndarray, np.ndarray]:
    """The chest in a larger field of view: HU and lungs."""
    side = round(SIDE * share)
    row, column = round((SIDE - side) * top), round((SIDE - side) * left)
    hu, lungs = np.full((SIDE, SIDE), -1000, np.float32), np.zeros((SIDE, SIDE), bool)
    inside = slice(row, row + side), slice(column, column + side)
    hu[inside] = resample(CHEST.hu, (side, side))
    lungs[inside] = resample(CHEST.lungs.astype(np.float32), (side, side)) > 0.5
    return hu, lungs


def shown(hu: np.ndarray, window: str) -> tuple[np.ndarray, Unit]:
    if window == "HU":
        return hu, "HU"
    low, high = WINDOWS[window]
    return np.rint(np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.float32), "grey level"


@settings(deadline=None, max_examples=60)
@given(
    share=st.floats(0.3, 1.0),
    top=st.floats(0, 1),
    left=st.floats(0, 1),
    window=st.sampled_from(["HU", *WINDOWS]),
    noise=st.sampled_from([0.0, 40.0, 120.0]),
)
def test_no_lung_lies_outside_the_box(
    share: float, top: float, left: float, window: str, noise: float
) -> None:
    """Wherever the chest lies in its field, however large that is and however it is shown."""
    hu, lungs = in_field(share, top, left)
    hu = hu + np.random.default_rng(0).normal(0, noise, hu.shape).astype(np.float32)
    values, unit = shown(hu, window)
    box = body_box(values[None], unit)
    inside = np.zeros_like(lungs)
    row, column = box.corner
    inside[row : row + box.size[0], column : column + box.size[1]] = True
    assert inside[lungs].all()
    if noise < 100:
        assert inside.mean() < 1.6 * share**2 + 0.1


@pytest.mark.parametrize("value", [-1000.0, 40.0])
def test_without_a_body_or_without_air_the_box_is_everything(value: float) -> None:
    """There is nothing to leave out."""
    plane = np.full((1, 60, 90), value, np.float32)
    for unit in ("HU", "grey level"):
        box = body_box(plane, unit)
        assert (box.corner, box.size) == ((0, 0), (60, 90))


def test_slices_that_are_fitted_together_share_a_box() -> None:
    """It holds the bodies of all of them."""
    first, second = in_field(0.4, 0, 0)[0], in_field(0.4, 1, 1)[0]
    box = body_box(np.stack([first, second]), "HU")
    assert box.size[0] > 0.9 * SIDE
    two = np.concatenate([square(100, 20, 40), square(100, 50, 70)])
    assert body_extent(two, "HU") == ((20, 70), (21, 71))


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    stretch=st.floats(0.5, 2.0),
    share=st.floats(0.3, 0.85),
    coarser=st.sampled_from([1, 2]),
)
def test_what_the_network_saw_of_a_box_comes_back_where_it_was(
    size: tuple[int, int], stretch: float, share: float, coarser: int
) -> None:
    """A body with a disk, given back as the network saw it, is the disk, and nothing beside it."""
    rows, columns = np.indices(size)
    y, x = (rows / size[0] - 0.5) * 2 / share, (columns / size[1] - 0.5) * 2 / share
    body, disk = y**2 + x**2 < 1, (y - 0.2) ** 2 + (x + 0.1) ** 2 < 0.4**2
    hu = np.where(disk, 100.0, np.where(body, -300.0, -1000.0)).astype(np.float32)
    scan = Scan(values=hu[None], unit="HU", media_type="image/png", spacing_mm=(0.7 * stretch, 0.7))
    rule = IntensityRule(window_hu=(-300.0, 100.0))
    fitted = fit(scan, (256, 256), rule, covers="body")
    assert fitted.placement.part is not None
    parts = (fitted.grey / 255).reshape(1, 256 // coarser, coarser, 256 // coarser, coarser, 1)
    back = restore(parts.mean(axis=(2, 4)), fitted.placement)[0]
    assert back.shape == size
    row, column, height, width = fitted.placement.part
    outside = np.ones(size, bool)
    outside[row : row + height, column : column + width] = False
    assert not back[outside].any()
    perimeter = np.count_nonzero(disk & ~(np.roll(disk, 1, 0) & np.roll(disk, 1, 1)))
    assert np.count_nonzero((back >= 0.5) != disk) <= 2 * perimeter + 2


def test_a_box_is_seen_larger_and_as_bright() -> None:
    """Percentiles stay the whole slice's: grey levels do not depend on the size of the field."""
    hu, _ = in_field(0.5, 0.5, 0.5)
    values, _ = shown(hu, "lung")
    scan = Scan(values=values[None], unit="grey level", media_type="image/png")
    whole, body = (fit(scan, (SIDE, SIDE), RULE, covers=covers) for covers in ("whole", "body"))
    assert (body.grey > 100).sum() > 2 * (whole.grey > 100).sum()
    assert body.grey.max() == pytest.approx(whole.grey.max(), abs=3)
    assert np.median(body.grey[body.grey > 100]) == pytest.approx(
        np.median(whole.grey[whole.grey > 100]), abs=5
    )


def test_a_box_of_everything_is_the_whole_slice() -> None:
    """The same placement, so that nothing changes for a body that fills its field."""
    hu = np.full((1, 80, 80), 40.0, np.float32)
    box = body_box(hu, "HU")
    assert place((80, 80), (64, 64), None, box) == place((80, 80), (64, 64))


@pytest.mark.parametrize(("side", "step"), [(1, 1), (128, 1), (129, 2), (256, 2), (257, 3)])
def test_at_most_128_cells_a_side_are_looked_at(side: int, step: int) -> None:
    assert cell_step((side, 1)) == cell_step((1, side)) == step


def square(
    side: int, first: int, after: int, *, level: float = 40, air: float = -1000
) -> np.ndarray:
    plane = np.full((1, side, side), air, np.float32)
    plane[0, first:after, first + 1 : after + 1] = level
    return plane


@pytest.mark.parametrize(
    ("planes", "corner", "size"),
    [
        # 0.04 of the body and a cell on each side: 2 + 1 pixels, 3 + 2 pixels, 5 + 1
        (square(100, 30, 70), (27, 28), (46, 46)),
        (square(200, 60, 140), (55, 57), (90, 90)),
        (square(128, 1, 126), (0, 0), (128, 128)),
        (square(100, 30, 70, level=-499), (27, 28), (46, 46)),
        (square(100, 30, 70, level=-500), (0, 0), (100, 100)),
    ],
)
def test_a_box_is_the_body_with_its_margins(planes: np.ndarray, corner: tuple, size: tuple) -> None:
    """And never more than the slice; what is no more than -500 HU is no body."""
    box = body_box(planes, "HU")
    assert (box.corner, box.size) == (corner, size)


@pytest.mark.parametrize(("cells", "counted"), [(3, True), (2, False)])
def test_a_row_belongs_to_the_body_from_a_sixteenth_of_its_fullest(
    cells: int, counted: bool
) -> None:
    """0.06 of 50 cells are 3: what a wire or a table holds is less."""
    planes = square(100, 30, 80)
    planes[0, 10, 40 : 40 + cells] = 40
    assert body_extent(planes, "HU") == ((10 if counted else 30, 80), (31, 81))
    beside = planes.transpose(0, 2, 1)
    assert body_extent(beside, "HU") == ((31, 81), (10 if counted else 30, 80))


@pytest.mark.parametrize(("level", "solid"), [(52, True), (48, False)])
def test_grey_levels_are_solid_above_the_middle_of_air_and_tissue(level: int, solid: bool) -> None:
    """Half-way between the means below and above, few bright pixels notwithstanding."""
    planes = square(100, 30, 80, level=100, air=0)
    planes[0, 10, 40:50] = level
    planes[0, 50, 50:54] = 4000
    assert body_extent(planes, "grey level") == ((10 if solid else 30, 80), (31, 81))


@pytest.mark.parametrize(("level", "solid"), [(42, True), (38, False)])
def test_the_middle_of_grey_levels_is_that_of_their_means(level: int, solid: bool) -> None:
    """Found by steps: half-way between 0 and the mean of 60 and 100, not that of the ends."""
    planes = square(100, 30, 80, level=60, air=0)
    planes[0, 30:55, 31:81] = 100
    planes[0, 10, 40:44] = level
    assert body_extent(planes, "grey level") == ((10 if solid else 30, 80), (31, 81))
