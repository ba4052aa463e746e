"""Statistics against hand-computed values and a second implementation; flags one by one."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy import ndimage, stats

from lungseg.core.measures import Region, Statistics
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


def test_numbers_are_rounded_as_the_page_says() -> None:
    """Fractions to six decimals, all else to four; sorting bears values 65536 and more apart."""
    values = np.full((7, 9), 40.0)
    values[1, 1:4] = [-951, -900, -899]
    values[2, 1:4] = [-898, 70000, 0.123456]
    mask = np.zeros(values.shape, bool)
    mask[1, 1:4] = True
    mask[2, 1] = True
    measured = report(scan_of(values, spacing_mm=(1 / 3, 1 / 7)), mask).statistics
    assert measured.fraction == 0.063492
    assert measured.area_mm2 == 0.1905
    assert asdict(measured.centroid) == {"x": 1.75, "y": 1.25}
    mask[2, 2:4] = True
    measured = report(scan_of(values), mask).statistics
    ordered = np.sort(values[mask])
    assert measured.centroid.y == 1.5
    assert (measured.intensity.min, measured.intensity.max) == (-951, 70000)
    assert measured.intensity.median == pytest.approx(np.median(ordered))
    assert measured.density.laa_950 == 0.166667
    assert measured.density.haa_250 == 0.333333
    mask[1, 3] = mask[2] = False
    assert report(scan_of(values), mask).statistics.intensity.std == 25.5
    values[1, 2] = 0.123456
    mask[1, 1] = False
    assert report(scan_of(values), mask).statistics.intensity.mean == 0.1235


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
    figures = asdict(empty.statistics.intensity)
    assert figures.pop("unit") == "HU"
    assert set(figures.values()) == {None}
    assert empty.confidence.mean_probability is None
    for answer in (measured, empty):
        json.dumps(asdict(answer), allow_nan=False)


def test_a_volume_is_no_slice(chest: Phantom) -> None:
    scan = scan_of(chest.hu)
    found = replace(segmentation(scan, chest.lungs), components=None)
    with pytest.raises(ValueError, match="expected one slice, received 1"):
        measure(scan, found)


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
