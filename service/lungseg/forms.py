"""The forms of an answer: one table for HTTP, OpenAPI, the command line and the library."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lungseg.formats import write
from lungseg.formats.archive import write_archive
from lungseg.formats.dicom_derived import Algorithm
from lungseg.formats.dicom_seg import dicom_seg

if TYPE_CHECKING:
    from lungseg.pipeline import Outcome  # brings ONNX Runtime, which the names do not need

Found = TypeVar("Found")
MAX_SUMMARY_BYTES = 4096
"""What a header may have: gateways refuse responses with far longer ones."""
ZIP_EFFORT = 1
"""Noise of a slice does not compress; more effort would take longer than finding the lungs."""
SPARE_PARTS = (("statistics", "lungs"), ("statistics", "density"), ("statistics", "intensity"))
"""Left out of the summary, in turn, should it ever get too long."""


@dataclass(frozen=True, slots=True)
class Form(Generic[Found]):
    """One form of an answer: media type, what a file's name ends with, how it is made.

    What a form cannot be made of is refused by ``check``, before anything is computed.
    """

    media_type: str
    suffix: str
    encode: Callable[[Found], bytes]
    check: Callable[[Any], object] = lambda _source: None


def answer(outcome: Outcome) -> dict[str, Any]:
    """The JSON answer without request id and timings."""
    described = outcome.describe()
    mask = write.encode_mask(outcome.segmentation.mask[0], outcome.query.encoding)
    first = {name: described.pop(name) for name in ("model", "image")}
    return {**first, "mask": mask, **described}


def summary(document: dict[str, Any], spare: Sequence[tuple[str, str]] = SPARE_PARTS) -> str:
    """What an outcome says of itself, short enough for a header.

    Args:
        document: as the outcome describes itself; parts of it are taken out.
        spare: member and its member that may go, the first first.
    """
    text = compact(document)
    for member, part in spare:
        if len(text) <= MAX_SUMMARY_BYTES:
            break
        del document[member][part]
        text = compact(document)
    return text


def compact(document: dict[str, Any]) -> str:
    """JSON without blanks; a number that JSON does not know is an error."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _overlay(outcome: Outcome) -> bytes:
    scan = outcome.scan
    return write.overlay_png(scan.values[0], scan.unit, outcome.segmentation.labels[0])


def _probability(outcome: Outcome) -> bytes:
    return write.probability_png(outcome.segmentation.probability[0])


def _dicom_seg(outcome: Outcome) -> bytes:
    contract = outcome.model.contract
    asked = outcome.query.largest_components
    algorithm = Algorithm(
        name=contract.name,
        version=contract.version,
        sha256=contract.sha256,
        largest_components=contract.mask.largest_components if asked is None else asked,
    )
    return dicom_seg(outcome.content, outcome.scan, outcome.segmentation, algorithm)


def _zip(outcome: Outcome) -> bytes:
    """What a viewer needs to show a slice and its lungs, in one file."""
    scan, labels = outcome.scan, outcome.segmentation.labels[0]
    return write_archive(
        {
            "statistics.json": compact(outcome.describe()).encode(),
            "mask.png": write.mask_png(labels > 0),
            "labels.npy": write.array_npy(labels),
            "slice.npy": write.array_npy(scan.values[0]),
        },
        effort=ZIP_EFFORT,
    )


FORMS: dict[str, Form[Outcome]] = {
    "json": Form("application/json", ".json", lambda found: compact(answer(found)).encode()),
    "png": Form("image/png", "_mask.png", lambda found: write.mask_png(found.segmentation.mask[0])),
    "overlay": Form("image/png", "_overlay.png", _overlay),
    "probability": Form("image/png", "_probability.png", _probability),
    "npy": Form(
        "application/x-npy", "_mask.npy", lambda found: write.array_npy(found.segmentation.mask[0])
    ),
    "dicom-seg": Form("application/dicom", "_seg.dcm", _dicom_seg),
    "zip": Form("application/zip", "_lungs.zip", _zip),
}
"""By name; of forms with one media type, ``Accept`` means the first."""
