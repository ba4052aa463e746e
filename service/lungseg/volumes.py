"""Volumes through the stages: read → fit → infer → restore → label by slabs, then settle → measure.

What a volume takes beside its values is its labels, and what the slabs in work need: probabilities
are never there as a whole. Like the pipeline it is called from any thread, and knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lungseg.core.axial import AxialPlanes
from lungseg.core.errors import UndecodableImage
from lungseg.core.geometry import even_affine, step_mm
from lungseg.core.postprocess import Certainty, cut, restore
from lungseg.core.preprocess import fit
from lungseg.core.sides import label_planes
from lungseg.core.soft_tissue import take_out_tissue
from lungseg.core.solid import settle
from lungseg.core.types import BoolArray, FloatArray, LabelArray, Scan, Segmentation
from lungseg.core.volume import Progress, Volume, VolumeLimits, silent
from lungseg.core.volume_report import VolumeReport, measure_volume
from lungseg.formats.archive import Member
from lungseg.formats.decoder_wire import CodedFrame
from lungseg.formats.decoders import Decoders, shared_decoders
from lungseg.formats.volume import read_volume
from lungseg.inference.model import Model
from lungseg.inference.runner import Runner
from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.pipeline import members
from lungseg.query import UNITS
from lungseg.volume_query import VolumeQuery

SLAB_SLICES = 8
"""Slices that pass the network at a time, in each thread."""
AS_THE_MODEL_SAYS = VolumeQuery()
PLANE_NAMES = ("sagittal", "coronal", "axial")
"""By the patient's axis, x, y or z, that a stack of such planes runs along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOutcome:
    """A volume with everything that was found in it."""

    model: Model
    volume: Volume
    segmentation: Segmentation
    report: VolumeReport
    query: VolumeQuery

    def describe(self) -> dict[str, Any]:
        """The JSON answer without request id and timings."""
        report: dict[str, Any] = members(self.report)
        return {
            "model": self.model.contract.model_dump(include={"name", "version", "sha256"}),
            "volume": _described(self.volume),
            "statistics": report["statistics"],
            "acquisition": {**members(self.volume.acquisition), "date": None},
            "confidence": report["confidence"],
            "quality": report["quality"],
        }


