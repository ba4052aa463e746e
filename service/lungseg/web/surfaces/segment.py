"""``POST /segment``: one CT slice in, one mask out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from python_multipart.multipart import parse_options_header

from lungseg.core.errors import MalformedRequest
from lungseg.formats.sniff import DICOM, PICTURES
from lungseg.forms import FORMS, answer, compact, summary
from lungseg.inference.model import Model
from lungseg.inference.timing import Stopwatch
from lungseg.pipeline import Outcome
from lungseg.query import ModelQuery
from lungseg.web.body import compute
from lungseg.web.example import ANSWER
from lungseg.web.form import NO_FIELDS, is_form, read_form, read_query
from lungseg.web.held import Share
from lungseg.web.openapi import BINARY, WORK_PROBLEMS, request_of
from lungseg.web.schemas import SegmentAnswer, SliceQuery, problems
from lungseg.web.state import Exchange, exchange_of, state_of
from lungseg.web.surface import Surface

PART = "file"
ACCEPTED = {form.media_type: name for name, form in reversed(FORMS.items())}
"""What ``Accept`` may name; of forms with one media type the first."""
RAW_TYPES = (*PICTURES, DICOM, "application/octet-stream")
"""What a body that is no form may be called; what it is, its content says."""
_PARTS = {
    "decode": ("decode", "fit"),
    "queue": ("queue",),
    "inference": ("inference",),
    "postprocess": ("restore", "label", "settle", "measure"),
    "encode": ("encode",),
}
HEADERS = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in {
        "X-Request-ID": "Echoed or made.",
        "Server-Timing": "The parts of `timings_ms`.",
        "X-Segmentation": "Where the body is not JSON: the JSON answer without mask, id and times.",
    }.items()
}
"""What every success has, for the OpenAPI document."""
_EXAMPLE = {"examples": {"sample": {"summary": "The sample slice", "value": ANSWER}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask, in the form asked for",
        "headers": HEADERS,
        "content": dict.fromkeys(ACCEPTED, BINARY) | {FORMS["json"].media_type: _EXAMPLE},
    },
    **problems(*WORK_PROBLEMS),
}
router = APIRouter(tags=["segmentation"])
SURFACE = Surface(prefixes=("/segment",), router=router, takes="slices")


@router.post(
    "/segment",
    name="segment",
    response_model=SegmentAnswer,
    responses=_RESPONSES,
    openapi_extra=request_of(SliceQuery, {PART: BINARY["schema"]}, *RAW_TYPES),
    summary="Segment one CT slice",
)
async def segment_slice(request: Request) -> Response:
    """Finds the lungs in one slice; the content decides what format it is."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    content_type = request.headers.get("content-type", "")
    query = read_query(SliceQuery, request)
    # The fields of a form may name another model; everybody else hears of a wrong one at once.
    model = None if is_form(content_type) else chosen_model(request, query)

    def work(body: bytes) -> Response:
        content, fields = _one_file(body, content_type, exchange.held)
        del body
        asked = read_query(SliceQuery, request, fields) if fields else query
        form = asked.format or preferred(request.headers.get("accept", ""), ACCEPTED)
        chosen = model or chosen_model(request, asked)
        outcome = state.pipeline.segment(content, chosen, asked, exchange.watch)
        response = respond(outcome, form, exchange)
        state.metrics.count_mask(outcome.report.quality.flags)
        return response

    return await compute(request, work)


def _one_file(
    body: bytes, content_type: str, held: Share
) -> tuple[bytes, Mapping[str, Sequence[str]]]:
    """The one file of a body, its only part ``file`` or the body itself, and the form's fields."""
    if not is_form(content_type):
        return body, NO_FIELDS
    form = read_form(body, content_type, (PART,), 1)
    if len(form.files) != 1:
        raise MalformedRequest(f"expected one form part named {PART}, received {len(form.files)}")
    with held.holding(len(body)):  # copied, and then the form goes
        return bytes(form.files[0].content), form.fields


def chosen_model(request: Request, query: ModelQuery) -> Model:
    """The model that answers, whatever is loaded meanwhile; errors are ``Registry.get``'s."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    model = state.registry.get(query.model, query.version)
    exchange.model, exchange.version = model.contract.name, model.contract.version
    return model


def preferred(accept: str, forms: Mapping[str, str]) -> str:
    """The form of the media type that ``Accept`` wants most; of equals the first, else JSON."""
    best, best_weight = "json", 0.0
    for entry in accept.split(","):
        kind, parameters = parse_options_header(entry)
        form = forms.get(kind.decode("latin-1"))
        try:
            weight = float(parameters.get(b"q", 1))
        except ValueError:
            weight = 0.0
        if form and weight > best_weight:
            best, best_weight = form, weight
    return best


def respond(outcome: Outcome, form: str, exchange: Exchange) -> Response:
    """Encodes an outcome; called in a worker thread."""
    watch, headers = exchange.watch, dict[str, str]()
    if form == "json":
        content = compact(describe(outcome, exchange.request_id, watch))
    else:
        with watch.stage("encode"):
            content = FORMS[form].encode(outcome)
            headers["X-Segmentation"] = summary(outcome.describe())
    headers["Server-Timing"] = server_timing(watch)
    return Response(content, headers=headers, media_type=FORMS[form].media_type)


def describe(outcome: Outcome, request_id: str, watch: Stopwatch) -> dict[str, Any]:
    """The JSON answer."""
    with watch.stage("encode"):
        document = answer(outcome)
    return {"request_id": request_id, **document, "timings_ms": timings(watch)}


def timings(watch: Stopwatch) -> dict[str, float]:
    """Times of the contract's parts, in ms, from those of the stages."""
    spent = watch.spent_ms
    return {
        part: round(sum(spent.get(stage, 0.0) for stage in stages), 3)
        for part, stages in _PARTS.items()
    }


def server_timing(watch: Stopwatch) -> str:
    """The same as a response header."""
    return ", ".join(f"{part};dur={spent_ms}" for part, spent_ms in timings(watch).items())
