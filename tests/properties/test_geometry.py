"""The usual view and the network's grid, there and back, for every orientation and shape."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lungseg.core.orientation import slant, usual_view, view_spacing
from lungseg.core.postprocess import restore
from lungseg.core.preprocess import IntensityRule, fit, place
from lungseg.core.resample import resample
from lungseg.core.sides import label_lungs
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Orientation, Scan, View
from tests.masks import segmentation

RULE = IntensityRule(window_hu=(-1000.0, 0.0))
SHAPE = (7, 20, 30)
"""Slices, rows and columns, all different."""
FORTY_EIGHT = list(product(permutations(range(3)), product((1, -1), repeat=3)))
"""Every way in which three axes can run along the patient's, either way round."""
STEPS_MM = np.array([2.5, 0.8, 0.6])
"""Between slices, rows and columns of the usual view."""


def acquired(usual: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]) -> Scan:
    """A volume of the usual view (slices to the head, rows back, columns left) stored otherwise.

    Args:
        usual: shape (Z, Y, X).
        order: which usual axis each stored axis is.
        signs: whether the stored axis runs with it or against it.
    """
    usual_directions = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)  # in x, y, z
    directions = usual_directions[list(order)] * np.array(signs)[:, None]
    spacing = STEPS_MM[list(order)]
    values = usual.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    positions = np.arange(len(values))[:, None] * directions[0] * spacing[0] + [5.0, -3.0, 40.0]
    return Scan(
        values=values.astype(np.int16),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(spacing[1], spacing[2]),
        orientation=Orientation(
            row_direction=tuple(directions[2]), column_direction=tuple(directions[1])
        ),
        positions_mm=positions,
    )