def _described(volume: Volume) -> dict[str, Any]:
    scan, step = volume.scan, step_mm(volume.scan)
    affine = even_affine(scan) if volume.affine is None else volume.affine
    plane = None
    if scan.orientation is not None:
        plane = PLANE_NAMES[int(np.abs(scan.orientation.normal).argmax())]
    return {
        "slices": len(scan.values),
        "height": scan.size[0],
        "width": scan.size[1],
        "media_type": scan.media_type,
        "intensity_unit": scan.unit,
        "spacing_mm": None if scan.spacing_mm is None else [step, *scan.spacing_mm],
        "affine_lps": None if affine is None else affine.tolist(),
        "acquisition_plane": plane,
        "series": members(volume.series),
        "dropped": members(volume.dropped),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePipeline:
    """All stages from bytes to measurements, bound to what is accepted and to what runs arrays.

    Attributes:
        runner: joins arrays of several callers, or runs each alone.
        threads: slices that are decoded, and slabs that are in work, at a time.
        limits: what a volume may be.
        decoders: processes that decode compressed DICOM.
    """

    runner: Runner = field(default_factory=Runner)
    threads: int = 1
    limits: VolumeLimits = field(default_factory=VolumeLimits)
    decoders: Decoders = field(default_factory=shared_decoders)

    def read(
        self,
        files: Sequence[Member | bytes | memoryview],
        query: VolumeQuery = AS_THE_MODEL_SAYS,
        *,
        watch: Stopwatch | None = None,
        progress: Progress = silent,
    ) -> Volume:
        """Reads the one volume of some files that is meant; the watch says when to stop.

        Args:
            files: one, or the instances of a series; they can go when this returns.
            query: which volume is meant, and what its values are.
            watch: hears the time that it takes.
            progress: hears ("read", files done, files in all) and ("decode", slices done, all).

        Raises:
            LungsegError: see ``read_volume``.
            DeadlineExceeded: the time is used up, or nobody waits any more.
        """
        watch = watch or Stopwatch()
        deadline = watch.deadline or Deadline.never()

        def heard(stage: str, done: int, total: int) -> None:
            deadline.check()
            progress(stage, done, total)

        def decoded(frame: CodedFrame) -> bytearray:
            return self.decoders.decode(frame, deadline.remaining_s)

        with watch.stage("decode"):
            try:
                return read_volume(
                    files,
                    limits=self.limits,
                    series=query.series,
                    volume=query.volume,
                    unit=UNITS[query.unit] if query.unit else None,
                    spacing_mm=query.spacing_mm,
                    decode=decoded,
                    threads=self.threads,
                    progress=heard,
                )
            except UndecodableImage:
                deadline.check()  # a decoder that got no time says nothing of the files
                raise

    def segment(
        self,
        volume: Volume,
        model: Model,
        query: VolumeQuery = AS_THE_MODEL_SAYS,
        *,
        watch: Stopwatch | None = None,
        progress: Progress = silent,
    ) -> VolumeOutcome:
        """Segments and measures a volume; the watch says when to stop.

        Args:
            volume: what was read.
            model: which model.
            query: where lung begins, and what will be written.
            watch: hears the time of each stage, of all threads together.
            progress: hears ("segment", slices done, slices in all) as slabs are ready.

        Raises:
            DeadlineExceeded: the time is used up, or nobody waits any more.
        """
        watch = watch or Stopwatch()
        found = self.find_lungs(
            volume.scan, model, threshold=query.threshold, watch=watch, progress=progress
        )
        with watch.stage("measure"):
            report = measure_volume(volume, found)
        return VolumeOutcome(
            model=model, volume=volume, segmentation=found, report=report, query=query
        )

    def find_lungs(
        self,
        scan: Scan,
        model: Model,
        *,
        threshold: float | None = None,
        watch: Stopwatch | None = None,
        progress: Progress = silent,
    ) -> Segmentation:
        """Labels the lungs of a scan, plane by plane of its usual view and then over all of it.

        The rule of the model on the number of regions is one of single slices: apices and bases
        have as many as they have, and what is no lung goes by its place in the volume.
        """
        watch = watch or Stopwatch()
        work = _Work(
            planes=AxialPlanes.of(scan),
            labels=np.zeros(scan.values.shape, np.uint8),
            model=model,
            runner=self.runner,
            threshold=threshold or model.contract.mask.threshold,
        )
        certainty = Certainty()
        done, total = 0, len(work.planes)
        parts = [slice(start, start + SLAB_SLICES) for start in range(0, total, SLAB_SLICES)]
        with self._in_threads(work, parts, watch) as results:
            for counted, own in results:
                certainty += counted
                for stage, spent_ms in own.spent_ms.items():
                    watch.add(stage, spent_ms)
                done = min(done + SLAB_SLICES, total)
                progress("segment", done, total)
        with watch.stage("settle"):
            sided = work.settle()
        return Segmentation(
            labels=work.labels,
            threshold=work.threshold,
            laterality=work.planes.view.laterality if sided else None,
            components=None,
            confidence=certainty.confidence,
            probability=np.zeros((0, *scan.size), np.float32),
        )

    @contextmanager
    def _in_threads(
        self, work: _Work, parts: list[slice], watch: Stopwatch
    ) -> Generator[Iterator[tuple[Certainty, Stopwatch]]]:
        """Slabs in their order; those that were not begun are dropped where one fails."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="lungseg-slab")
        try:
            waiting: list[Future[tuple[Certainty, Stopwatch]]] = [
                pool.submit(work.slab, part, Stopwatch(watch.deadline)) for part in parts
            ]
            yield (future.result() for future in waiting)
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A scan on its way through the network; threads write the labels of their own planes."""

    planes: AxialPlanes
    labels: LabelArray
    """In the scan's order."""
    model: Model
    runner: Runner
    threshold: float

    def slab(self, part: slice, watch: Stopwatch) -> tuple[Certainty, Stopwatch]:
        """Labels some planes, each by itself."""
        scan, view, contract = self.planes.scan, self.planes.view, self.model.contract
        with watch.stage("fit"):
            fitted = fit(scan, self.model.grid_size, contract.intensity, part, contract.grid)
        output = self.runner.infer(self.model, fitted.grey, watch)
        with watch.stage("restore"):
            probability = restore(output, fitted.placement)
            mask = cut(probability, threshold=self.threshold, largest_components=0)
            self._take_out_tissue(mask, probability, part)
            certainty = Certainty.of(probability, mask)
        with watch.stage("label"):
            view.apply(self.labels)[part] = label_planes(mask, scan, view, part).labels
        return certainty, watch

    def _take_out_tissue(self, mask: BoolArray, probability: FloatArray, part: slice) -> None:
        if self.planes.scan.unit != "HU":
            return
        values = self.planes.view.apply(self.planes.scan.values)[part]
        for plane in zip(mask, probability, values, strict=True):
            take_out_tissue(*plane, self.planes.spacing_mm)

    def settle(self) -> bool:
        """Makes the planes agree; returns whether sides are known."""
        return settle(self.planes.view.apply(self.labels), self.planes.likely_heights_mm)
