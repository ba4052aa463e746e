"""The stages in their one order, on scans of several slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungseg.core.types import Orientation, Scan
from lungseg.inference.model import Model
from lungseg.inference.runner import Runner
from lungseg.inference.session import Engine
from lungseg.pipeline import Pipeline
from lungseg.query import SegmentQuery
from tests.standin import write_bundle
from training.synthetic.phantom import make_phantom

SLICES = 19
AXIAL = Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0))


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return Model.load(models / "standin" / "1", Engine())


@pytest.fixture(scope="module")
def volume() -> Scan:
    """A stack of slices that all differ, in HU."""
    planes = [make_phantom((101, 143), seed=seed).hu for seed in range(SLICES)]
    return Scan(
        values=np.stack(planes).astype(np.int16),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(0.8, 0.8),
        orientation=AXIAL,
        positions_mm=np.arange(SLICES)[:, None] * [0.0, 0.0, 2.5],
    )


def slice_of(volume: Scan, index: int) -> Scan:
    part = slice(index, index + 1)
    return replace(volume, values=volume.values[part], positions_mm=volume.positions_mm[part])


def test_a_volume_is_its_slices(model: Model, volume: Scan) -> None:
    """Each slice of a volume gets the labels that it gets alone."""
    pipeline = Pipeline()
    whole = pipeline.find_lungs(volume, model)
    assert whole.labels.shape == volume.values.shape
    assert whole.components is None
    for index in range(SLICES):
        alone = pipeline.find_lungs(slice_of(volume, index), model)
        assert np.array_equal(whole.labels[index], alone.labels[0])
        assert alone.probability.shape == (1, 101, 143)
    assert whole.mask.any()


def test_the_network_sees_a_slab_at_a_time(model: Model, volume: Scan) -> None:
    """So the memory of a volume does not grow with its slices, and no probability is kept."""
    sizes: list[int] = []
    whole = Pipeline(runner=Runner(on_batch=sizes.append)).find_lungs(volume, model)
    assert sizes == [8, 8, 3]
    assert whole.probability.size == 0


def test_a_coronal_stack_is_segmented_in_axial_slices(model: Model, volume: Scan) -> None:
    """The same patient stored as coronal planes gets the same lungs, voxel for voxel."""
    coronal = replace(
        volume,
        values=volume.values.transpose(1, 0, 2)[:, ::-1],  # slices to the back, rows to the feet
        spacing_mm=(2.5, 0.8),
        orientation=Orientation(row_direction=(1, 0, 0), column_direction=(0, 0, -1)),
        positions_mm=np.arange(101)[:, None] * [0.0, 0.8, 0.0] + [0, 0, 2.5 * (SLICES - 1)],
    )
    expected, found = (Pipeline().find_lungs(scan, model) for scan in (volume, coronal))
    assert np.array_equal(found.labels, expected.labels.transpose(1, 0, 2)[:, ::-1])
    assert found.confidence == expected.confidence


def test_confidence_of_a_volume_is_that_of_all_its_pixels(model: Model, volume: Scan) -> None:
    pipeline = Pipeline()
    parts = [pipeline.find_lungs(slice_of(volume, index), model) for index in range(SLICES)]
    lung = np.array([part.mask.sum() for part in parts])
    means = np.array([part.confidence.mean_probability for part in parts])
    whole = pipeline.find_lungs(volume, model)
    assert whole.confidence.mean_probability == pytest.approx((means * lung).sum() / lung.sum())


def test_the_rule_of_the_bundle_holds_unless_a_caller_asks_otherwise(tmp_path: Path) -> None:
    """Threshold and regions, either by itself; 0 regions is a wish, too."""
    rule = {"threshold": 0.6, "largest_components": 1}
    bundle = write_bundle(tmp_path, mask=rule, intensity={"window_hu": [0, 255]})
    strict = Model.load(bundle, Engine())
    values = np.full((1, 256, 256), 255, np.int16)
    values[0, 20:80, 20:80], values[0, 120:240, 120:240] = 70, 68  # 0.5 and 0.55
    values[0, 20:60, 150:200], values[0, 140:220, 140:220] = 40, 40  # 0.95
    scan = Scan(values=values, unit="HU", media_type="application/x-npy")
    middles = [(50, 50), (40, 175), (130, 180), (180, 180)]

    def found(**asked: float) -> list[bool]:
        labels = Pipeline().find_lungs(scan, strict, SegmentQuery(**asked))
        assert labels.threshold == asked.get("threshold", 0.6)
        return [bool(labels.labels[0, row, column]) for row, column in middles]

    assert found() == [False, False, False, True]
    assert found(largest_components=0) == [False, True, False, True]
    assert found(largest_components=2) == [False, True, False, True]
    assert found(threshold=0.54, largest_components=0) == [False, True, True, True]
    assert found(threshold=0.5, largest_components=0) == [True] * 4  # exactly 0.5 is lung
    assert found(threshold=0.501, largest_components=0) == [False, True, True, True]
    assert found(threshold=0.54) == [False, False, True, True]
