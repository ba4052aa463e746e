"""The one order of stages: decode → fit → infer → restore → label → measure.

Called by the web surfaces, the library, the command line, training's evaluation and the
benchmark alike, from any thread; nobody else repeats it, and nothing here knows HTTP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial
from typing import Any

from lungseg.core.errors import UndecodableImage
from lungseg.core.orientation import usual_view
from lungseg.core.postprocess import Certainty, cut, restore
from lungseg.core.preprocess import fit
from lungseg.core.report import Report, measure
from lungseg.core.sides import label_lungs
from lungseg.core.types import FloatArray, Scan, Segmentation
from lungseg.formats.decoders import Decoders, shared_decoders
from lungseg.formats.read import MAX_PIXELS, read_scan
from lungseg.inference.model import Model
from lungseg.inference.runner import Runner
from lungseg.inference.timing import Stopwatch
from lungseg.query import UNITS, SegmentQuery

AS_THE_MODEL_SAYS = SegmentQuery()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A slice with everything that was found in it, and the file it came from."""

    content: bytes
    model: Model
    query: SegmentQuery
    scan: Scan
    segmentation: Segmentation
    report: Report

    def describe(self) -> dict[str, Any]:
        """The JSON answer without mask, request id and timings."""
        height, width = self.scan.size
        affine = self.scan.affine
        report: dict[str, Any] = members(self.report)
        return {
            "model": self.model.contract.model_dump(include={"name", "version", "sha256"}),
            "image": {
                "width": width,
                "height": height,
                "media_type": self.scan.media_type,
                "intensity_unit": self.scan.unit,
                "spacing_mm": self.scan.spacing_mm and list(self.scan.spacing_mm),
                "affine_lps": None if affine is None else affine.tolist(),
            },
            **report,
        }


def members(value: Any) -> Any:
    """As ``dataclasses.asdict`` without its deep copies, which frozen values do not need."""
    if is_dataclass(value):
        return {name: members(getattr(value, name)) for name in _names(type(value))}
    return [members(item) for item in value] if isinstance(value, tuple) else value


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The stages, bound to what runs arrays and to what is accepted.

    Attributes:
        runner: joins arrays of several callers, or runs each alone.
        max_pixels: rows × columns accepted; more is refused before decoding.
        allow_non_ct: accept DICOM that is not CT even where a caller does not ask for it.
        decoders: processes that decode compressed DICOM.
    """

    runner: Runner = field(default_factory=Runner)
    max_pixels: int = MAX_PIXELS
    allow_non_ct: bool = False
    decoders: Decoders = field(default_factory=shared_decoders)

    def segment(
        self, content: bytes, model: Model, query: SegmentQuery, watch: Stopwatch | None = None
    ) -> Outcome:
        """Segments and measures one encoded slice; the watch says when to stop.

        Raises:
            LungsegError: see ``read_scan``.
            DeadlineExceeded: the time is used up.
        """
        watch = watch or Stopwatch()
        scan = self._decode(content, query, watch)
        found = self.find_lungs(scan, model, query, watch)
        with watch.stage("measure"):
            report = measure(scan, found)
        return Outcome(
            content=content, model=model, query=query, scan=scan, segmentation=found, report=report
        )

    def find_lungs(
        self,
        scan: Scan,
        model: Model,
        query: SegmentQuery = AS_THE_MODEL_SAYS,
        watch: Stopwatch | None = None,
    ) -> Segmentation:
        """Labels the lungs of one slice, Z = 1.

        Raises:
            DeadlineExceeded: the time is used up.
            ValueError: more than one slice (``volumes``).
        """
        if len(scan.values) != 1:
            raise ValueError(f"expected one slice, received {len(scan.values)}")
        watch = watch or Stopwatch()
        view, contract = usual_view(scan), model.contract
        threshold = query.threshold or contract.mask.threshold
        asked = query.largest_components
        largest = contract.mask.largest_components if asked is None else asked
        with watch.stage("fit"):
            fitted = fit(scan, model.grid_size, contract.intensity, covers=contract.grid)
        output = self.runner.infer(model, fitted.grey, watch)
        with watch.stage("restore"):
            probability = restore(output, fitted.placement)
            mask = cut(probability, threshold=threshold, largest_components=largest)
            certainty = Certainty.of(probability, mask)
        with watch.stage("label"):
            found = label_lungs(view.undo(mask), scan, view)
        return Segmentation(
            labels=found.labels,
            threshold=threshold,
            laterality=view.laterality if found.sided[0] else None,
            components=found.components[0],
            confidence=certainty.confidence,
            probability=view.undo(probability),
        )

    def fitted(
        self, content: bytes, model: Model, query: SegmentQuery, watch: Stopwatch
    ) -> FloatArray:
        """What the network sees of one encoded slice: decode → fit, and no further than that.

        It is float32 in [0, 255], shape (1, height, width, 1); errors are those of ``segment``.
        """
        scan = self._decode(content, query, watch)
        with watch.stage("fit"):
            contract = model.contract
            return fit(scan, model.grid_size, contract.intensity, covers=contract.grid).grey

    def _decode(self, content: bytes, query: SegmentQuery, watch: Stopwatch) -> Scan:
        remaining_s = watch.deadline.remaining_s if watch.deadline else math.inf
        with watch.stage("decode"):
            try:
                return read_scan(
                    content,
                    max_pixels=self.max_pixels,
                    spacing_mm=query.spacing_mm,
                    window_hu=query.window_hu,
                    unit=UNITS[query.unit],
                    allow_non_ct=self.allow_non_ct or query.allow_non_ct,
                    decode=partial(self.decoders.decode, remaining_s=remaining_s),
                )
            except UndecodableImage:
                if watch.deadline:  # a decoder that got no time says nothing of the file
                    watch.deadline.check()
                raise