@pytest.mark.parametrize(("order", "signs"), FORTY_EIGHT)
def test_every_acquisition_is_seen_in_the_usual_view(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    """Values, spacing and laterality come out the same, and the way back is exact."""
    usual = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    scan = acquired(usual, order, signs)
    view = usual_view(scan)
    assert np.array_equal(view.apply(scan.values), usual)
    assert np.array_equal(view.undo(usual), scan.values)
    assert view_spacing(scan, view) == pytest.approx((STEPS_MM[1], STEPS_MM[2]))
    assert view.laterality == "dicom_orientation"


@pytest.mark.parametrize(("order", "signs"), FORTY_EIGHT)
def test_right_is_the_patients_in_every_acquisition(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    usual = np.zeros(SHAPE, np.int16)
    usual[:, 5:15, 3:10] = 1  # low columns: the patient's right
    usual[:, 4:12, 18:27] = 2
    scan = acquired(usual, order, signs)
    labels = label_lungs(scan.values > 0, scan).labels
    assert np.array_equal(labels == RIGHT, scan.values == 1)
    assert np.array_equal(labels == LEFT, scan.values == 2)


@pytest.mark.parametrize(("order", "signs"), FORTY_EIGHT)
def test_the_affine_leads_to_the_patient(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """A bead's index, through the affine, is where the bead is."""
    usual = np.zeros(SHAPE, np.int16)
    usual[2, 13, 21] = 1000
    scan = acquired(usual, order, signs)
    index = np.argwhere(scan.values == 1000)[0]
    there = (scan.affine @ [*index, 1])[:3]
    corner = (scan.affine @ [*np.argwhere(scan.values == scan.values)[0], 1])[:3]
    assert corner == pytest.approx([5.0, -3.0, 40.0])
    first = np.zeros(3)  # the usual view's first voxel, from the stored one's
    for axis, sign in zip(order, signs, strict=True):
        if sign < 0:
            first[2 - axis] -= STEPS_MM[axis] * (SHAPE[axis] - 1)
    expected = corner + first + np.array([21, 13, 2]) * STEPS_MM[::-1]
    assert there == pytest.approx(expected)


def test_a_stack_without_a_step_is_seen_by_its_slices() -> None:
    """Slices that claim one position, or none that is a number, have no distance."""
    for last in (0.0, np.nan):
        scan = replace(
            acquired(np.zeros(SHAPE, np.int16), (1, 0, 2), (1, 1, 1)),
            positions_mm=np.zeros((20, 3)) + [0, 0, 0] + last * np.arange(20)[:, None],
        )
        view = usual_view(scan)
        assert view.order == (1, 0, 2)
        assert view_spacing(scan, view) is None


def test_axes_far_from_the_patients_have_no_sides() -> None:
    """A volume turned by 60° about its diagonal is ordered as well as can be, without sides."""
    axis = np.full(3, 3**-0.5)
    cross = np.cross(np.eye(3), axis)
    turn = 0.5 * np.eye(3) + np.sin(np.pi / 3) * cross + 0.5 * np.outer(axis, axis)
    scan = Scan(
        values=np.zeros(SHAPE, np.int16),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(1.0, 1.0),
        orientation=Orientation(row_direction=tuple(turn[0]), column_direction=tuple(turn[1])),
        positions_mm=np.arange(SHAPE[0])[:, None] * turn[2],
    )
    view = usual_view(scan)
    assert view.laterality is None
    assert set(np.unique(label_lungs(scan.values == 0, scan, view).labels)) == {UNSIDED}


def one_slice(row: tuple[float, ...], column: tuple[float, ...]) -> Scan:
    return Scan(
        values=np.zeros((1, 4, 5), np.int16),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(0.8, 0.4),
        orientation=Orientation(row_direction=row, column_direction=column),
        positions_mm=np.array([[1.0, 2.0, 3.0]]),
    )


def around(degrees: float) -> tuple[float, float]:
    return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))


@pytest.mark.parametrize(("degrees", "sided"), [(45, True), (46, False), (134, False), (135, True)])
def test_columns_tell_sides_within_45_degrees_of_the_patients(degrees: float, sided: bool) -> None:
    """Of a slice between coronal and sagittal."""
    cos, sin = around(degrees)
    view = usual_view(one_slice((cos, sin, 0), (0, 0, -1)))
    assert view.laterality == ("dicom_orientation" if sided else None)
    assert view.flipped == (False, False, degrees == 135)
    assert view.order == (0, 1, 2)


@pytest.mark.parametrize(("degrees", "flipped"), [(0, False), (44, False), (46, True), (90, True)])
def test_rows_run_to_the_back_or_to_the_feet(degrees: float, flipped: bool) -> None:
    """Whichever is nearer: a coronal slice has its head at the top."""
    cos, sin = around(degrees)
    assert usual_view(one_slice((1, 0, 0), (0, cos, sin))).flipped == (False, flipped, False)
    assert usual_view(one_slice((1, 0, 0), (0, -cos, -sin))).flipped == (False, not flipped, False)


@pytest.mark.parametrize(
    ("degrees", "order"), [(45, (0, 1, 2)), (45.00001, (0, 1, 2)), (45.01, (0, 2, 1))]
)
def test_a_slice_is_turned_when_its_rows_run_more_across(degrees: float, order: tuple) -> None:
    """Axes that fit equally well, to rounding, stay where they are."""
    cos, sin = around(degrees)
    assert usual_view(one_slice((cos, sin, 0), (-sin, cos, 0))).order == order


def test_how_far_a_view_leans_is_told_in_its_own_pixels() -> None:
    """Two columns for a row of twice their width, the same however the picture is mirrored."""
    cos, sin = around(20)
    for columns, rows in product((1, -1), repeat=2):
        scan = one_slice((columns * cos, columns * sin, 0), (-rows * sin, rows * cos, 0))
        assert slant(scan, usual_view(scan)) == pytest.approx(-2 * sin / cos)
        bare = replace(scan, spacing_mm=None)
        assert slant(bare, usual_view(bare)) == pytest.approx(-sin / cos)
    assert slant(scan, View()) == 0
    bare = replace(scan, orientation=None)
    assert slant(bare, usual_view(bare)) == 0


def test_a_single_slice_lies_in_the_patient_with_a_unit_vector_across() -> None:
    """Rows by their spacing along the column's direction, columns by theirs along the row's."""
    affine = one_slice((0, 1, 0), (0, 0, -1)).affine
    assert affine is not None
    assert affine.tolist() == [[-1, 0, 0, 1], [0, 0, 0.4, 2], [0, -0.8, 0, 3], [0, 0, 0, 1]]
    scan = one_slice((0, 1, 0), (0, 0, -1))
    for name in ("spacing_mm", "orientation", "positions_mm"):
        assert replace(scan, **{name: None}).affine is None


@given(
    order=st.permutations(range(3)),
    flipped=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
)
def test_views_undo_themselves(
    order: list[int], flipped: tuple[bool, bool, bool], shape: tuple[int, int, int]
) -> None:
    view = View(order=tuple(order), flipped=flipped)
    array = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(view.undo(view.apply(array)), array)
    seen = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(view.apply(view.undo(seen)), seen)


@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    grid=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    spacing=st.none() | st.tuples(st.floats(0.3, 5), st.floats(0.3, 5)),
)
def test_a_slice_lies_on_the_grid_centred_and_in_its_shape(
    size: tuple[int, int], grid: tuple[int, int], spacing: tuple[float, float] | None
) -> None:
    """It fills the grid one way, lies within it the other, and its shape in mm is kept."""
    placement = place(size, grid, spacing)
    height, width = placement.inner_size
    assert 1 <= height <= grid[0]
    assert 1 <= width <= grid[1]
    for offset, inner, whole in zip(placement.offset, placement.inner_size, grid, strict=True):
        assert 0 <= whole - inner - 2 * offset <= 1
    tall, wide = np.multiply(size, spacing or (1.0, 1.0))
    scale = min(grid[0] / tall, grid[1] / wide)
    assert height == 1 or abs(height - tall * scale) <= 0.5 + 1e-6
    assert width == 1 or abs(width - wide * scale) <= 0.5 + 1e-6
    if spacing is not None:
        assert place(size, grid, (spacing[0], spacing[0])) == place(size, grid)


