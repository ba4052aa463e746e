"""Where the values of a slice end, how finely they lie, and which pixels were never measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lungseg.core.histogram import Histogram
from lungseg.core.measured import Scale, padding_within, scale_of
from lungseg.core.regions import bounding_box
from lungseg.core.report import measure
from lungseg.core.types import Reach, Scan
from tests.masks import segmentation

INF = float("inf")
EVERYWHERE = (slice(None), slice(None))


def scan_of(values: np.ndarray, **changes: object) -> Scan:
    facts: dict = {"unit": "HU", "media_type": "application/x-npy"}
    return Scan(values=values[None].astype(np.float32), **(facts | changes))


def spread(
    low: float, high: float, *, piled: tuple[float, int] = (0, 0), rim: int = 0, side: int = 200
) -> np.ndarray:
    """Levels from one to another, each once in a few dozen pixels, and some pixels of one value.

    Those lie within the slice, but for so many as are asked for along its upper edge.
    """
    values = np.rint(np.linspace(low, high, side * side))
    values = np.random.default_rng(1).permutation(values).reshape(side, side)
    level, count = piled
    values[0, 1 : 1 + rim] = level
    inside = values[1:-1, 1:-1].copy()
    inside.flat[: count - rim] = level
    values[1:-1, 1:-1] = inside
    return values


def ends(values: np.ndarray, **changes: object) -> tuple[float, float]:
    found = scale_of(scan_of(values, **changes))
    return found.low, found.high


# --- where values end ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (spread(-900, 100), (-INF, INF)),
        # 0.005 of 40,000 pixels, and 50 of 2500
        (spread(-899, 100, piled=(-900, 199)), (-INF, INF)),
        (spread(-899, 100, piled=(-900, 200)), (-900, INF)),
        (spread(-900, 99, piled=(100, 199)), (-INF, INF)),
        (spread(-900, 99, piled=(100, 200)), (-INF, 100)),
        (spread(-899, 100, piled=(-900, 49), side=50), (-INF, INF)),
        (spread(-899, 100, piled=(-900, 50), side=50), (-900, INF)),
        # the scanner's own floor is none of these ends
        (spread(-1020, 100, piled=(-1024, 900)), (-INF, INF)),
        (spread(-1020, 100, piled=(-1023, 900)), (-1023, INF)),
        # air that is all alike above -990 HU, along a twentieth of the border's 800 pixels
        (spread(-800, 100, piled=(-989, 39), rim=39), (-INF, INF)),
        (spread(-800, 100, piled=(-989, 40), rim=40), (-989, INF)),
        (spread(-800, 100, piled=(-990, 40), rim=40), (-INF, INF)),
        # no tissue above -100 HU
        (spread(-900, -101), (-INF, -101)),
        (spread(-900, -100), (-INF, INF)),
        (np.full((200, 200), -500.0), (-INF, INF)),
    ],
)
def test_an_end_is_where_many_values_are_equal(values: np.ndarray, expected: tuple) -> None:
    """By their number, by air around the body that has no noise, or by a body without tissue."""
    assert ends(values) == expected
    grey = scale_of(scan_of(values, unit="grey level"))
    assert grey == Scale()


@pytest.mark.parametrize(("distance", "near", "ended"), [(32, 50, True), (32, 49, False)])
@pytest.mark.parametrize("upper", [False, True])
def test_a_flat_area_is_an_end_only_with_values_beside_it(
    distance: int, near: int, ended: bool, upper: bool
) -> None:
    """A twentieth of its pixels within 32 HU: drawings have areas with nothing close to them."""
    for apart in (distance, distance + 1):
        values = spread(-800, 50, piled=(-900, 1000))
        values[150, :near] = -900 + apart
        shown = -750 - values if upper else values
        found = ends(shown)
        expected = (150.0 if upper else -900.0) if ended and apart == distance else None
        assert found[1 if upper else 0] == (expected or (INF if upper else -INF))


@pytest.mark.parametrize(
    ("reach", "notes", "expected"),
    [
        (Reach(low=-1000, high=400, step=2), (), (-999, 399)),
        (Reach(low=-1000, high=400, step=2), ("lossy_compression",), (-996, 396)),
        (Reach(low=-1000, high=400, step=2), ("not_ct",), (-999, 399)),
        (Reach(low=-1024, high=3071, step=1), (), (-INF, 3070.5)),
        (Reach(low=-1023, high=3072, step=1), (), (-1022.5, 3071.5)),
    ],
)
def test_the_ends_of_an_encoding(reach: Reach, notes: tuple, expected: tuple) -> None:
    """Half a level inwards, four times as much after JPEG; values found within end earlier."""
    values = spread(-900, 100)
    assert ends(values, reach=reach, notes=notes) == expected
    ended = spread(-800, 99, piled=(100, 900))
    assert ends(ended, reach=reach, notes=notes) == (expected[0], 100)
    ended = spread(-799, 100, piled=(-800, 900))
    assert ends(ended, reach=reach, notes=notes) == (-800, expected[1])


def test_what_was_not_measured_is_no_end() -> None:
    """Padding that the file names, and values that lie far below air."""
    padded = spread(-900, 100, piled=(200, 900))
    padded[100] = np.arange(190, 390) % 10 + 190  # beside it
    assert ends(padded)[1] == 200
    assert ends(padded, padding=(padded >= 150)[None]) == (-INF, INF)
    far = spread(-899, 100, piled=(-900, 300))
    far[150:] = -1501
    assert ends(far)[0] == -900
    assert ends(np.full((9, 9), -3000.0)) == (-INF, INF)


# --- how finely they lie ------------------------------------------------------------------------


def levels(first: float, gap: float, count: int) -> np.ndarray:
    return np.resize(first + gap * np.arange(count), (200, 200))


@pytest.mark.parametrize(
    ("values", "coarse"),
    [
        (levels(-900, 10, 40), False),
        (levels(-900, 11, 40), True),
        (levels(-900, 11, 12), True),
        (levels(-900, 11, 11), False),
        (levels(300, -11, 12), True),
        (levels(301, -11, 12), False),
        (levels(-1024, 11, 12), True),
        (levels(-1025, 11, 12), False),
        (np.where(np.arange(40_000).reshape(200, 200) == 1, -899, levels(-900, 11, 40)), False),
    ],
)
def test_levels_further_apart_than_10_hu_are_coarse(values: np.ndarray, coarse: bool) -> None:
    """The two closest of a dozen or more within the reach of lung, wherever a pixel has them."""
    assert scale_of(scan_of(values)).coarse is coarse


@pytest.mark.parametrize(
    ("step", "notes", "coarse"),
    [
        (10, (), False),
        (10.1, (), True),
        (2.5, ("lossy_compression",), False),
        (2.6, ("lossy_compression",), True),
    ],
)
def test_levels_of_an_encoding_are_coarse_alike(step: float, notes: tuple, coarse: bool) -> None:
    reach = Reach(low=-1024, high=3071, step=step)
    assert scale_of(scan_of(spread(-900, 100), reach=reach, notes=notes)).coarse is coarse


# --- what they show -----------------------------------------------------------------------------


def test_a_clipped_value_shows_on_which_side_of_the_end_it_lay() -> None:
    """Strictly below the lower end nothing is known, and strictly above the upper one."""
    scale = Scale(low=-900, high=100)
    assert [scale.shows_below(t) for t in (-900, -899, 100, 101)] == [False, True, True, False]
    assert [scale.shows_above(t) for t in (-901, -900, 99, 100)] == [False, True, True, False]
    assert [scale.shows(t) for t in (-900, -899, 99, 100)] == [False, True, True, False]
    coarse = Scale(coarse=True)
    assert not coarse.shows_below(0)
    assert not coarse.shows_above(0)
    assert not coarse.shows(0)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(20, 0, True), (21, 0, False), (0, 20, True), (0, 21, False), (10, 10, True), (10, 11, False)],
)
def test_a_mean_is_shown_while_clipping_can_have_moved_it_by_1_hu(
    low: int, high: int, shown: bool
) -> None:
    """Of 2000 values: from -924 to -1024 HU, and from 200 to 300 HU, each may be off by 100."""
    values = np.full(2000, -500.0, np.float32)
    values[:low], values[2000 - high :] = -924, 200
    assert Scale(low=-924, high=200).shows_mean(Histogram.of(values)) is shown
    assert Scale(low=-1025, high=301).shows_mean(Histogram.of(values))


@pytest.mark.parametrize(("count", "known"), [(21, True), (20, False)])
def test_a_percentile_is_known_where_both_values_beside_it_are(count: int, known: bool) -> None:
    """The 5th of 21 values is the second, that of 20 lies between the first and the second."""
    values = np.full((12, 200), 40.0)
    values[1] = -801
    values[2, 0] = -900  # the least; the encoding ends there
    row = np.full(200, 40.0)
    row[:count] = np.r_[-900, np.linspace(-800, -700, count - 1)]
    values[5] = row
    mask = np.zeros(values.shape, bool)
    mask[5, :count] = True
    scan = scan_of(values, reach=Reach(low=-900, high=3071))
    for upper in (False, True):
        if upper:
            scan = replace(scan, values=-860 - scan.values, reach=Reach(low=-3931, high=40))
        found = measure(scan, segmentation(scan, mask)).statistics.intensity
        assert (found.p95 if upper else found.p5) == pytest.approx(
            np.percentile(scan.values[0][mask], 95 if upper else 5), abs=1e-3
        ) or not known
        assert ((found.p95 if upper else found.p5) is not None) is known
        assert (found.max if upper else found.min) is None
        assert (found.min if upper else found.max) is not None


# --- what was not measured ----------------------------------------------------------------------


def frame(level: float, inner: float = 40.0) -> np.ndarray:
    """A level along the picture's edge, two pixels wide, and once more within."""
    values = np.full((10, 12), inner)
    values[:2] = values[-2:] = values[:, :2] = values[:, -2:] = level
    values[5, 5] = level
    return values


