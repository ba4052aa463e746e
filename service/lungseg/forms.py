"""The forms of an answer: one table for HTTP, OpenAPI, the command line and the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lungseg.formats import write
from lungseg.formats.dicom_seg import Algorithm, dicom_seg
from lungseg.pipeline import Outcome

MAX_SUMMARY_BYTES = 4096
"""What a header may have: gateways refuse responses with far longer ones."""
SPARE_PARTS = ("lungs", "density", "intensity")
"""Members of ``statistics`` left out of the summary, in turn, should it ever get too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of an answer: media type, what a file's name ends with, how it is made."""

    media_type: str
    suffix: str
    encode: Callable[[Outcome], bytes]


def answer(outcome: Outcome) -> dict[str, Any]:
    """The JSON answer without request id and timings."""
    described = outcome.describe()
    mask = write.encode_mask(outcome.segmentation.mask[0], outcome.query.encoding)
    first = {name: described.pop(name) for name in ("model", "image")}
    return {**first, "mask": mask, **described}


def summary(outcome: Outcome) -> str:
    """The JSON answer without mask, request id and timings, short enough for a header."""
    document = outcome.describe()
    text = compact(document)
    for spare in SPARE_PARTS:
        if len(text) <= MAX_SUMMARY_BYTES:
            break
        del document["statistics"][spare]
        text = compact(document)
    return text


def compact(document: dict[str, Any]) -> str:
    """JSON without blanks; a number that JSON does not know is an error."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _dicom_seg(outcome: Outcome) -> bytes:
    contract = outcome.model.contract
    algorithm = Algorithm(name=contract.name, version=contract.version, sha256=contract.sha256)
    return dicom_seg(outcome.content, outcome.scan, outcome.segmentation, algorithm)


FORMS: dict[str, Form] = {
    "json": Form(
        media_type="application/json",
        suffix=".json",
        encode=lambda outcome: compact(answer(outcome)).encode(),
    ),
    "png": Form(
        media_type="image/png",
        suffix=".mask.png",
        encode=lambda outcome: write.mask_png(outcome.segmentation.mask[0]),
    ),
    "overlay": Form(
        media_type="image/png",
        suffix=".overlay.png",
        encode=lambda outcome: write.overlay_png(
            outcome.scan.values[0], outcome.scan.unit, outcome.segmentation.labels[0]
        ),
    ),
    "probability": Form(
        media_type="image/png",
        suffix=".probability.png",
        encode=lambda outcome: write.probability_png(outcome.segmentation.probability[0]),
    ),
    "npy": Form(
        media_type="application/x-npy",
        suffix=".mask.npy",
        encode=lambda outcome: write.mask_npy(outcome.segmentation.mask[0]),
    ),
    "dicom-seg": Form(media_type="application/dicom", suffix=".seg.dcm", encode=_dicom_seg),
}
"""By name; of forms with one media type, ``Accept`` means the first."""
