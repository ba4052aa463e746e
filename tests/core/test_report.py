"""Statistics against hand-computed values and a second implementation; flags one by one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy import ndimage, stats

from lungseg.core.measures import Region, Statistics
from lungseg.core.quality import (
    AREA_RANGE_MM2,
    FRACTION_RANGE,
    MAX_EMPTY_PROBABILITY,
    MAX_TILT_DEGREES,
    MAX_UNCERTAIN_FRACTION,
)
from lungseg.core.report import Report, measure
from lungseg.core.types import Orientation, Scan
from tests.masks import segmentation
from training.synthetic.phantom import Phantom, make_phantom

AXIAL = Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0))


def scan_of(values: np.ndarray, **changes: object) -> Scan:
    facts = {"unit": "HU", "media_type": "application/dicom", "spacing_mm": (0.8, 0.5)}
    facts["orientation"] = AXIAL
    return Scan(values=values[None].astype(np.float32), **(facts | changes))


def report(scan: Scan, mask: np.ndarray, probability: np.ndarray | None = None) -> Report:
    return measure(scan, segmentation(scan, mask, probability))


def codes(measured: Report) -> set[str]:
    return {flag.code for flag in measured.quality.flags}


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return make_phantom((301, 420), seed=5)


def test_values_computed_by_hand() -> None:
    values = np.zeros((6, 10))
    values[2, 2:7] = [-951, -950, -910, -700, -249]
    mask = np.zeros((6, 10), bool)
    mask[2, 2:7] = True
    measured = report(scan_of(values), mask).statistics
    assert (measured.pixels, measured.total_pixels, measured.components) == (5, 60, 1)
    assert measured.fraction == round(5 / 60, 6)
    assert measured.area_mm2 == pytest.approx(5 * 0.8 * 0.5)
    assert asdict(measured.bounding_box) == {"x": 2, "y": 2, "width": 5, "height": 1}
    assert asdict(measured.centroid) == {"x": 4.0, "y": 2.0}
    assert measured.intensity.median == -910
    assert measured.intensity.mean == pytest.approx(-752)
    density = measured.density
    # strictly below: −950 is not in laa_950; strictly above: −700 is not in haa_700
    assert (density.laa_950, density.laa_910, density.laa_856) == (0.2, 0.4, 0.6)
    assert (density.haa_700, density.haa_600, density.haa_250) == (0.2, 0.2, 0.2)
    assert density.perc15 == pytest.approx(np.percentile(values[mask], 15))


def second_implementation(values: np.ndarray, mask: np.ndarray, pixel_mm2: float) -> dict:
    """Every number of a region by other means, each under the name of its field."""
    inside = values[mask].astype(np.float64)
    rows, columns = np.nonzero(mask)
    percentile = partial(stats.scoreatpercentile, inside)
    return {
        "pixels": inside.size,
        "fraction": mask.mean(),
        "area_mm2": mask.sum() * pixel_mm2,
        "bounding_box.x": columns.min(),
        "bounding_box.y": rows.min(),
        "bounding_box.width": np.ptp(columns) + 1,
        "bounding_box.height": np.ptp(rows) + 1,
        "centroid.x": columns.mean(),
        "centroid.y": rows.mean(),
        "components": ndimage.label(mask, np.ones((3, 3)))[1],
        "intensity.mean": inside.mean(),
        "intensity.std": inside.std(),
        "intensity.min": inside.min(),
        "intensity.max": inside.max(),
        **{f"intensity.p{part}": percentile(part) for part in (5, 15, 95)},
        "intensity.median": percentile(50),
        **{f"density.laa_{level}": (inside < -level).mean() for level in (950, 910, 856)},
        **{f"density.haa_{level}": (inside > -level).mean() for level in (700, 600, 250)},
        "density.perc15": percentile(15),
    }


def flat(members: dict) -> dict:
    """Nested members under names with dots."""
    found: dict = {}
    for name, value in members.items():
        inner = flat(value) if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{below}".rstrip("."): part for below, part in inner.items()}
    return found


@pytest.mark.parametrize("noise", [0.0, 0.37])
def test_a_second_implementation_agrees_for_all_and_for_each_lung(
    chest: Phantom, noise: float
) -> None:
    """Field by field: a statistic that is measured and not compared here fails."""
    values = chest.hu + noise * np.random.default_rng(0).random(chest.hu.shape)
    values = values.astype(np.float32)
    measured = report(scan_of(values), chest.lungs).statistics
    whole = Region(**{item.name: getattr(measured, item.name) for item in fields(Region)})
    regions = ((whole, chest.lungs), (measured.lungs.right, chest.right))
    for region, mask in (*regions, (measured.lungs.left, chest.left)):
        found, expected = flat(asdict(region)), second_implementation(values, mask, 0.8 * 0.5)
        assert found.pop("intensity.unit") == "HU"
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            decimals = 6 if name == "fraction" or "aa_" in name else 4
            assert found[name] == pytest.approx(value, rel=0, abs=10**-decimals), name
    more = {item.name for item in fields(Statistics)} - {item.name for item in fields(Region)}
    assert more == {"total_pixels", "lungs", "laterality"}
    assert measured.total_pixels == values.size


def test_unknown_is_none_and_everything_is_json(chest: Phantom) -> None:
    bare = scan_of(chest.hu, unit="grey level", spacing_mm=None, orientation=None)
    measured = report(bare, chest.lungs)
    assert measured.statistics.area_mm2 is None
    assert measured.statistics.density is None
    assert measured.statistics.laterality == "radiological_convention"
    empty = report(scan_of(chest.hu), np.zeros_like(chest.lungs))
    assert empty.statistics.area_mm2 == 0.0
    assert empty.statistics.centroid is None
    assert empty.statistics.intensity.mean is None
    assert empty.confidence.mean_probability is None
    for answer in (measured, empty):
        json.dumps(asdict(answer), allow_nan=False)


def test_confidence_counts_the_ends_of_the_uncertain_range() -> None:
    probability = np.array([[0.05, 0.1, 0.5, 0.9, 0.95, 1.0]])
    confidence = report(scan_of(np.zeros((1, 6))), probability >= 0.5, probability).confidence
    assert confidence.mean_probability == pytest.approx((0.5 + 0.9 + 0.95 + 1) / 4, abs=1e-6)
    assert confidence.uncertain_fraction == 3 / 4


# --- right and left -----------------------------------------------------------------------------

EIGHT = list(product((False, True), repeat=3))


@pytest.mark.parametrize(("transposed", "flip_rows", "flip_columns"), EIGHT)
def test_sides_follow_the_patient_in_all_eight_orientations(
    chest: Phantom, transposed: bool, flip_rows: bool, flip_columns: bool
) -> None:
    def turned(plane: np.ndarray) -> np.ndarray:
        plane = plane.T if transposed else plane
        plane = plane[::-1] if flip_rows else plane
        return plane[:, ::-1] if flip_columns else plane

    row, column = ((0, 1, 0), (1, 0, 0)) if transposed else ((1, 0, 0), (0, 1, 0))
    row = tuple(-part if flip_columns else part for part in row)
    column = tuple(-part if flip_rows else part for part in column)
    orientation = Orientation(row_direction=row, column_direction=column)
    scan = scan_of(turned(chest.hu), orientation=orientation)
    lungs = report(scan, turned(chest.lungs)).statistics.lungs
    assert (lungs.right.pixels, lungs.left.pixels) == (chest.right.sum(), chest.left.sum())
    rows, columns = np.nonzero(turned(chest.right))
    assert lungs.right.centroid.x == pytest.approx(columns.mean(), abs=1e-3)
    assert lungs.right.centroid.y == pytest.approx(rows.mean(), abs=1e-3)


def test_touching_lungs_are_cut_at_their_waist(chest: Phantom) -> None:
    bridged = chest.lungs.copy()
    row = int(np.nonzero(chest.lungs.any(axis=1))[0].mean())
    columns = np.nonzero(chest.lungs[row])[0]
    bridged[row - 2 : row + 3, columns.min() : columns.max()] = True
    measured = report(scan_of(chest.hu), bridged).statistics
    assert measured.components == 1
    right, left = measured.lungs.right, measured.lungs.left
    assert right.pixels + left.pixels == bridged.sum()
    assert right.pixels == pytest.approx(chest.right.sum(), rel=0.05)
    assert left.pixels == pytest.approx(chest.left.sum(), rel=0.05)
    assert (right.components, left.components) == (1, 1)


def test_one_lung_alone_keeps_its_side(chest: Phantom) -> None:
    lungs = report(scan_of(chest.hu), chest.left).statistics.lungs
    assert (lungs.right.pixels, lungs.left.pixels) == (0, chest.left.sum())


def test_sagittal_slices_have_no_sides(chest: Phantom) -> None:
    sagittal = Orientation(row_direction=(0, 1, 0), column_direction=(0, 0, -1))
    measured = report(scan_of(chest.hu, orientation=sagittal), chest.lungs)
    assert measured.statistics.lungs.right is None
    assert measured.statistics.laterality is None
    assert "non_axial" in codes(measured)


# --- flags --------------------------------------------------------------------------------------


def test_a_good_answer_has_no_flag(chest: Phantom) -> None:
    assert codes(report(scan_of(chest.hu), chest.lungs)) == set()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"notes": ("not_ct",)}, "not_ct"),
        ({"unit": "grey level"}, "not_calibrated_hu"),
        ({"spacing_mm": None}, "spacing_unknown"),
    ],
)
def test_flags_of_the_scan(chest: Phantom, changes: dict, code: str) -> None:
    assert codes(report(scan_of(chest.hu, **changes), chest.lungs)) == {code}


def test_flags_of_the_mask(chest: Phantom) -> None:
    scan = scan_of(chest.hu)
    assert codes(report(scan, np.zeros_like(chest.lungs))) == {"empty_mask", "air_unlabelled"}
    assert "single_lung" in codes(report(scan, chest.right))
    border = chest.lungs.copy()
    border[0, 5] = True
    assert codes(report(scan, border)) == {"touches_border"}


@pytest.mark.parametrize("end", [0, 1])
def test_area_out_of_range_begins_at_its_thresholds(chest: Phantom, end: int) -> None:
    pixels = chest.lungs.sum()
    for factor, flagged in ((0.999, end == 0), (1.001, end == 1)):
        side = (AREA_RANGE_MM2[end] * factor / pixels) ** 0.5
        found = codes(report(scan_of(chest.hu, spacing_mm=(side, side)), chest.lungs))
        assert ("area_out_of_range" in found) is flagged
    small = np.zeros((100, 100), bool)
    small[40, 40 : 40 + int(FRACTION_RANGE[0] * 1e4) - 1] = True
    bare = scan_of(np.full((100, 100), -800.0), spacing_mm=None)
    assert "area_out_of_range" in codes(report(bare, small))


@pytest.mark.parametrize("over", [False, True])
def test_low_confidence_begins_at_its_thresholds(chest: Phantom, over: bool) -> None:
    """Of a mask by its uncertain pixels, of an empty one by the greatest probability."""
    scan, mask = scan_of(chest.hu), chest.lungs
    share = MAX_UNCERTAIN_FRACTION + (0.01 if over else -0.01)
    hesitant = mask.astype(float).ravel()
    hesitant[np.flatnonzero(~mask)[: int(share * mask.sum())]] = 0.3
    found = report(scan, mask, hesitant.reshape(mask.shape))
    assert ("low_confidence" in codes(found)) is over
    faint = mask * (MAX_EMPTY_PROBABILITY + (0.01 if over else -0.01))
    empty = report(scan, np.zeros_like(mask), faint)
    assert ("low_confidence" in codes(empty)) is over
    assert empty.confidence.max_probability == pytest.approx(faint.max(), abs=1e-6)
    assert empty.confidence.uncertain_fraction is None


def test_air_left_out_is_measured_and_placed(chest: Phantom) -> None:
    """A lost lung is said to be there; airways, gas of the bowel and edges are not."""
    scan = scan_of(chest.hu, spacing_mm=chest.spacing_mm)
    (flag,) = [f for f in report(scan, chest.right).quality.flags if f.code == "air_unlabelled"]
    area, row, column = map(float, re.findall(r"\d+", flag.message))
    lost = chest.left.sum() * np.prod(chest.spacing_mm)
    assert 0.8 * lost < area < 1.05 * lost
    assert (row, column) == pytest.approx(np.argwhere(chest.left).mean(axis=0), abs=12)
    gas = np.where(chest.left, -1000, chest.hu)
    assert "air_unlabelled" not in codes(report(replace(scan, values=gas[None]), chest.right))
    trimmed = ndimage.binary_erosion(chest.lungs, iterations=3)
    assert "air_unlabelled" not in codes(report(scan, trimmed))


@pytest.mark.parametrize("unit", ["HU", "grey level"])
def test_mask_where_no_body_is(chest: Phantom, unit: str) -> None:
    """Air around the body is, a lung that the picture's edge cuts is not."""
    around = chest.lungs.copy()
    around[4:20, 100:200] = True
    found = codes(report(scan_of(chest.hu, unit=unit), around))
    assert found - {"not_calibrated_hu"} == {"outside_body"}
    cut = scan_of(chest.hu[:, 100:], unit=unit)
    assert "outside_body" not in codes(report(cut, chest.lungs[:, 100:]))


