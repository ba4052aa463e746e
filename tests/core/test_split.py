"""Right and left in drawn slices: each rule of the midline just met and just not."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.core.sides import label_lungs
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Orientation, Scan

AXIAL = Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0))
BETWEEN_WALLS = (slice(5, 95), slice(10, 110))
"""A body whose middle is column 60 of 120."""
BEYOND_THE_PICTURE = (slice(0, 100), slice(0, 120))
Rectangle = tuple[int, int, int, int]
"""First row and the one after the last, first column and the one after the last."""


def labels_of(
    *lung: Rectangle,
    body: tuple[slice, slice] = BETWEEN_WALLS,
    spacing_mm: tuple[float, float] | None = None,
    header: Orientation | None = None,
) -> np.ndarray:
    """Labels of lung drawn as rectangles into a body, shape (100, 120)."""
    hu, mask = np.full((100, 120), -1000.0, np.float32), np.zeros((100, 120), bool)
    hu[body] = 40
    for top, bottom, first, after in lung:
        mask[top:bottom, first:after] = True
    hu[mask] = 40  # so that the body is what is asked for
    return labelled(hu, mask, spacing_mm, header)


def labelled(
    hu: np.ndarray,
    mask: np.ndarray,
    spacing_mm: tuple[float, float] | None = None,
    header: Orientation | None = None,
) -> np.ndarray:
    scan = Scan(
        values=hu[None],
        unit="HU",
        media_type="image/png",
        spacing_mm=spacing_mm,
        orientation=header,
    )
    labels = label_lungs(mask[None], scan).labels[0]
    assert np.array_equal(labels > 0, mask)
    return labels


def border(labels: np.ndarray) -> int | None:
    """The first column of the left lung, where all before it is right; None without sides."""
    if (labels == UNSIDED).any():
        return None
    right, left = (np.flatnonzero((labels == side).any(axis=0)) for side in (RIGHT, LEFT))
    assert not right.size or not left.size or right.max() < left.min()
    return int(left.min()) if left.size else 120


def border_by(labels: np.ndarray, away: np.ndarray) -> int:
    """How many pixels have another side than their distance from a line tells."""
    return int(((labels == RIGHT) & (away > 0) | (labels == LEFT) & (away < 0)).sum())


@pytest.mark.parametrize(("height", "found"), [(38, 60), (36, 120)])
def test_a_region_is_two_lungs_from_a_quarter_beyond_the_midline(height: int, found: int) -> None:
    """0.2509 and 0.241 of it lie there; a lung by itself keeps more to its side."""
    waist = (49, 51, 60, 62)
    assert border(labels_of((30, 70, 20, 60), waist, (30, 30 + height, 62, 76))) == found


@pytest.mark.parametrize(("waist", "found"), [(34, 60), (35, None)])
def test_two_lungs_narrow_at_the_midline(waist: int, found: int | None) -> None:
    """To 0.85 of the lower one's 40 rows."""
    assert border(labels_of((30, 70, 20, 60), (30, 30 + waist, 60, 62), (20, 80, 62, 100))) == found


@pytest.mark.parametrize(("waist", "found"), [(20, 60), (21, None)])
def test_two_lungs_narrow_more_where_no_wall_says_where_the_midline_is(
    waist: int, found: int | None
) -> None:
    """To half of it."""
    lungs = (30, 70, 20, 60), (30, 30 + waist, 60, 61), (30, 70, 61, 100)
    assert border(labels_of(*lungs, body=BEYOND_THE_PICTURE)) == found


@pytest.mark.parametrize(("column", "found"), [(45, 45), (44, None), (75, 75), (76, None)])
def test_the_gap_lies_within_a_band_about_the_middle_of_the_body(
    column: int, found: int | None
) -> None:
    """0.15 of the body's 100 columns to either side, wherever the lungs begin and end."""
    for first, after in ((20, 100), (12, 100), (20, 108)):
        lungs = (30, 70, first, column), (49, 51, column, column + 1), (30, 70, column + 1, after)
        assert border(labels_of(*lungs)) == found


