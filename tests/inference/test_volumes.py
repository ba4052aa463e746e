"""Volumes through the stages: slabs in threads, stopped in between, described whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungseg.core.types import LEFT, RIGHT, Orientation, Scan
from lungseg.core.volume import Acquisition, Dropped, Series, Volume
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.model import Model
from lungseg.inference.runner import Runner
from lungseg.inference.session import Engine
from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.pipeline import Pipeline
from lungseg.volumes import VolumePipeline
from tests.standin import write_bundle
from training.synthetic.phantom import make_phantom

SLICES = 19


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return Model.load(models / "standin" / "1", Engine())


@pytest.fixture(scope="module")
def volume() -> Volume:
    """A chest from the bases to the apices, in HU, with bright air around it."""
    planes = [make_phantom((101, 143), seed=1, level=1 - k / SLICES) for k in range(SLICES)]
    values = np.stack([plane.hu for plane in planes])
    lungs = np.stack([plane.lungs for plane in planes])
    values[~lungs] = 60  # all that the stand-in takes for lung is lung
    return Volume(
        scan=Scan(
            values=values.astype(np.int16),
            unit="HU",
            media_type="application/dicom",
            spacing_mm=(2.4, 2.2),
            orientation=Orientation(row_direction=(1, 0, 0), column_direction=(0, 1, 0)),
            positions_mm=np.arange(SLICES)[:, None] * [0.0, 0.0, 12.0] + [-150.0, -120.0, 5.0],
        ),
        acquisition=Acquisition(kernel="B30f", contrast=True),
        series=(
            Series(
                uid="1.2",
                slices=19,
                height=101,
                width=143,
                step_mm=12.0,
                kernel="B30f",
                chosen=True,
            ),
        ),
        dropped=(Dropped(reason="localizer", count=1),),
    )


def slice_of(volume: Scan, index: int) -> Scan:
    part = slice(index, index + 1)
    return replace(volume, values=volume.values[part], positions_mm=volume.positions_mm[part])


def test_slabs_in_threads_are_the_slices_one_after_the_other(model: Model, volume: Volume) -> None:
    """However many threads, each slice has the labels that it gets alone."""
    alone = [Pipeline().find_lungs(slice_of(volume.scan, k), model) for k in range(SLICES)]
    expected = np.concatenate([found.labels for found in alone])
    lung = np.array([found.mask.sum() for found in alone])
    shown = [found.confidence.mean_probability or 0.0 for found in alone]
    for threads in (1, 3):
        sizes: list[int] = []
        pipeline = VolumePipeline(runner=Runner(on_batch=sizes.append), threads=threads)
        found = pipeline.find_lungs(volume.scan, model)
        assert np.array_equal(found.labels, expected)
        mean = found.confidence.mean_probability
        assert mean == pytest.approx((lung @ shown) / lung.sum(), abs=1e-5)
        assert (found.laterality, found.components) == ("dicom_orientation", None)
        assert sorted(sizes) == [3, 8, 8]
        assert found.probability.size == 0
    assert {RIGHT, LEFT} < set(np.unique(expected))


def test_a_coronal_stack_gives_the_same_lungs(model: Model, volume: Volume) -> None:
    scan = volume.scan
    coronal = replace(
        scan,
        values=np.ascontiguousarray(scan.values.transpose(1, 0, 2)[:, ::-1]),
        spacing_mm=(12.0, 2.2),
        orientation=Orientation(row_direction=(1, 0, 0), column_direction=(0, 0, -1)),
        positions_mm=np.arange(101)[:, None] * [0.0, 2.4, 0.0]
        + [-150.0, -120.0, 5.0 + 12 * (SLICES - 1)],
    )
    pipeline = VolumePipeline(runner=Runner())
    axial, turned = (pipeline.segment(replace(volume, scan=one), model) for one in (scan, coronal))
    labels = turned.segmentation.labels
    assert np.array_equal(axial.segmentation.labels, labels[:, ::-1].transpose(1, 0, 2))
    ml = [one.report.statistics.volume_ml for one in (axial, turned)]
    assert ml[0] == pytest.approx(ml[1], rel=1e-6)
    assert turned.describe()["volume"]["acquisition_plane"] == "coronal"


def test_progress_is_heard_after_each_slab_and_may_end_the_work(
    model: Model, volume: Volume
) -> None:
    heard: list[tuple[str, int, int]] = []
    pipeline = VolumePipeline(runner=Runner())
    pipeline.segment(volume, model, progress=lambda *said: heard.append(said))
    assert heard == [("segment", 8, 19), ("segment", 16, 19), ("segment", 19, 19)]

    def leave(_stage: str, _done: int, _total: int) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        pipeline.segment(volume, model, progress=leave)


def test_a_caller_who_leaves_ends_the_work_at_the_next_slab(model: Model, volume: Volume) -> None:
    deadline, sizes = Deadline.after(60), []

    def once(size: int) -> None:
        sizes.append(size)
        deadline.give_up()

    pipeline = VolumePipeline(runner=Runner(on_batch=once))
    with pytest.raises(DeadlineExceeded):
        pipeline.segment(volume, model, watch=Stopwatch(deadline))
    assert sizes == [8]


def test_times_of_all_threads_are_told(model: Model, volume: Volume) -> None:
    watch = Stopwatch()
    VolumePipeline(runner=Runner(), threads=2).segment(volume, model, watch=watch)
    stages = {"fit", "inference", "restore", "label", "settle", "measure"}
    assert set(watch.spent_ms) == stages
    assert min(watch.spent_ms.values()) > 0


def test_the_answer_says_what_was_sent_and_what_was_found(model: Model, volume: Volume) -> None:
    answer = VolumePipeline(runner=Runner()).segment(volume, model).describe()
    json.dumps(answer, allow_nan=False)
    assert list(answer) == [
        "model", "volume", "statistics", "acquisition", "confidence", "quality"
    ]  # fmt: skip
    said = answer["volume"]
    assert (said["slices"], said["height"], said["width"]) == (19, 101, 143)
    assert said["spacing_mm"] == [12.0, 2.4, 2.2]
    assert said["acquisition_plane"] == "axial"
    bead = np.array(said["affine_lps"]) @ [3, 10, 20, 1]  # slice, row, column
    assert bead[:3] == pytest.approx([-150 + 20 * 2.2, -120 + 10 * 2.4, 5 + 3 * 12])
    assert said["series"][0]["chosen"] is True
    assert said["dropped"] == [{"reason": "localizer", "count": 1}]
    assert answer["acquisition"]["date"] is None
    assert answer["acquisition"]["kernel"] == "B30f"
    assert answer["statistics"]["volume_ml"] > 0
    gaps = replace(volume.scan, positions_mm=volume.scan.positions_mm.copy())
    gaps.positions_mm[10:, 2] += 24
    holed = VolumePipeline(runner=Runner()).segment(replace(volume, scan=gaps), model).describe()
    assert holed["volume"]["affine_lps"] is None  # no one matrix places these slices


def test_a_threshold_and_no_rule_of_slices(tmp_path: Path, volume: Volume) -> None:
    """A caller's threshold holds; how many regions a slice keeps is no rule of volumes."""
    bundle = write_bundle(tmp_path, mask={"threshold": 0.6, "largest_components": 1})
    strict = Model.load(bundle, Engine())
    pipeline = VolumePipeline(runner=Runner())
    found = pipeline.find_lungs(volume.scan, strict)
    assert found.threshold == 0.6
    assert {RIGHT, LEFT} < set(np.unique(found.labels))
    asked = pipeline.find_lungs(volume.scan, strict, threshold=0.2)
    assert asked.threshold == 0.2
    assert np.count_nonzero(asked.labels) > np.count_nonzero(found.labels)