@pytest.mark.parametrize(("level", "flagged"), [(-990, True), (-850, False), (-390, True)])
def test_intensity_out_of_range(chest: Phantom, level: float, flagged: bool) -> None:
    found = codes(report(scan_of(np.full_like(chest.hu, level)), chest.lungs))
    assert ("intensity_out_of_range" in found) is flagged


@pytest.mark.parametrize(("degrees", "flagged"), [(-1, False), (1, True)])
def test_non_axial_begins_beyond_the_gantrys_tilt(
    chest: Phantom, degrees: float, flagged: bool
) -> None:
    angle = np.radians(MAX_TILT_DEGREES + degrees)
    tilted = replace(AXIAL, column_direction=(0.0, float(np.cos(angle)), float(np.sin(angle))))
    found = codes(report(scan_of(chest.hu, orientation=tilted), chest.lungs))
    assert ("non_axial" in found) is flagged


def _as_png(chest: Phantom, low: float, high: float, white: int) -> np.ndarray:
    """What a picture says whose levels were drawn with one window and declared with another."""
    drawn = np.rint(np.clip((chest.hu + 1350) / 1500, 0, 1) * white)
    return low + drawn * (high - low) / (255 if white == 255 else 65535)


@pytest.mark.parametrize(
    ("window", "white", "flagged"),
    [
        ((-1350, 150), 255, False),
        ((-1000, 400), 255, False),
        ((-1350, 150), 4095, True),
        ((0, 255), 255, True),
        ((-10, 10), 255, True),
        ((-1350, 15000), 255, True),
        ((-30000, -1000), 255, True),
    ],
)
@pytest.mark.parametrize("found", [False, True])
def test_a_window_that_no_chest_has_is_flagged_with_and_without_a_mask(
    chest: Phantom, window: tuple[float, float], white: int, flagged: bool, found: bool
) -> None:
    """12 bits in 16 among them; the mask that such HU give is often empty."""
    scan = scan_of(_as_png(chest, *window, white), media_type="image/png")
    lung = chest.lungs if found and not flagged else np.zeros_like(chest.lungs)
    assert ("intensity_out_of_range" in codes(report(scan, lung))) is flagged


