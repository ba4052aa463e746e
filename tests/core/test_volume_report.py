"""Measures of volumes: ml of ellipsoids whatever the stack, and a second implementation."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from lungseg.core.figures import rounded
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.core.volume import Volume
from lungseg.core.volume_measures import VolumeStatistics
from lungseg.core.volume_report import measure_volume
from tests.core.ellipsoids import AXIAL, CORONAL, DEEPER_HU, LUNG_HU, ML, SAGITTAL, cut, segmented

EVEN = np.arange(-120.0, 121.0, 4.0)
OBLIQUE = ((np.cos(0.3), 0.0, np.sin(0.3)), (0.0, 1.0, 0.0))
FEET_FIRST = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
STACKS = {
    "axial": {},
    "thin": {"distances": np.arange(-120, 121, 1.0), "spacing": (3.0, 3.0)},
    "from the head down": {"axes": FEET_FIRST},
    "coronal": {"axes": CORONAL},
    "sagittal": {"axes": SAGITTAL, "distances": np.arange(-150.0, 151.0, 4.0)},
    "oblique": {"axes": OBLIQUE, "distances": np.arange(-160.0, 161.0, 4.0)},
    "tilted by 15 degrees": {"shear": np.tan(np.radians(15))},
    "4 mm, then 6 mm": {"distances": np.r_[np.arange(-120, 1, 4.0), np.arange(6, 121, 6.0)]},
    "coronal, 4 mm, then 6 mm": {
        "axes": CORONAL,
        "distances": np.r_[np.arange(-120, 1, 4.0), np.arange(6, 121, 6.0)],
    },
}


def statistics(volume: Volume, segmentation: object) -> VolumeStatistics:
    return measure_volume(volume, segmentation).statistics


@pytest.mark.parametrize("stack", STACKS)
def test_ml_of_ellipsoids_in_any_stack(stack: str) -> None:
    """To 0.3% of the formula, each lung for itself, and thirds that make the lung."""
    measured = statistics(*cut(**STACKS[stack]))
    assert measured.lungs.right.volume_ml == pytest.approx(ML[RIGHT], rel=3e-3)
    assert measured.lungs.left.volume_ml == pytest.approx(ML[LEFT], rel=3e-3)
    assert measured.volume_ml == pytest.approx(ML[RIGHT] + ML[LEFT], rel=3e-3)
    assert measured.right_left_ratio == pytest.approx(ML[RIGHT] / ML[LEFT], rel=6e-3)
    for side, ml in ((measured.thirds.right, ML[RIGHT]), (measured.thirds.left, ML[LEFT])):
        parts = [side.lower, side.middle, side.upper]
        assert sum(part.volume_ml for part in parts) == pytest.approx(ml, rel=3e-3)
        assert [part.volume_ml / ml for part in parts] == pytest.approx([1 / 3] * 3, rel=0.08)
        # denser below the middle of the body, whichever way the stack runs
        assert side.lower.intensity.median > side.upper.intensity.median + DEEPER_HU / 2


def test_ml_with_ten_slices_missing() -> None:
    """To 2%: their neighbours stand for them, in figures of the intensities too."""
    whole = statistics(*cut())
    kept = np.delete(EVEN, np.arange(25, 35))
    holed = statistics(*cut(kept))
    assert holed.volume_ml == pytest.approx(whole.volume_ml, rel=0.02)
    assert holed.mass_g == pytest.approx(whole.mass_g, rel=0.02)
    assert holed.intensity.mean == pytest.approx(whole.intensity.mean, abs=1)
    plain = np.concatenate([[LUNG_HU[RIGHT]], [LUNG_HU[LEFT]]]).mean() + DEEPER_HU / 2
    assert whole.intensity.mean == pytest.approx(plain, abs=4)


def test_a_second_implementation_agrees_on_every_figure() -> None:
    """All lung, each lung and each third, of noisy values in planes of different heights."""
    volume, truth = cut(np.r_[-60:61:10.0, 80.0, 100.0], spacing=(6.0, 5.0), noise=300)
    labels = truth.labels.copy()
    labels[3, 20:24, 20:30] = UNSIDED
    volume.scan.values[labels == UNSIDED] = -700
    measured = statistics(volume, segmented(labels))
    heights = np.full(len(labels), 10.0)
    heights[-3:] = [15, 20, 10]
    repeats = (heights / 5).astype(int)
    values = volume.scan.values

    def check(region: object, mask: np.ndarray) -> None:
        inside = np.repeat(values, repeats, axis=0)[np.repeat(mask, repeats, axis=0)].astype(float)
        assert region.voxels == mask.sum()
        ml = (mask.sum(axis=(1, 2)) * heights).sum() * 30 / 1000
        assert region.volume_ml == rounded(ml)
        found = asdict(region.intensity)
        assert found.pop("unit") == "HU"
        percents = {"min": 0, "p5": 5, "p15": 15, "median": 50, "p95": 95, "max": 100}
        expected = {name: stats.scoreatpercentile(inside, at) for name, at in percents.items()}
        expected |= {"mean": inside.mean(), "std": inside.std()}
        assert found == pytest.approx(expected, abs=1e-4)
        expected = {f"laa_{level}": (inside < -level).mean() for level in (950, 910, 856)}
        expected |= {f"haa_{level}": (inside > -level).mean() for level in (700, 600, 250)}
        expected["perc15"] = found["p15"]
        assert asdict(region.density) == pytest.approx(expected, abs=1e-6)
        grams = np.interp(inside, [-1000, -98], [0.00121, 0.93]).mean()  # none is above -98 HU
        assert region.mass_g == pytest.approx(ml * grams, rel=1e-6)

    check(measured, labels > 0)
    for name, side in (("right", RIGHT), ("left", LEFT)):
        lung = labels == side
        check(getattr(measured.lungs, name), lung)
        amounts = lung.sum(axis=(1, 2)) * heights
        middle = (np.cumsum(amounts) - amounts / 2) / amounts.sum()
        for number, third in enumerate(("lower", "middle", "upper")):
            inside = (middle >= number / 3) & (middle < (number + 1) / 3)
            part = getattr(getattr(measured.thirds, name), third)
            check(part, lung & inside[:, None, None])


def test_mass_follows_the_densities_of_tissue() -> None:
    """Air, lung, fat, water, muscle and bone, on the lines of the Chest Imaging Platform."""
    volume, truth = cut(noise=250)  # values that vary were not clipped
    known = {-1200: 0.00121, -1000: 0.00121, -549: 0.465605, -98: 0.93}
    known |= {0: 1.018, 60: 1.07314, 200: 1.1354}
    for hu, grams in known.items():
        values = np.where(truth.labels > 0, np.int16(hu), volume.scan.values)
        found = statistics(Volume(scan=replace(volume.scan, values=values)), truth)
        assert found.mass_g == pytest.approx(found.volume_ml * grams, rel=1e-5)


def test_the_profile_runs_from_the_feet_to_the_head() -> None:
    """At the patient's z of each plane, with each lung's area and the lung's own figures."""
    expected = None
    for axes in (AXIAL, FEET_FIRST):
        volume, truth = cut(axes=axes)
        profile = statistics(volume, truth).profile
        positions = np.array(profile.position_mm)
        assert np.allclose(positions, EVEN)
        radii = np.clip(1 - ((EVEN + 4) / 101) ** 2, 0, None)
        assert np.allclose(profile.area_mm2.right, np.pi * 52 * 75 * radii, atol=150)
        means = np.array([np.nan if mean is None else mean for mean in profile.mean_hu])
        assert np.nanmax(means[EVEN > 0]) < np.nanmin(means[EVEN < 0])
        assert profile.mean_hu[0] is profile.laa_950[0] is None
        assert {share for share in profile.laa_950 if share is not None} == {0.0}
        expected = expected or profile
        assert profile == expected
    coronal = statistics(*cut(axes=CORONAL, spacing=(4.0, 2.5))).profile
    assert np.allclose(coronal.position_mm, np.arange(-168.0, 169.0, 4.0))
    areas = dict(zip(coronal.position_mm, coronal.area_mm2.left, strict=True))
    assert areas[0] == pytest.approx(np.pi * 45 * 70, rel=0.01)