@pytest.mark.parametrize(
    ("level", "found"), [(-1501, 49), (-1500, 48), (-1000, 48), (-999, None), (-1024, 48)]
)
def test_padding_fills_a_slice_from_its_corners(level: float, found: int | None) -> None:
    """At most -1000 HU; far below air it is padding wherever it lies."""
    outer = padding_within(scan_of(frame(level)), EVERYWHERE)
    outer_count = None if outer is None else int(outer.sum())
    edge = 10 * 12 - 6 * 8
    assert outer_count == (None if found is None else edge + found - 48)
    part = padding_within(scan_of(frame(level)), (slice(1, 4), slice(3, 6)))
    assert (None if part is None else part.tolist()) == (
        None if found is None else [[True] * 3, [False] * 3, [False] * 3]
    )


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
@pytest.mark.parametrize("unit", ["HU", "grey level"])
def test_one_corner_that_differs_shows_that_something_was_measured(
    corner: tuple, unit: str
) -> None:
    """Each corner alone can be joined to the rest, or be of another value."""
    values = frame(-1024.0)
    values[corner] = -1023
    assert padding_within(scan_of(values, unit=unit), EVERYWHERE) is None
    apart = np.full((9, 9), 40.0)
    apart[[0, 0, -1, -1], [0, -1, 0, -1]] = -1024
    found = padding_within(scan_of(apart, unit=unit), EVERYWHERE)
    assert found is not None
    assert found[corner]
    assert found.sum() == 4


