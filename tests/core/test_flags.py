"""Flags one by one, each just below and just above what ``docs/operating.md`` says raises it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from lungseg.core.report import Report, measure
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Confidence, Orientation, Scan, Segmentation
from tests.masks import segmentation
from training.synthetic.phantom import Phantom, make_phantom

AXIAL = Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0))
SURE = Confidence(mean_probability=0.99, uncertain_fraction=0.1, max_probability=1.0)


def scan_of(values: np.ndarray, **changes: object) -> Scan:
    facts = {"unit": "HU", "media_type": "application/dicom", "spacing_mm": (0.8, 0.5)}
    facts["orientation"] = AXIAL
    return Scan(values=values[None].astype(np.float32), **(facts | changes))


def report(scan: Scan, mask: np.ndarray) -> Report:
    return measure(scan, segmentation(scan, mask))


def labelled(scan: Scan, labels: np.ndarray, confidence: Confidence = SURE) -> Report:
    """What is said of labels that are given, shape (Y, X), and of a network that was that sure."""
    sided = not (labels == UNSIDED).any()
    given = Segmentation(
        labels=labels[None].astype(np.uint8),
        threshold=0.5,
        laterality="dicom_orientation" if sided else None,
        components=(1, 1, 1),
        confidence=confidence,
        probability=(labels[None] > 0).astype(np.float32),
    )
    return measure(scan, given)


def codes(measured: Report) -> set[str]:
    return {flag.code for flag in measured.quality.flags}


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return make_phantom((301, 420), seed=5)


def torso(lung: float = -850.0, side: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Air, a square body of 40 HU, and the labels of two square lungs in it, 400 pixels each."""
    hu, labels = np.full((side, side), -1000.0), np.zeros((side, side), np.uint8)
    hu[10:-10, 10:-10] = 40
    for first, label in ((20, RIGHT), (60, LEFT)):
        labels[40:60, first : first + 20] = label
    hu[labels > 0] = lung
    return hu, labels


# --- of the scan --------------------------------------------------------------------------------


def test_a_good_answer_has_no_flag(chest: Phantom) -> None:
    assert codes(report(scan_of(chest.hu), chest.lungs)) == set()
    assert codes(labelled(scan_of(torso()[0]), torso()[1])) == set()


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"notes": ("not_ct",)}, {"not_ct"}),
        ({"unit": "grey level"}, {"not_calibrated_hu"}),
        ({"spacing_mm": None}, {"spacing_unknown"}),
        ({"notes": ("lossy_compression",)}, {"lossy_compression"}),
        ({"notes": ("lossy_compression",), "unit": "grey level"}, {"not_calibrated_hu"}),
    ],
)
def test_flags_of_the_scan(changes: dict, flags: set[str]) -> None:
    hu, labels = torso()
    assert codes(labelled(scan_of(hu, **changes), labels)) == flags


@pytest.mark.parametrize("towards", ["feet", "head"])
@pytest.mark.parametrize(("degrees", "flagged"), [(29.9, False), (30.1, True), (90, True)])
def test_non_axial_begins_beyond_the_gantrys_tilt(
    degrees: float, flagged: bool, towards: str
) -> None:
    """Whichever way it is tilted, and of slices that are seen from the head as well."""
    hu, labels = torso()
    angle = np.radians(degrees if towards == "head" else 180 - degrees)
    tilted = replace(AXIAL, column_direction=(0.0, float(np.cos(angle)), float(np.sin(angle))))
    found = codes(labelled(scan_of(hu, orientation=tilted), labels))
    assert ("non_axial" in found) is flagged


# --- of the mask --------------------------------------------------------------------------------


def test_flags_of_the_mask(chest: Phantom) -> None:
    scan = scan_of(chest.hu)
    assert codes(report(scan, np.zeros_like(chest.lungs))) == {"empty_mask", "air_unlabelled"}
    assert "single_lung" in codes(report(scan, chest.right))