@pytest.mark.parametrize("degrees", [-20, 20])
@pytest.mark.parametrize(("aside", "known"), [(-12, True), (-18, False), (12, True), (18, False)])
def test_the_band_leans_with_the_patient(aside: int, known: bool, degrees: int) -> None:
    """About the middle of the body, by the directions in the header."""
    cos, sin = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    header = Orientation(row_direction=(cos, sin, 0), column_direction=(-sin, cos, 0))
    hu, mask = np.full((100, 120), -1000.0, np.float32), np.zeros((100, 120), bool)
    hu[BETWEEN_WALLS] = 40
    mask[20:50, 20:100] = True  # above the body's middle
    rows, columns = np.indices(mask.shape)
    away = columns - (rows - 50) * sin / cos - 60 - aside
    mask &= np.abs(away) > 1.5
    labels = labelled(hu, mask, (1.0, 1.0), header)
    assert (border_by(labels, away) == 0) if known else (labels == UNSIDED).any()


def tapering(first: int, after: int) -> tuple[Rectangle, ...]:
    """A lung of 50 rows whose outer quarters have 10: no column within is its narrowest."""
    quarter = (after - first) // 4
    return (20, 70, first + quarter, after - quarter), (40, 50, first, after)


@pytest.mark.parametrize(("column", "within"), [(36, True), (35, False), (84, True), (85, False)])
def test_without_walls_the_gap_lies_within_the_lungs_own_extent(column: int, within: bool) -> None:
    """From 0.2 to 0.8 of their 80 columns; farther out a narrower place counts for nothing."""
    first, after = (20, column) if column < 60 else (column + 1, 100)
    lungs = [(20, 70, first, after), (49, 50, column, column + 1)]
    first, after = (column + 1, 100) if column < 60 else (20, column)
    lungs += [(40, 70, first, 60), (49, 51, 60, 61), (40, 70, 61, after)]
    found = border(labels_of(*lungs, body=BEYOND_THE_PICTURE))
    assert found in ((column, column + 1) if within else (60, 61))


