"""Geometry of the labelling tool: what is drawn is what is filled."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungseg.core.contours import polygons
from training.labelling.shapes import closed, deepest, dilated, eroded, inside_polygon, opened

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 17)))
RADII = st.floats(0.5, 6.0)
SPACINGS = st.tuples(st.floats(0.4, 2.0), st.floats(0.4, 2.0))


@given(MASKS)
def test_outlines_of_a_mask_fill_the_mask(mask: np.ndarray) -> None:
    """Rings along the pixels' edges, filled and combined, give back exactly these pixels."""
    filled = np.zeros_like(mask)
    for polygon in polygons(mask):
        for ring in polygon:
            filled ^= inside_polygon(ring[:-1], mask.shape)
    assert (filled == mask).all()


@given(st.lists(st.tuples(st.integers(-3, 15), st.integers(-3, 15)), min_size=3, max_size=8))
def test_where_a_polygon_begins_does_not_matter(points: list[tuple[int, int]]) -> None:
    """Beginning at another corner, or going round the other way, fills the same pixels."""
    filled = inside_polygon(points, (11, 13))
    assert (inside_polygon([*points[2:], *points[:2]], (11, 13)) == filled).all()
    assert (inside_polygon(points[::-1], (11, 13)) == filled).all()


@given(MASKS, RADII, SPACINGS)
def test_order_of_morphology(
    mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]
) -> None:
    """Eroded lies in opened, opened in the mask, the mask in closed, closed in dilated."""
    shrunk, open_, shut, grown = (
        action(mask, radius_mm, spacing_mm) for action in (eroded, opened, closed, dilated)
    )
    assert not (shrunk & ~open_).any()
    assert not (open_ & ~mask).any()
    assert not (mask & ~shut).any()
    assert not (shut & ~grown).any()


@given(MASKS, RADII, SPACINGS)
def test_dilation_reaches_what_is_near(
    mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]
) -> None:
    """Exactly the pixels with a pixel of the mask within the radius, measured one by one."""
    rows, columns = np.indices(mask.shape)
    near = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        y, x = (rows - row) * spacing_mm[0], (columns - column) * spacing_mm[1]
        near |= np.sqrt(y**2 + x**2) <= radius_mm
    differing = dilated(mask, radius_mm, spacing_mm) != near
    edge = np.zeros_like(mask)
    for row, column in np.argwhere(mask):  # rounding decides on the circle itself
        y, x = (rows - row) * spacing_mm[0], (columns - column) * spacing_mm[1]
        edge |= np.isclose(np.sqrt(y**2 + x**2), radius_mm)
    assert not (differing & ~edge).any()


@given(MASKS)
def test_the_deepest_pixel_lies_inside(mask: np.ndarray) -> None:
    """A number is written on the region that it names."""
    if mask.any():
        assert mask[deepest(mask)]