@pytest.mark.parametrize("spacing", [None, (0.7, 0.7), (1.4, 0.7), (0.6, 0.9)])
@pytest.mark.parametrize("size", [(337, 511), (101, 64), (256, 256), (40, 300)])
@pytest.mark.parametrize("coarser", [1, 2, 4])
def test_what_the_network_saw_comes_back_where_it_was(
    size: tuple[int, int], spacing: tuple[float, float] | None, coarser: int
) -> None:
    """A disk on the slice, given back by the network as it saw it, is the disk again."""
    rows, columns = np.indices(size)
    centre, radius = (size[0] * 0.45, size[1] * 0.55), np.array(size) * 0.3
    disk = ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 < 1
    values = np.where(disk, 0.0, -1000.0)[None].astype(np.float32)
    scan = Scan(values=values, unit="HU", media_type="image/png", spacing_mm=spacing)
    fitted = fit(scan, (256, 256), RULE)
    probability = fitted.grey / 255
    parts = probability.reshape(1, 256 // coarser, coarser, 256 // coarser, coarser, 1)
    back = restore(parts.mean(axis=(2, 4)), fitted.placement)
    assert back.shape == (1, *size)
    wrong = np.count_nonzero((back[0] >= 0.5) != disk)
    assert wrong <= 0.06 * coarser * np.count_nonzero(disk)
    assert abs(float(back.sum()) / np.count_nonzero(disk) - 1) < 0.02


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (30, 32)])
def test_what_lies_beside_a_slice_on_the_grid_does_not_bleed_into_it(size: tuple[int, int]) -> None:
    """Whatever a network answers where the grid is black: only the slice's own part counts."""
    placement = place(size, (32, 32))
    output = np.zeros((1, 32, 32, 1), np.float32)
    (top, left), (height, width) = placement.offset, placement.inner_size
    output[:, top : top + height, left : left + width] = 1
    assert (restore(output, placement) == 1).all()


def test_rows_further_apart_than_columns_are_seen_in_their_true_shape() -> None:
    """The network sees the same picture of a body whether half of its rows are left out."""
    rng = np.random.default_rng(1)
    body = np.kron(rng.uniform(-900, 0, (32, 32)), np.ones((16, 16))).astype(np.float32)
    whole = Scan(values=body[None], unit="HU", media_type="image/png", spacing_mm=(0.5, 0.5))
    thinned = Scan(values=body[None, ::2], unit="HU", media_type="image/png", spacing_mm=(1.0, 0.5))
    seen, again = (fit(scan, (256, 256), RULE) for scan in (whole, thinned))
    assert again.placement.inner_size == (256, 256)
    assert np.abs(seen.grey - again.grey).mean() < 4


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 99),
)
def test_resampling_is_pillows(size: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    plane = np.random.default_rng(seed).normal(0, 500, size).astype(np.float32)
    pillow = Image.fromarray(plane).resize(target[::-1], Image.Resampling.BILINEAR)
    assert np.allclose(resample(plane, target), np.asarray(pillow), atol=0.5)


def test_slices_that_run_the_other_way_get_the_same_labels() -> None:
    """One slice turned, mirrored and transposed is labelled as the patient, not the display."""
    plane = np.zeros((20, 30), bool)
    plane[5:15, 3:10] = plane[4:12, 18:27] = True
    for transposed, flips in product((False, True), product((1, -1), repeat=2)):
        order = (0, 2, 1) if transposed else (0, 1, 2)
        scan = acquired(plane[None].astype(np.int16), order, (1, *flips))
        found = segmentation(scan, scan.values[0] > 0)
        right = acquired((plane & (np.arange(30) < 15))[None].astype(np.int16), order, (1, *flips))
        assert np.array_equal(found.labels[0] == RIGHT, right.values[0] > 0)