def test_what_is_unknown_is_none_and_everything_is_json() -> None:
    volume, truth = cut(noise=5)
    scan = volume.scan

    def of(**changes: object) -> VolumeStatistics:
        report = measure_volume(Volume(scan=replace(scan, **changes)), truth)
        json.dumps(asdict(report), allow_nan=False)
        return report.statistics

    bare = of(spacing_mm=None)
    assert bare.volume_ml is bare.mass_g is bare.profile.area_mm2.right is None
    assert bare.right_left_ratio == pytest.approx(ML[RIGHT] / ML[LEFT], rel=6e-3)
    assert bare.thirds.right.lower.voxels > 0
    unplaced = of(positions_mm=None, orientation=None)
    assert unplaced.volume_ml is unplaced.profile.position_mm is unplaced.thirds is None
    assert unplaced.profile.area_mm2.right[30] > 0
    grey = of(unit="grey level")
    assert grey.density is grey.mass_g is None
    assert set(grey.profile.mean_hu) == set(grey.profile.laa_950) == {None}
    assert grey.volume_ml == of().volume_ml
    unsided = statistics(volume, segmented(np.minimum(truth.labels, 1) * UNSIDED, sided=False))
    assert unsided.lungs.right is unsided.thirds is unsided.right_left_ratio is None
    assert unsided.volume_ml == pytest.approx(of().volume_ml)
    empty = statistics(volume, segmented(np.zeros_like(truth.labels)))
    assert (empty.voxels, empty.volume_ml, empty.mass_g, empty.density) == (0, 0.0, 0.0, None)
    assert empty.thirds.right is None
    json.dumps(asdict(empty), allow_nan=False)


def test_padding_inside_the_mask_counts_to_the_size_alone() -> None:
    volume, truth = cut(noise=20)
    values = volume.scan.values.copy()
    part = np.s_[30, 70:80, 40:45]
    assert (truth.labels[part] > 0).all()
    values[part] = -2000
    padded = statistics(Volume(scan=replace(volume.scan, values=values)), truth)
    plain = statistics(volume, truth)
    assert padded.volume_ml == plain.volume_ml
    assert padded.intensity.min == plain.intensity.min > -1000
    told = np.zeros(values.shape, bool)
    told[part] = True
    values[part] = -1000
    padded = statistics(Volume(scan=replace(volume.scan, values=values, padding=told)), truth)
    assert padded.intensity.min == plain.intensity.min


def test_values_between_whole_numbers_are_counted_finely() -> None:
    """Of slopes that are no whole numbers: as percentiles of the values to a thirty-second."""
    volume, truth = cut(noise=200)
    values = volume.scan.values.astype(np.float32) * np.float32(1.0123) + np.float32(0.37)
    measured = statistics(Volume(scan=replace(volume.scan, values=values)), truth)
    inside = values[truth.labels > 0].astype(np.float64)
    assert measured.intensity.median == pytest.approx(np.median(inside), abs=1 / 32)
    assert measured.intensity.mean == pytest.approx(inside.mean(), abs=1e-3)
    whole = volume.scan.values.astype(np.float32)
    exact = statistics(Volume(scan=replace(volume.scan, values=whole)), truth)
    assert exact == statistics(volume, truth)
