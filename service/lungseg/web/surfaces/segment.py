"""``POST /segment``: one CT slice in, one mask out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lungseg.formats.dicom_seg import Algorithm, dicom_seg
from lungseg.formats.read import ReadOptions
from lungseg.formats.write import (
    encode_mask,
    mask_npy,
    mask_png,
    overlay_png,
    probability_png,
)
from lungseg.inference.model import Model
from lungseg.inference.segmenter import Options, Outcome, Stopwatch
from lungseg.inference.workers import Deadline
from lungseg.web.body import compute, single_file
from lungseg.web.openapi import BINARY, WORK_PROBLEMS, form_body
from lungseg.web.schemas import SegmentAnswer, SegmentQuery, SliceQuery, problems
from lungseg.web.state import Exchange, State, exchange_of, state_of
from lungseg.web.surface import Surface

MAX_HEADER_BYTES = 4096
"""What ``X-Segmentation`` may have: gateways refuse responses with far longer headers."""
SPARE_PARTS = (("lungs",), ("density",), ("intensity",))
"""Members of ``statistics`` left out of the header, in turn, should it ever get too long."""
ACCEPTED = {
    "application/json": "json",
    "image/png": "png",
    "application/dicom": "dicom-seg",
    "application/x-npy": "npy",
}
RAW_TYPES = (
    "image/png",
    "image/jpeg",
    "image/tiff",
    "image/bmp",
    "application/dicom",
    "application/octet-stream",
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask, in the form asked for",
        "headers": {
            "X-Request-ID": {"schema": {"type": "string"}, "description": "Echoed or made."},
            "Server-Timing": {
                "schema": {"type": "string"},
                "description": "The parts of `timings_ms`.",
            },
            "X-Segmentation": {
                "schema": {"type": "string", "maxLength": MAX_HEADER_BYTES},
                "description": "Where the body is not JSON: "
                "the JSON answer without mask, id and times.",
            },
        },
        "content": dict.fromkeys(("image/png", "application/x-npy", "application/dicom"), BINARY),
    },
    **problems(*WORK_PROBLEMS),
}
router = APIRouter(tags=["segmentation"])
SURFACE = Surface(prefixes=("/segment",), router=router, takes_work=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done with one slice, or with each slice of a batch."""

    state: State
    model: Model
    query: SegmentQuery
    deadline: Deadline

    def run(self, content: bytes, watch: Stopwatch) -> Outcome:
        """Segments one encoded slice; called in a worker thread.

        Raises:
            LungsegError: the slice is refused, or its time is used up.
        """
        limits, query = self.state.settings, self.query
        read = ReadOptions(
            max_pixels=limits.max_pixels,
            spacing_mm=query.spacing_mm,
            window_hu=query.window_hu,
            allow_non_ct=limits.allow_non_ct or query.allow_non_ct,
        )
        options = Options(
            read=read, threshold=query.threshold, largest_components=query.largest_components
        )
        return self.state.segmenter.run(
            content, self.model, options, deadline=self.deadline, watch=watch
        )


@router.post(
    "/segment",
    name="segment",
    response_model=SegmentAnswer,
    responses=_RESPONSES,
    openapi_extra=form_body("file", BINARY["schema"], *RAW_TYPES),
    summary="Segment one CT slice",
)
async def segment_slice(request: Request, query: Annotated[SliceQuery, Query()]) -> Response:
    """Finds the lungs in one slice; the content decides what format it is."""
    exchange, headers = exchange_of(request.scope), request.headers
    job = begin(request, query)
    form = query.format or preferred(headers.get("accept", ""), ACCEPTED)

    def work(body: bytes) -> Response:
        body = single_file(body, headers.get("content-type", ""))
        return answer(job.run(body, exchange.watch), form, query, exchange)

    return await compute(request, work)