@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize(("pixels", "flagged"), [(49, True), (50, False)])
def test_single_lung_begins_below_a_twentieth(side: int, pixels: int, flagged: bool) -> None:
    """Of 1000 pixels, whichever side has the few."""
    labels = np.full((40, 25), RIGHT + LEFT - side)
    labels.flat[:pixels] = side
    shown = np.pad(labels, 10)
    hu = np.where(shown > 0, -850.0, 40.0)
    found = codes(labelled(scan_of(hu, spacing_mm=(1, 1)), shown))
    assert ("single_lung" in found) is flagged
    without = np.where(shown > 0, UNSIDED, 0)
    found = codes(labelled(scan_of(hu, spacing_mm=(1, 1)), without))
    assert "sides_unknown" in found
    assert "single_lung" not in found


def test_touches_border_at_any_of_four_edges() -> None:
    """One pixel of it is enough, and one beside it is not."""
    hu, labels = torso()
    for row, column in ((0, 30), (-1, 30), (30, 0), (30, -1)):
        cut = labels.copy()
        cut[row, column] = RIGHT
        assert "touches_border" in codes(labelled(scan_of(hu), cut))
    for row, column in ((1, 30), (-2, 30), (30, 1), (30, -2)):
        inside = labels.copy()
        inside[row, column] = RIGHT
        assert "touches_border" not in codes(labelled(scan_of(hu), inside))


@pytest.mark.parametrize(
    ("spacing_mm", "pixels", "flagged"),
    [
        ((1.0, 1.0), 299, True),
        ((1.0, 1.0), 300, False),
        ((1.0, 1.0), 60_000, False),
        ((1.0, 1.0), 60_001, True),
        ((0.5, 2.0), 299, True),
        (None, 179, True),
        (None, 180, False),
        (None, 54_000, False),
        (None, 54_001, True),
    ],
)
def test_area_out_of_range_begins_at_its_thresholds(
    spacing_mm: tuple | None, pixels: int, flagged: bool
) -> None:
    """In mm², and as parts of a picture of 90,000 pixels, 0.002 and 0.6."""
    labels = np.zeros((300, 300), np.uint8)
    labels.flat[:pixels] = RIGHT
    hu = np.where(labels > 0, -850.0, 40.0)
    found = codes(labelled(scan_of(hu, spacing_mm=spacing_mm), labels))
    assert ("area_out_of_range" in found) is flagged


@pytest.mark.parametrize(
    ("empty", "confidence", "flagged"),
    [
        (False, (0.9, 0.4, 1.0), False),
        (False, (0.9, 0.401, 1.0), True),
        (True, (None, None, 0.05), False),
        (True, (None, None, 0.051), True),
    ],
)
def test_low_confidence_begins_at_its_thresholds(
    empty: bool, confidence: tuple, flagged: bool
) -> None:
    """Of a mask by its uncertain pixels, of an empty one by the greatest probability."""
    hu, labels = torso()
    names = ("mean_probability", "uncertain_fraction", "max_probability")
    said = Confidence(**dict(zip(names, confidence, strict=True)))
    found = codes(labelled(scan_of(hu), labels * (not empty), said))
    assert ("low_confidence" in found) is flagged
    assert ("empty_mask" in found) is empty


# --- air beside the mask ------------------------------------------------------------------------


def cavity(rows: int, columns: int, level: float = -850.0, side: int = 100) -> np.ndarray:
    """A body of 40 HU with air around it and a hole in it."""
    hu, _ = torso(40.0, side)
    hu[30 : 30 + rows, 30 : 30 + columns] = level
    return hu


@pytest.mark.parametrize(
    ("hu", "spacing_mm", "flagged"),
    [
        (cavity(20, 20), (0.999, 1.0), False),
        (cavity(20, 20), (1.0, 1.001), True),
        (cavity(4, 13, side=127), None, False),  # 395 mm² in a field of 350 mm
        (cavity(6, 9, side=127), None, True),  # 410 mm²
        (cavity(20, 20, -949), (2, 2), True),
        (cavity(20, 20, -950), (2, 2), False),
        (cavity(20, 20, -501), (2, 2), True),
        (cavity(20, 20, -500), (2, 2), False),
        (np.where(cavity(20, 20, -600) == 40, -499, cavity(20, 20, -600)), (2, 2), True),
        (np.where(cavity(20, 20, -600) == 40, -500, cavity(20, 20, -600)), (2, 2), False),
        (cavity(2, 40), (9, 9), False),  # narrower than three cells: a fold
    ],
)
def test_air_unlabelled_begins_at_its_thresholds(
    hu: np.ndarray, spacing_mm: tuple | None, flagged: bool
) -> None:
    """400 mm² of one region, between the densities of gas and of the body."""
    nothing = np.zeros(hu.shape, np.uint8)
    assert ("air_unlabelled" in codes(labelled(scan_of(hu, spacing_mm=spacing_mm), nothing))) is (
        flagged
    )
    grey = scan_of(hu, spacing_mm=spacing_mm, unit="grey level")
    assert "air_unlabelled" not in codes(labelled(grey, nothing))


