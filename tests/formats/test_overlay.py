"""Pictures for people: the overlay in colour, in grey print and for colour-blind eyes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.formats.write import overlay_png, probability_png
from training.synthetic.phantom import make_phantom

CHEST = make_phantom((121, 173), seed=1)
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
"""Machado, Oliveira and Fernandes 2009, severity 1."""


def overlay(unit: str = "HU", mask: np.ndarray | None = None) -> np.ndarray:
    labels = CHEST.right * np.uint8(RIGHT) + CHEST.left * np.uint8(LEFT)
    content = overlay_png(CHEST.hu, unit, labels if mask is None else labels * mask)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)


def rings() -> tuple[np.ndarray, np.ndarray]:
    """The outline within the lung, and the one around it."""
    lungs = CHEST.lungs
    smaller, larger = (
        np.asarray(change(lungs), bool)
        for change in (ndimage.binary_erosion, ndimage.binary_dilation)
    )
    return lungs & ~smaller, larger & ~lungs


def test_the_slice_is_shown_in_its_window_outside_the_mask() -> None:
    shown = overlay()
    free = ~np.asarray(ndimage.binary_dilation(CHEST.lungs), bool)
    expected = np.clip((CHEST.hu + 1000) / 1400, 0, 1) * 255
    assert np.abs(shown[free] - expected[free][:, None]).max() <= 0.5


@pytest.mark.parametrize(
    ("label", "colour", "tinted"),
    [
        (RIGHT, (86, 180, 233), (115, 143, 159)),
        (LEFT, (230, 159, 0), (158, 137, 89)),
        (UNSIDED, (240, 228, 66), (161, 157, 109)),
    ],
)
def test_each_pixel_has_its_colour(
    label: int, colour: tuple[int, ...], tinted: tuple[int, ...]
) -> None:
    """Grey outside, a black line around, one of the lung's colour within, and a tint inside."""
    labels = np.zeros((9, 11), np.uint8)
    labels[2:7, 3:8] = label
    labels[2, 3] = 0  # a corner: lines run beside edges, not across corners
    shown = np.asarray(
        Image.open(io.BytesIO(overlay_png(np.full(labels.shape, -304), "HU", labels)))
    )
    inner = [tuple(shown[row, column]) for row, column in ((4, 3), (4, 7), (2, 5), (6, 5), (3, 3))]
    assert inner == [colour] * 5
    outer = [tuple(shown[row, column]) for row, column in ((4, 2), (4, 8), (1, 5), (7, 5), (2, 3))]
    assert outer == [(0, 0, 0)] * 5
    assert {tuple(pixel) for pixel in shown[4:6, 4:7].reshape(-1, 3)} == {tinted}
    beyond = [(4, 1), (4, 9), (0, 5), (8, 5), (0, 0), (1, 3 - 1)]
    assert {tuple(shown[place]) for place in beyond} == {(127, 127, 127)}
    cut = np.asarray(
        Image.open(io.BytesIO(overlay_png(np.full((5, 6), -304), "HU", np.full((5, 6), label))))
    )
    rim = np.ones((5, 6), bool)
    rim[1:-1, 1:-1] = False
    assert (cut[rim] == colour).all()
    assert (cut[~rim] == tinted).all()


def test_black_and_white_of_an_overlay() -> None:
    """-1000 and 400 HU; of grey levels the 0.5th and the 99.5th percentile."""
    values = np.array([[-1001, -1000, -304, 400, 401]])
    nothing = np.zeros((1, 5), np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(overlay_png(values, "HU", nothing))))
    assert shown[0, :, 0].tolist() == [0, 0, 127, 255, 255]
    grey = np.arange(201, dtype=np.float32)[None]
    nothing = np.zeros(grey.shape, np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(overlay_png(grey, "grey level", nothing))))
    assert shown[0, [0, 1, 2, 100, 198, 199, 200], 0].tolist() == [0, 0, 1, 128, 254, 255, 255]


@pytest.mark.parametrize("seen", ["colour", "grey print", "deuteranopia"])
def test_the_outline_stands_out_for_every_eye(seen: str) -> None:
    shown = overlay()
    if seen == "deuteranopia":
        shown = np.clip(shown @ DEUTERANOPIA.T, 0, 255)
    luma = shown @ [0.299, 0.587, 0.114]
    inner, outer = rings()
    assert luma[inner].min() - luma[outer].max() > 120


def test_lungs_are_tinted_and_still_show_what_is_in_them() -> None:
    shown, plain = overlay(), overlay(mask=np.zeros_like(CHEST.lungs))
    for lung in (CHEST.right, CHEST.left):
        inside = ndimage.binary_erosion(lung)
        assert np.corrcoef(shown[inside, 1], plain[inside, 1])[0, 1] > 0.99


def test_right_is_blue_and_left_is_orange() -> None:
    shown = overlay()
    right, left = (ndimage.binary_erosion(lung) for lung in (CHEST.right, CHEST.left))
    assert (shown[right, 2] > shown[right, 0] + 20).all()
    assert (shown[left, 0] > shown[left, 2] + 20).all()


def test_lung_without_a_side_is_yellow() -> None:
    labels = CHEST.lungs * np.uint8(UNSIDED)
    shown = np.asarray(Image.open(io.BytesIO(overlay_png(CHEST.hu, "HU", labels)))).astype(int)
    inside = ndimage.binary_erosion(CHEST.lungs)
    assert (shown[inside][:, :2].min(axis=1) > shown[inside, 2] + 20).all()


def test_grey_levels_and_constant_pictures_have_a_window_too() -> None:
    assert overlay("grey level").max() == 255
    flat = overlay_png(np.zeros((9, 9), np.float32), "grey level", np.zeros((9, 9), np.uint8))
    assert np.asarray(Image.open(io.BytesIO(flat))).max() == 0


def test_padding_takes_no_contrast_from_grey_levels() -> None:
    """Corners far below air, which no header marks, leave the body as it was shown without."""
    padded = CHEST.hu.copy()
    padded[:30, :40] = padded[-30:, -40:] = -3024
    nothing = np.zeros(padded.shape, np.uint8)
    plain, shown = (
        np.asarray(Image.open(io.BytesIO(overlay_png(values, "grey level", nothing)))).astype(float)
        for values in (CHEST.hu, padded)
    )
    assert np.abs(plain - shown)[40:80, 50:120].mean() < 10


def test_probabilities_as_eight_bits() -> None:
    plane = np.array([[0.0, 0.5, 1.0]], np.float32)
    picture = np.asarray(Image.open(io.BytesIO(probability_png(plane))))
    assert picture.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(("side", "shown"), [(2048, 2048), (4096, 2048), (4100, 1367)])
def test_an_overlay_is_no_larger_than_screens(side: int, shown: int) -> None:
    """The largest slices lose rows and columns evenly, and their lungs with them."""
    values = np.full((side, 40), -1000, np.int16)
    labels = np.zeros(values.shape, np.uint8)
    labels[side // 2 :] = RIGHT
    content = overlay_png(values, "HU", labels)
    picture = np.asarray(Image.open(io.BytesIO(content)))
    assert picture.shape[:2] == (shown, -(-40 * shown // side))
    assert picture[:, 5].any(axis=1).mean() == pytest.approx(0.5, abs=0.01)
