"""The rules that drop pairs: true bases, gas and white pages stay, forgotten lungs go."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.core.types import Scan
from training.data.clean import body_and_dark, suspect
from training.data.intensity import find_peaks, page_around, pseudo_hu
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


Box = tuple[int, int, int, int]


def boxes(*drawn: Box) -> np.ndarray:
    """Rectangles of top, left, height and width on 200 × 200 pixels."""
    plane = np.zeros((200, 200), bool)
    for top, left, height, width in drawn:
        plane[top : top + height, left : left + width] = True
    return plane


LEFT, RIGHT = (60, 40, 60, 50), (60, 110, 60, 50)


@pytest.mark.parametrize(
    ("mask", "dark", "code"),
    [
        ([LEFT, RIGHT], [LEFT, RIGHT], None),
        # an empty mask beside a region of 8% of the body, and of 13%
        ([], [(60, 60, 45, 45)], None),
        ([], [(60, 60, 58, 58)], "empty_mask"),
        # unlabelled: 45% and 57% of the mask
        ([(40, 40, 50, 80)], [(40, 40, 50, 80), (120, 40, 30, 60)], None),
        ([(40, 40, 50, 80)], [(40, 40, 50, 80), (110, 40, 46, 50)], "missing_lung"),
        # unlabelled: more than the mask, but 5% of the body, and 7%
        ([(40, 40, 20, 50)], [(40, 40, 20, 50), (100, 40, 26, 50)], None),
        ([(40, 40, 20, 50)], [(40, 40, 20, 50), (100, 40, 36, 50)], "missing_lung"),
        # outside the body: 1% of the mask, and 4%
        ([LEFT, RIGHT, (2, 2, 6, 10)], [LEFT, RIGHT], None),
        ([LEFT, RIGHT, (2, 2, 12, 20)], [LEFT, RIGHT], "outside_body"),
        # dark: 60% of the mask, and 40%
        ([LEFT], [(60, 40, 36, 50)], None),
        ([LEFT], [(60, 40, 24, 50)], "not_dark"),
        # several regions without a label, none of them notable: overlap of 32%, and of 26%
        ([(40, 40, 20, 50)], [(40, 40, 20, 50), (80, 40, 28, 50), (130, 40, 14, 50)], None),
        (
            [(40, 40, 20, 50)],
            [(40, 40, 20, 50), (80, 40, 28, 50), (130, 40, 28, 50)],
            "misaligned",
        ),
    ],
)
def test_each_rule_holds_just_below_its_share_and_breaks_just_above(
    mask: list[Box], dark: list[Box], code: str | None
) -> None:
    """In a body of 160 × 160 pixels."""
    hu = np.where(boxes((20, 20, 160, 160)), 40, -1000)
    hu = np.where(boxes(*dark), -800, hu).astype(np.float32)
    found = suspect(hu, boxes(*mask), unit="HU")
    assert (None if found is None else found.code) == code


@pytest.mark.parametrize(("side", "code"), [(155, None), (165, "too_large")])
def test_lungs_fill_at_most_two_thirds_of_a_slice(side: int, code: str | None) -> None:
    """60% of it, as in a child whose field was cut, and 68%."""
    lung = boxes((10, 10, side, side))
    hu = np.where(boxes((4, 4, 192, 192)), 40, -1000)
    found = suspect(np.where(lung, -800, hu).astype(np.float32), lung, unit="HU")
    assert (None if found is None else found.code) == code


@pytest.mark.parametrize(
    ("width", "noise", "page"), [(8, 0, False), (16, 0, True), (16, 3, True), (16, 12, False)]
)
def test_a_page_is_even_and_takes_a_share_of_the_slice(width: int, noise: int, page: bool) -> None:
    """4% and 8% of 200 rows; as much noise as JPEG leaves, 1% of the range, and four times that."""
    grey = np.tile(np.linspace(0, 200, 200, dtype=np.float32), (200, 1))
    grey[: width // 2] = grey[-width // 2 :] = 255
    grey[0, ::5] -= noise
    assert page_around(grey).any() == page
    assert page_around(grey).mean() == pytest.approx(width / 200 if page else 0, abs=0.01)


def test_peaks_that_lie_close_are_one() -> None:
    """Two within a fifth of the range are muscle and fat, however many pixels they have."""
    random = np.random.default_rng(0)
    levels = random.choice([0.0, 100.0, 160.0, 1000.0], (100, 100), p=[0.1, 0.3, 0.4, 0.2])
    values = (levels + random.normal(0, 8, levels.shape)).astype(np.float32)
    assert find_peaks(values) == pytest.approx((160, 1000), abs=20)


def test_padding_is_neither_air_nor_tissue(chest: Phantom) -> None:
    """The peaks are those of the slice without its padding, at any offset and scale."""
    y, x = np.indices(chest.hu.shape) / 255 - 0.5
    padded = np.where(np.hypot(y, x) < 0.5, chest.hu, -3000).astype(np.float32)
    air, tissue = find_peaks(chest.hu)
    assert find_peaks(padded) == pytest.approx((air, tissue), abs=15)
    assert find_peaks(2 * padded + 700) == pytest.approx((2 * air + 700, 2 * tissue + 700), abs=30)


def test_grey_levels_are_laid_on_the_scale_of_hu(chest: Phantom) -> None:
    """Air at −1000 and soft tissue at 40; HU stay what they are."""
    tissue = (chest.hu > 0) & (chest.hu < 80)
    for values, unit in ((chest.hu / 4 + 300, "grey level"), (chest.hu, "HU")):
        scan = Scan(values=values[None].astype(np.float32), unit=unit, media_type="image/png")
        shown = pseudo_hu(scan)
        assert np.median(shown[tissue]) == pytest.approx(40, abs=12)
        assert np.median(shown[chest.hu < -950]) == pytest.approx(-1000, abs=12)
        if unit == "HU":
            assert np.array_equal(shown, chest.hu)