@pytest.mark.parametrize(
    ("slope", "intercept", "flagged"),
    [(1, 0, False), (1, 1024, True), (10, 0, True), (0, 40, True)],
)
@pytest.mark.parametrize("media_type", ["application/dicom", "application/x-npy"])
@pytest.mark.parametrize("fill", [None, -1024, -2000])
def test_hu_that_no_body_has_are_flagged(
    chest: Phantom, slope: float, intercept: float, flagged: bool, media_type: str, fill: int | None
) -> None:
    """A lost intercept empties the mask, which must not look like an answer; padding is no air."""
    values = chest.hu * slope + intercept
    if fill is not None:
        rows, columns = np.indices(values.shape) / np.reshape(values.shape, (2, 1, 1)) - 0.5
        values[np.hypot(rows, columns) > 0.5] = fill
    scan = scan_of(values, media_type=media_type)
    found = codes(report(scan, np.zeros_like(chest.lungs)))
    assert ("intensity_out_of_range" in found) is flagged


@pytest.mark.parametrize("level", [-1000, -110, 40])
def test_a_small_field_and_air_are_not_doubted(chest: Phantom, level: float) -> None:
    """A field within the body shows no air, one above the head nothing else."""
    values = np.full(chest.hu.shape, level)
    values[::4] = min(level, -110)
    found = codes(report(scan_of(values), np.zeros_like(chest.lungs)))
    assert "intensity_out_of_range" not in found