def test_air_unlabelled_is_one_region_inside_the_body_and_not_beside_the_mask() -> None:
    """Two halves are not added up, air that is open to the outside and an edge are none."""
    two = cavity(16, 20)
    two[60:75, 30:50] = -850
    nothing = np.zeros(two.shape, np.uint8)
    (flag,) = (
        one
        for one in labelled(scan_of(two, spacing_mm=(2, 1)), nothing).quality.flags
        if one.code == "air_unlabelled"
    )
    assert re.findall(r"[\d.]+ ?m?m?²?", flag.message) == ["640 mm²", "38", "40"]
    unknown = labelled(scan_of(two, spacing_mm=None), nothing)
    assert "3.2% of the slice" in str(unknown.quality.flags)
    open_ = cavity(20, 20)
    open_[:31, 40:44] = -850
    assert "air_unlabelled" not in codes(labelled(scan_of(open_, spacing_mm=(2, 2)), nothing))
    hu, labels = torso()
    labels[40:44] = 0  # 480 mm² of each lung, 360 of them not beside the mask
    assert "air_unlabelled" not in codes(labelled(scan_of(hu, spacing_mm=(2, 3)), labels))
    labels[40:45] = 0
    assert "air_unlabelled" in codes(labelled(scan_of(hu, spacing_mm=(2, 3)), labels))


@pytest.mark.parametrize(
    ("level", "spacing_mm", "flagged"),
    [
        (-1000, (0.999, 1.0), False),
        (-1000, (1.0, 1.001), True),
        (-951, (2, 2), True),
        (-950, (2, 2), False),
        (-1000, None, True),
    ],
)
def test_outside_body_begins_at_its_thresholds(
    level: float, spacing_mm: tuple | None, flagged: bool
) -> None:
    """100 mm² of the mask in what is darker than lung and reaches the picture's edge."""
    hu, labels = torso()
    hu[hu == -1000] = level
    labels[4:8, 20:45] = RIGHT
    found = labelled(scan_of(hu, spacing_mm=spacing_mm), labels)
    assert ("outside_body" in codes(found)) is flagged
    if spacing_mm is None:
        assert "1.0% of the slice" in str(found.quality.flags)
    labels[4:8] = 0
    hu[50:60, 20:40] = -1000  # as dark, but within a lung
    assert "outside_body" not in codes(labelled(scan_of(hu, spacing_mm=spacing_mm), labels))


@pytest.mark.parametrize(("level", "flagged"), [(7.9, True), (8.1, False)])
def test_outside_body_of_grey_levels_is_the_dark_around(level: float, flagged: bool) -> None:
    """Up to 0.08 of their range, that of the middle 99%, unless the picture cuts the lung."""
    grey, labels = torso()
    grey = np.where(grey == 40, 100.0, level)
    grey[:5] = 0
    grey[0, :9], grey[0, -9:] = 1000, -1000
    labels[5:9, 20:50] = LEFT
    scan = scan_of(grey, spacing_mm=(1, 1), unit="grey level")
    assert ("outside_body" in codes(labelled(scan, labels))) is flagged
    labels[-1, 50] = LEFT
    assert "outside_body" not in codes(labelled(scan, labels))


# --- of the values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "flagged"), [(-981, True), (-980, False), (-400, False), (-399, True)]
)
def test_a_median_that_no_lung_has(level: float, flagged: bool) -> None:
    hu, labels = torso(level)
    found = codes(labelled(scan_of(hu), labels))
    assert ("intensity_out_of_range" in found) is flagged
    grey = codes(labelled(scan_of(hu, unit="grey level"), labels))
    assert "intensity_out_of_range" not in grey


