"""Right and left: told where position and shape tell them, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from lungseg.core.report import measure
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Orientation, Scan
from tests.masks import segmentation
from training.synthetic.phantom import Phantom, make_phantom

AXIAL = Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0))
MILLIMETRE = (1.0, 1.0)


@pytest.fixture(scope="module", params=[0, 6])
def chest(request: pytest.FixtureRequest) -> Phantom:
    """A square slice of 1 mm pixels, with air all around the body."""
    return make_phantom((400, 400), seed=request.param, spacing_mm=MILLIMETRE)


def told(
    chest: Phantom, *, header: Orientation | None = None, spacing_mm: tuple | None = MILLIMETRE
) -> str:
    """How sides came out, ``right`` or ``unknown``; anything else fails here.

    Statistics, labels and flags have to agree, and a lung that is there never has 0 pixels.
    """
    scan = Scan(
        values=chest.hu[None],
        unit="HU" if header else "grey level",
        media_type="image/png",
        spacing_mm=spacing_mm,
        orientation=header,
    )
    found = segmentation(scan, chest.lungs)
    measured = measure(scan, found)
    lungs, labels = measured.statistics.lungs, found.labels[0]
    flags = {flag.code for flag in measured.quality.flags}
    assert np.array_equal(labels > 0, chest.lungs)
    if lungs.right is None or lungs.left is None:
        assert (lungs.right, lungs.left) == (None, None)
        assert measured.statistics.laterality is None
        assert "sides_unknown" in flags
        assert set(np.unique(labels)) == {0, UNSIDED}
        return "unknown"
    assert "sides_unknown" not in flags
    assert (lungs.right.pixels, lungs.left.pixels) == (
        np.count_nonzero(labels == RIGHT),
        np.count_nonzero(labels == LEFT),
    )
    wrong = (labels == RIGHT) & chest.left | (labels == LEFT) & chest.right
    assert wrong.sum() < 0.06 * min(chest.right.sum() or 1e9, chest.left.sum() or 1e9)
    return "right"


def changed(chest: Phantom, change: Callable[[np.ndarray], np.ndarray]) -> Phantom:
    """The phantom with a change of geometry to values and masks."""
    right, left = change(chest.right), change(chest.left)
    return replace(chest, hu=change(chest.hu), right=right, left=left)


def turned(chest: Phantom, degrees: float) -> Phantom:
    """The picture turned about its middle, counterclockwise, air in its corners."""

    def turn(plane: np.ndarray) -> np.ndarray:
        inside = plane.astype(np.float32) - plane.min()
        result = ndimage.rotate(inside, degrees, reshape=False, order=1) + plane.min()
        return result > 0.5 if plane.dtype == bool else result

    return changed(chest, turn)


def touching(chest: Phantom, share: float) -> Phantom:
    """The lungs widened to the midline over a share of their height."""
    rows = np.flatnonzero(chest.lungs.any(axis=1))
    height = round(share * rows.size)
    first = rows[0] + (rows.size - height) // 2
    right, left, middle = chest.right.copy(), chest.left.copy(), chest.hu.shape[1] // 2
    for row in range(first, first + height):
        columns = np.flatnonzero(chest.lungs[row])
        right[row, columns.min() : middle] = True
        left[row, middle : columns.max()] = True
    hu = np.where((right | left) & ~chest.lungs, -850, chest.hu)
    return replace(chest, hu=hu.astype(np.float32), right=right & ~left, left=left)


def crop(chest: Phantom, rows: slice, columns: slice) -> Phantom:
    return changed(chest, lambda plane: plane[rows, columns])


@pytest.mark.parametrize("degrees", [-120, -90, -60, 60, 75, 90])
def test_a_picture_on_its_side_has_no_sides(chest: Phantom, degrees: float) -> None:
    """Lungs that lie one above the other are neither right nor left."""
    assert told(turned(chest, degrees)) == "unknown"


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_a_picture_that_leans_keeps_its_sides(chest: Phantom, degrees: float) -> None:
    assert told(turned(chest, degrees)) == "right"


@pytest.mark.parametrize("degrees", [-60, -35, 35, 60, 90, 180])
def test_a_header_that_says_how_a_picture_is_turned_gives_its_sides(
    chest: Phantom, degrees: float
) -> None:
    """The direction of the axes in the patient is used as it is, not to the next right angle."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    header = Orientation(row_direction=(cos, sin, 0.0), column_direction=(-sin, cos, 0.0))
    assert told(turned(chest, degrees), header=header) == "right"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_lungs_that_touch_are_cut_where_they_meet(chest: Phantom, share: float) -> None:
    assert told(touching(chest, share), header=AXIAL) == "right"


@pytest.mark.parametrize("share", [0.9, 1.0])
def test_lungs_that_touch_all_along_are_not_one_lung(chest: Phantom, share: float) -> None:
    told(touching(chest, share), header=AXIAL)


def test_touching_lungs_of_a_turned_picture_have_no_sides(chest: Phantom) -> None:
    assert told(turned(touching(chest, 0.4), 90)) == "unknown"


@pytest.mark.parametrize("columns", [(60, 260), (140, 340), (20, 280), (150, 380)])
def test_a_heart_field_off_the_middle_keeps_both_lungs(chest: Phantom, columns: tuple) -> None:
    """Two lungs with the heart between them, neither at the middle of the picture."""
    field = crop(chest, slice(90, 310), slice(*columns))
    for header in (AXIAL, None):
        assert told(field, header=header) == "right"


@pytest.mark.parametrize("gone", ["right", "left"])
def test_one_lung_that_is_left_keeps_its_side(chest: Phantom, gone: str) -> None:
    """After a pneumonectomy: the body shows where the midline is, wherever it lies."""
    lost = getattr(chest, gone)
    alone = replace(chest, **{gone: np.zeros_like(lost)}, hu=np.where(lost, 30, chest.hu))
    for columns in (slice(None), slice(25, None), slice(None, -25)):
        assert told(crop(alone, slice(None), columns), header=AXIAL) == "right"


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_lung_in_view_is_on_the_side_of_the_wall_that_is_seen(
    chest: Phantom, side: str
) -> None:
    columns = slice(None, 195) if side == "right" else slice(205, None)
    assert told(crop(chest, slice(None), columns), header=AXIAL) == "right"


def test_one_lung_without_any_wall_has_no_side(chest: Phantom) -> None:
    rows, columns = np.nonzero(chest.left)
    field = crop(
        chest, slice(rows.min() + 20, rows.max() - 20), slice(columns.min() - 9, columns.max() - 9)
    )
    assert told(field) == "unknown"