@pytest.mark.parametrize(("other", "found"), [(400, 60), (500, None)])
def test_two_lungs_in_one_region_are_most_of_the_lung(other: int, found: int | None) -> None:
    """At least 0.8 of it: else the rest is a lung of its own."""
    lungs = (30, 60, 30, 60), (44, 46, 60, 62), (30, 60, 62, 90)
    labels = labels_of(*lungs, (70, 90, 65, 65 + other // 20))
    assert border(labels) == found


def test_a_cut_follows_a_slanting_gap() -> None:
    """By a tenth of the picture's width to either side of the midline, pixel for pixel."""
    hu, mask = np.full((100, 120), -1000.0, np.float32), np.zeros((100, 120), bool)
    hu[BETWEEN_WALLS] = 40
    mask[30:70, 20:100] = True
    rows, columns = np.indices(mask.shape)
    aside = columns - (60 + (rows - 50) * 0.45)
    mask &= (np.abs(aside) > 2) | (rows == 50)
    labels = labelled(hu, mask)
    away = mask & (np.abs(aside) > 2)
    assert (labels[away & (aside < 0)] == RIGHT).all()
    assert (labels[away & (aside > 0)] == LEFT).all()


@pytest.mark.parametrize("header", [None, AXIAL])
@pytest.mark.parametrize(("second", "stacked"), [(10, True), (9, False)])
def test_two_lungs_on_one_side_are_a_picture_on_its_side(
    second: int, stacked: bool, header: Orientation | None
) -> None:
    """From a quarter of the larger one on; a header that says how it lies is believed."""
    lungs = (10, 30, 30, 50), (50, 60, 30, 30 + second), (20, 30, 70, 77)
    labels = labels_of(*lungs, body=BEYOND_THE_PICTURE, header=header)
    assert (border(labels) is None) is (stacked and header is None)
    assert border(labels) in (None, 70)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("beyond", "known"), [(4, True), (5, False)])
def test_two_lungs_on_one_side_of_a_known_midline_keep_to_it(
    beyond: int, known: bool, mirrored: bool
) -> None:
    """Parts of one lung do, but for a twentieth of their 3200 pixels."""
    after = 60 + beyond
    lungs = [(10, 50, after - 40, after), (55, 95, 15, 55), (51, 95, after, after + 30)]
    if mirrored:
        lungs = [(top, bottom, 120 - last, 120 - first) for top, bottom, first, last in lungs]
    found = border(labels_of(*lungs))
    assert found == ((120 - after if mirrored else after) if known else None)


@pytest.mark.parametrize(("beyond", "known"), [(2, True), (3, False)])
def test_lungs_above_each_other_keep_to_a_known_midline(beyond: int, known: bool) -> None:
    """But for a twentieth of either one's 40 columns."""
    after = 60 + beyond
    labels = labels_of((10, 30, after - 40, after), (70, 95, after, after + 38))
    assert border(labels) == (after if known else None)


@pytest.mark.parametrize(("rows", "known"), [(1.33, True), (1.35, False)])
def test_lungs_lie_beside_each_other_in_millimetres(rows: float, known: bool) -> None:
    """30 rows and 40 columns apart: 40.5 mm and 40 mm are one above the other."""
    lungs = (20, 40, 20, 40), (50, 70, 60, 80)
    labels = labels_of(*lungs, body=BEYOND_THE_PICTURE, spacing_mm=(rows, 1.0))
    assert border(labels) == (60 if known else None)
    assert border(labels_of(*lungs, spacing_mm=(rows, 1.0))) == 60  # walls know better


@pytest.mark.parametrize(("mm", "side"), [(2.5, 120), (2.49, None)])
def test_a_field_of_300_mm_is_put_on_the_whole_chest(mm: float, side: int | None) -> None:
    """So a lung alone in it has a side, though no wall is seen."""
    lung = tapering(20, 50)
    for spacing in ((mm, mm), (1.0, mm)):
        assert border(labels_of(*lung, body=BEYOND_THE_PICTURE, spacing_mm=spacing)) == side
    assert border(labels_of(*lung, body=BEYOND_THE_PICTURE, spacing_mm=(2.5, 1.0))) is None
    assert border(labels_of(*lung, body=BEYOND_THE_PICTURE)) is None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("first", "after", "known"), [(35, 90, True), (36, 90, False), (36, 62, True)]
)
def test_a_lung_alone_is_on_the_side_of_the_wall_that_is_near(
    first: int, after: int, known: bool, mirrored: bool
) -> None:
    """Within a quarter of the picture's 120 columns, or wholly on its side of what is seen."""
    lung, body = tapering(first, after), (slice(5, 95), slice(5, 120))
    if mirrored:
        lung, body = tapering(120 - after, 120 - first), (slice(5, 95), slice(0, 115))
    found = labels_of(*lung, body=body)
    assert set(np.unique(found)) == {0, UNSIDED if not known else LEFT if mirrored else RIGHT}


@pytest.mark.parametrize(("other", "known"), [(100, True), (95, False)])
def test_a_tenth_on_the_other_side_is_a_lung(other: int, known: bool) -> None:
    """Less may be the tip of the only lung, whose side no wall tells here."""
    lungs = (20, 50, 20, 50), (30, 35, 80, 80 + other // 5)
    labels = labels_of(*lungs, body=BEYOND_THE_PICTURE)
    assert border(labels) == (80 if known else None)


@pytest.mark.parametrize(("first", "side"), [(41, RIGHT), (42, None), (53, None), (54, LEFT)])
def test_a_lung_alone_between_the_walls_is_where_three_quarters_of_it_are(
    first: int, side: int | None
) -> None:
    """Of 25 columns about column 60: 19 or 18, and 7 or 6 of them, lie on the right."""
    labels = labels_of((20, 70, first, first + 25))
    assert set(np.unique(labels)) == {0, side or UNSIDED}