def mixture(**levels: tuple[float, int]) -> np.ndarray:
    """A slice of 10,000 cells of 2 x 2 pixels, all 40 HU but for some of other levels."""
    cells = np.full(10_000, 40.0)
    place = 0
    for level, count in levels.values():
        cells[place : place + count] = level
        place += count
    return np.kron(cells.reshape(100, 100), np.ones((2, 2)))


PICTURE, DICOM = "image/png", "application/dicom"


@pytest.mark.parametrize(
    ("media_type", "levels", "flagged"),
    [
        # less than a hundredth of body, which begins above -300 HU
        (PICTURE, {"air": (-1000, 9901)}, True),
        (PICTURE, {"air": (-1000, 9900)}, False),
        (DICOM, {"air": (-1000, 9901)}, False),
        (PICTURE, {"air": (-300, 9901)}, True),
        (PICTURE, {"air": (-299, 9901), "lung": (-1000, 99)}, True),
        # less than a hundredth of air
        (PICTURE, {"air": (-1000, 99)}, True),
        (PICTURE, {"air": (-1000, 100)}, False),
        (PICTURE, {"air": (-300, 100)}, False),
        (PICTURE, {"air": (-299, 100)}, True),
        (PICTURE, {"air": (-1000, 99), "fat": (-100, 900)}, True),
        # of DICOM, only where a hundredth of the body is no fat either
        (DICOM, {"air": (-1000, 99)}, True),
        (DICOM, {"fat": (-50, 99)}, True),
        (DICOM, {"fat": (-50, 100)}, False),
        (DICOM, {"fat": (-49, 100)}, True),
        # the median of the body
        (DICOM, {"air": (-1000, 200), "fat": (-250, 9000)}, False),
        (DICOM, {"air": (-1000, 200), "fat": (-251, 9000)}, True),
        (DICOM, {"air": (-1000, 200), "bone": (500, 9000)}, False),
        (DICOM, {"air": (-1000, 200), "bone": (501, 9000)}, True),
        # padding is no air, unless there is fat
        (DICOM, {"padding": (-2000, 200)}, True),
        (DICOM, {"padding": (-2000, 200), "air": (-1000, 99)}, True),
        (DICOM, {"padding": (-2000, 200), "air": (-1000, 100)}, False),
        (DICOM, {"padding": (-2000, 200), "fat": (-50, 100)}, False),
    ],
)
def test_hu_that_lack_air_or_body_are_doubted(
    media_type: str, levels: dict[str, tuple[float, int]], flagged: bool
) -> None:
    """Without a mask, by all that the slice shows: each share and each level at its threshold."""
    values = mixture(**levels)
    scan = scan_of(values, media_type=media_type)
    found = codes(labelled(scan, np.zeros(values.shape, np.uint8)))
    assert ("intensity_out_of_range" in found) is flagged


@pytest.mark.parametrize("lacking", [RIGHT, LEFT])
def test_values_limited_where_a_figure_of_one_lung_is_missing(lacking: int) -> None:
    """Though the other lung and so the whole mask have all figures; grey levels have no such."""
    hu, labels = torso()
    for one in (RIGHT, LEFT):
        hu[labels == one] += np.arange(400) % 97
    padding = (labels == lacking)[None]
    measured = labelled(scan_of(hu, padding=padding), labels)
    assert codes(measured) == {"values_limited"}
    sides = measured.statistics.lungs
    assert (sides.right if lacking == RIGHT else sides.left).density is None
    assert measured.statistics.density is not None
    grey = scan_of(hu, padding=padding, unit="grey level")
    assert codes(labelled(grey, labels)) == {"not_calibrated_hu"}
    one_lung = np.where(labels == lacking, 0, labels)
    assert codes(labelled(scan_of(hu), one_lung)) >= {"single_lung"}
    assert "values_limited" not in codes(labelled(scan_of(hu), one_lung))
    unsided = np.where(labels > 0, UNSIDED, 0)
    assert "values_limited" not in codes(labelled(scan_of(hu), unsided))
    assert "values_limited" in codes(labelled(scan_of(hu, padding=(labels > 0)[None]), unsided))


# --- on the phantom -----------------------------------------------------------------------------


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
