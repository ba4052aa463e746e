"""Where slices lie: steps, weights and gaps, whatever the order and the direction of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungseg.core.geometry import (
    even_affine,
    geometry_notes,
    is_uniform,
    missing,
    pixel_area_mm2,
    step_mm,
    tilt_degrees,
    weights_mm,
)
from lungseg.core.types import Orientation, Scan


def scan_at(distances: Sequence[float], lean: float = 0.0) -> Scan:
    """Slices at distances along z, each moved to the back by its share of the way."""
    z = np.array(distances, float)
    return Scan(
        values=np.zeros((len(z), 2, 2), np.int16),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(0.8, 0.5),
        orientation=Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0)),
        positions_mm=np.stack([0 * z, lean * z, z - 300], axis=1),
    )


def codes(distances: Sequence[float]) -> set[str]:
    return {*geometry_notes(scan_at(distances))}


@given(
    step=st.floats(0.3, 10),
    count=st.integers(4, 60),
    lacking=st.sets(st.integers(2, 57), max_size=10),
    down=st.booleans(),
)
def test_missing_slices_are_counted_and_their_room_is_shared(
    step: float, count: int, lacking: set[int], down: bool
) -> None:
    """Where most slices have a neighbour, no millimetre is lost or counted twice."""
    kept = [k for k in range(count) if k == 0 or k not in lacking]
    if np.median(np.diff(kept)) > 1:
        return
    distances = np.array(kept) * (-step if down else step)
    scan = scan_at(distances.tolist())
    weights = weights_mm(scan)
    assert weights is not None
    assert step_mm(scan) == pytest.approx(step)
    assert missing(scan) == kept[-1] + 1 - len(kept)
    # Both ends have a whole step where their gaps may be longer.
    ends = (kept[1] - kept[0] + kept[-1] - kept[-2]) / 2
    assert weights.sum() == pytest.approx(step * (kept[-1] - kept[0] - ends + 2))


def test_rounded_positions_are_even_and_growing_steps_are_not() -> None:
    """Headers of one digit have gaps of 0.6 and 0.7 mm; growth by 2% is in no gap to be seen."""
    rounded = np.round(np.arange(300) * 0.625, 1)
    assert codes(rounded.tolist()) == set()
    assert even_affine(scan_at(rounded.tolist())) is not None
    grown = np.cumsum([5.0] * 100 + [5.1] * 100)
    assert codes(grown.tolist()) == {"non_uniform_spacing"}
    assert even_affine(scan_at(grown.tolist())) is None


def test_codes_of_geometry() -> None:
    assert codes([0, 5, 10, 15]) == set()
    assert codes([0, 5, 10, 20, 25]) == {"missing_slices"}
    assert codes([0, 5, 10, 17.5, 25]) == {"non_uniform_spacing"}
    assert codes([0]) == {"single_slice"}
    assert geometry_notes(scan_at([0, 5, 10], lean=0.1)) == ("gantry_tilt",)


def test_a_leaning_stack_is_as_high_as_its_normal_says() -> None:
    """The way from slice to slice is longer than their distance."""
    scan = scan_at([0, 4, 8, 12], lean=0.5)
    assert step_mm(scan) == pytest.approx(4)
    assert tilt_degrees(scan) == pytest.approx(np.degrees(np.arctan(0.5)))
    assert pixel_area_mm2(scan) == pytest.approx(0.4)


def test_a_single_slice_has_no_height() -> None:
    scan = scan_at([7])
    assert (step_mm(scan), weights_mm(scan), even_affine(scan)) == (None, None, None)
    assert (is_uniform(scan), missing(scan), tilt_degrees(scan)) == (True, 0, 0.0)