def begin(request: Request, query: SegmentQuery) -> Job:
    """Chooses the model, which then answers whatever is loaded meanwhile.

    Raises:
        UnknownModel, ModelNotReady: see ``Registry.get``.
    """
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    model = state.registry.get(query.model, query.version)
    exchange.model, exchange.version = model.contract.name, model.contract.version
    return Job(state=state, model=model, query=query, deadline=exchange.deadline)


def preferred(accept: str, forms: Mapping[str, str]) -> str:
    """The form that an ``Accept`` header wants most; of equal ones the first, else JSON.

    Args:
        accept: the header's value.
        forms: the form of each media type that can be had.
    """
    best, best_weight = "json", 0.0
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if media_type in forms and weight > best_weight:
            best, best_weight = forms[media_type], weight
    return best


def answer(outcome: Outcome, form: str, query: SegmentQuery, exchange: Exchange) -> Response:
    """Encodes an outcome; called in a worker thread."""
    watch = exchange.watch
    if form == "json":
        document = {
            "request_id": exchange.request_id,
            **describe(outcome, query, watch),
            "timings_ms": timings(watch),
        }
        headers = {"Server-Timing": server_timing(watch)}
        return Response(_compact(document), 200, headers, "application/json")
    with watch.stage("encode"):
        content, media_type = _ENCODERS[form](outcome)
        summary = header_summary(outcome)
    headers = {"Server-Timing": server_timing(watch), "X-Segmentation": summary}
    return Response(content, 200, headers, media_type)


def describe(outcome: Outcome, query: SegmentQuery, watch: Stopwatch) -> dict[str, Any]:
    """The JSON answer without request id and timings."""
    with watch.stage("encode"):
        mask = encode_mask(outcome.segmentation.mask[0], query.encoding)
        document = outcome.describe()
    return {
        "model": document.pop("model"),
        "image": document.pop("image"),
        "mask": mask,
        **document,
    }


def timings(watch: Stopwatch) -> dict[str, float]:
    """Times of the contract's parts, in ms, from those of the stages."""
    spent = watch.spent_ms
    return {
        part: round(sum(spent.get(stage, 0.0) for stage in stages), 3)
        for part, stages in _PARTS.items()
    }


def server_timing(watch: Stopwatch) -> str:
    """The same as a ``Server-Timing`` header."""
    return ", ".join(f"{part};dur={spent}" for part, spent in timings(watch).items())


def header_summary(outcome: Outcome) -> str:
    """The JSON answer without mask, request id and timings, short enough for a header."""
    document = outcome.describe()
    text = _compact(document)
    for spare in SPARE_PARTS:
        if len(text) <= MAX_HEADER_BYTES:
            break
        statistics = document["statistics"]
        document["statistics"] = {k: v for k, v in statistics.items() if k not in spare}
        text = _compact(document)
    return text


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _overlay(outcome: Outcome) -> bytes:
    scan = outcome.scan
    return overlay_png(scan.values[0], scan.unit, outcome.segmentation.mask[0])


def _dicom_seg(outcome: Outcome) -> tuple[bytes, str]:
    contract, mask = outcome.model.contract, outcome.segmentation.mask[0]
    algorithm = Algorithm(name=contract.name, version=contract.version, sha256=contract.sha256)
    return dicom_seg(outcome.content, outcome.scan, mask, algorithm), "application/dicom"


_PARTS = {
    "decode": ("decode", "fit"),
    "queue": ("queue",),
    "inference": ("inference",),
    "postprocess": ("restore", "measure"),
    "encode": ("encode",),
}
_ENCODERS: dict[str, Callable[[Outcome], tuple[bytes, str]]] = {
    "png": lambda outcome: (mask_png(outcome.segmentation.mask[0]), "image/png"),
    "overlay": lambda outcome: (_overlay(outcome), "image/png"),
    "probability": lambda outcome: (
        probability_png(outcome.segmentation.probability[0]),
        "image/png",
    ),
    "npy": lambda outcome: (mask_npy(outcome.segmentation.mask[0]), "application/x-npy"),
    "dicom-seg": _dicom_seg,
}
