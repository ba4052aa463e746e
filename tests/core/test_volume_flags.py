"""Flags of volumes: each by a volume that deserves it, none by one that does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungseg.core.types import LEFT, RIGHT, UNSIDED, Confidence, Segmentation
from lungseg.core.volume import Volume
from lungseg.core.volume_quality import LEAST_CUT_MM2, NOTED, VOLUME_CODES
from lungseg.core.volume_report import measure_volume
from tests.core.ellipsoids import CORONAL, SAGITTAL, cut, segmented


def flags(volume: Volume, segmentation: Segmentation) -> dict[str, str]:
    found = measure_volume(volume, segmentation).quality.flags
    assert {flag.code for flag in found} <= set(VOLUME_CODES)
    return {flag.code: flag.message for flag in found}


def changed(volume: Volume, **changes: object) -> Volume:
    return replace(volume, scan=replace(volume.scan, **changes))


@pytest.mark.parametrize("axes", [None, CORONAL, SAGITTAL])
def test_a_whole_chest_has_no_flag(axes: tuple | None) -> None:
    stack = {} if axes is None else {"axes": axes, "distances": np.arange(-168.0, 169.0, 4.0)}
    assert flags(*cut(noise=20, **stack)) == {}


def test_what_the_reader_noted_is_said() -> None:
    volume, truth = cut(noise=20, notes=(*NOTED, "intensity_offset_suspect", "padding_guessed"))
    assert set(flags(volume, truth)) == {*NOTED, "intensity_offset_suspect"}


def test_missing_slices_are_placed() -> None:
    """By their neighbours' positions, three gaps at most by name."""
    kept = np.arange(-120.0, 121.0, 4.0)
    kept = np.delete(kept, [5, 20, 21, 40, 50, 55])
    volume, truth = cut(kept, noise=20, notes=("missing_slices",))
    message = flags(volume, truth)["missing_slices"]
    assert "-104.0 to -96.0 mm, -44.0 to -32.0 mm, 36.0 to 44.0 mm and 2 more" in message


def test_lung_at_the_ends_of_the_stack() -> None:
    """Each end by itself, by its area; a little lung in the last plane is no cut."""
    volume, truth = cut(np.arange(-60.0, 121.0, 4.0), noise=20)
    assert set(flags(volume, truth)) == {"incomplete_base"}
    assert "cm² of lung" in flags(volume, truth)["incomplete_base"]
    volume, truth = cut(np.arange(-120.0, 61.0, 4.0), noise=20)
    assert set(flags(volume, truth)) == {"incomplete_apex"}
    down, turned = cut(np.arange(-120.0, 61.0, 4.0), ((-1.0, 0, 0), (0, 1.0, 0)), noise=20)
    assert set(flags(down, turned)) == {"incomplete_base"}
    volume, truth = cut(noise=20)
    labels = truth.labels.copy()
    pixels = int(LEAST_CUT_MM2 / 7.5)
    volume.scan.values[-1, 60:62, 60:80] = -860
    labels[-1, 60, 60 : 60 + pixels] = LEFT
    assert flags(volume, segmented(labels)) == {}
    labels[-1, 61, 60] = LEFT
    assert set(flags(volume, segmented(labels))) == {"incomplete_apex"}


def test_masks_that_are_odd() -> None:
    volume, truth = cut(noise=20)
    none = segmented(np.zeros_like(truth.labels))
    assert set(flags(volume, none)) == {"empty_mask", "air_unlabelled"}
    one = segmented(np.where(truth.labels == LEFT, LEFT, 0).astype(np.uint8))
    assert set(flags(volume, one)) == {"single_lung", "air_unlabelled"}
    unsided = segmented(np.minimum(truth.labels, 1) * np.uint8(UNSIDED), sided=False)
    assert set(flags(volume, unsided)) == {"sides_unknown"}
    labels = truth.labels.copy()
    labels[20:40, 40:60, 0] = RIGHT
    touching = flags(volume, segmented(labels))
    assert set(touching) == {"touches_border", "outside_body", "values_limited"}
    assert touching["outside_body"].endswith("about 24 ml")


def test_air_that_is_left_out_is_measured_and_placed() -> None:
    """In ml, in the largest plane; far below the lungs it is the bowel's."""
    volume, truth = cut(np.arange(-260.0, 121.0, 4.0), noise=20)
    left_out = np.zeros_like(truth.labels, bool)
    left_out[60:70, 50:70, 35:55] = truth.labels[60:70, 50:70, 35:55] > 0
    labels = np.where(left_out, 0, truth.labels)
    message = flags(volume, segmented(labels))["air_unlabelled"]
    said_ml = float(message.split("about ")[1].split(" ml")[0])
    assert 0.5 < said_ml / (left_out.sum() * 7.5 * 4 / 1000) < 1  # without its rim
    assert "column 4" in message
    bowel = volume.scan.values.copy()
    bowel[5:15, 50:70, 60:80] = -700
    assert flags(changed(volume, values=bowel), truth) == {}


def test_values_that_are_odd() -> None:
    volume, truth = cut(noise=20)
    scan = volume.scan
    grey = flags(changed(volume, unit="grey level"), truth)
    assert set(grey) == {"not_calibrated_hu"}
    shifted = flags(changed(volume, values=scan.values + np.int16(1024)), truth)
    assert {"intensity_offset_suspect", "intensity_out_of_range"} <= set(shifted)
    clipped = flags(changed(volume, values=np.maximum(scan.values, np.int16(-870))), truth)
    assert "values_limited" in clipped
    lossy = flags(changed(volume, notes=("lossy_compression",)), truth)
    assert set(lossy) == {"lossy_compression"}


def test_sizes_and_confidence_that_are_odd() -> None:
    volume, truth = cut(noise=20)
    small = flags(changed(volume, spacing_mm=(1.5, 1.2)), truth)
    assert "volume_out_of_range" in small
    unknown = flags(changed(volume, spacing_mm=None), truth)
    assert set(unknown) == {"spacing_unknown"}
    unsure = Confidence(mean_probability=0.7, uncertain_fraction=0.5, max_probability=1.0)
    assert set(flags(volume, replace(truth, confidence=unsure))) == {"low_confidence"}


def test_oblique_stacks_are_off_the_axial_plane() -> None:
    for degrees, expected in ((29, set()), (31, {"non_axial"})):
        angle = np.radians(degrees)
        axes = ((np.cos(angle), 0.0, np.sin(angle)), (0.0, 1.0, 0.0))
        volume, truth = cut(np.arange(-180.0, 181.0, 4.0), axes, noise=20)
        assert set(flags(volume, truth)) - {"touches_border"} == expected