def test_padding_of_grey_levels_is_their_lowest() -> None:
    """One pixel that is darker shows that the corners were measured."""
    values = frame(10.0)
    assert padding_within(scan_of(values, unit="grey level"), EVERYWHERE) is not None
    values[5, 6] = 9
    assert padding_within(scan_of(values, unit="grey level"), EVERYWHERE) is None


def test_padding_that_a_file_names_is_taken_at_its_word() -> None:
    """Where it names the corner, what has that value elsewhere was measured; both add up else."""
    values = frame(-1000.0)
    named = np.zeros(values.shape, bool)
    named[0] = True
    found = padding_within(scan_of(values, padding=named[None]), EVERYWHERE)
    assert np.array_equal(found, named)
    named = np.zeros(values.shape, bool)
    named[4, 4] = True
    found = padding_within(scan_of(values, padding=named[None]), EVERYWHERE)
    assert found.sum() == 10 * 12 - 6 * 8 + 1
    far = np.full((9, 9), 40.0)
    far[3, 3] = -2000
    named = np.zeros((9, 9), bool)
    named[4, 4] = True
    found = padding_within(scan_of(far, padding=named[None]), EVERYWHERE)
    assert np.argwhere(found).tolist() == [[3, 3], [4, 4]]


@given(
    arrays.arrays(np.float32, (7, 8), elements=st.sampled_from([-1024.0, -1024.0, 40.0])),
    arrays.arrays(bool, (7, 8)),
    st.booleans(),
)
def test_padding_in_the_lung_is_what_comes_into_it_from_the_corners(
    values: np.ndarray, lung: np.ndarray, alike: bool
) -> None:
    """Of the lung's pixels the same is padding whether or not the others are asked for."""
    if alike:
        values[[0, 0, -1, -1], [0, -1, 0, -1]] = -1024
    box = bounding_box(lung)
    inside, scan = lung[box], scan_of(values)
    if inside.size:
        padding, of_lung = padding_within(scan, box), padding_within(scan, box, inside)
        assert np.array_equal(
            inside & (padding if padding is not None else False),
            inside & (of_lung if of_lung is not None else False),
        )
