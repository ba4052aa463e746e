"""``POST /segment``: one CT slice in, one mask out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from lungseg.forms import FORMS, answer, compact, summary
from lungseg.inference.model import Model
from lungseg.inference.timing import Stopwatch
from lungseg.pipeline import Outcome
from lungseg.query import SegmentQuery
from lungseg.web.body import disconnected, inflate, read_body, single_file
from lungseg.web.openapi import SEGMENT_BODY, SEGMENT_RESPONSES
from lungseg.web.schemas import SegmentAnswer, SliceQuery
from lungseg.web.state import Exchange, exchange_of, state_of

ACCEPTED = {form.media_type: name for name, form in reversed(FORMS.items())}
"""What ``Accept`` may name; of forms with one media type the first."""
router = APIRouter(tags=["segmentation"])


@router.post(
    "/segment",
    response_model=SegmentAnswer,
    responses=SEGMENT_RESPONSES,
    openapi_extra=SEGMENT_BODY,
    summary="Segment one CT slice",
)
async def segment(request: Request, query: Annotated[SliceQuery, Query()]) -> Response:
    """Finds the lungs in one slice; the content decides what format it is."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    model = chosen_model(request, query)
    form = query.format or preferred(request.headers.get("accept", ""), ACCEPTED)
    headers = request.headers
    encoding = headers.get("content-encoding", "")
    content_type = headers.get("content-type", "")
    body = await read_body(request)
    submitted = time.perf_counter()

    def work() -> Response:
        exchange.watch.add("queue", (time.perf_counter() - submitted) * 1000)
        whole = inflate(body, encoding, state.limits.max_body_bytes)
        content = single_file(whole, content_type)
        outcome = state.pipeline.segment(content, model, query, exchange.watch)
        return respond(outcome, form, query, exchange)

    return await state.workers.run(
        work, deadline=exchange.deadline, gone=lambda: disconnected(request), size_bytes=len(body)
    )


def chosen_model(request: Request, query: SegmentQuery) -> Model:
    """The model that answers, whatever is loaded meanwhile.

    Raises:
        UnknownModel, ModelNotReady: see ``Registry.get``.
    """
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    model = state.registry.get(query.model, query.version)
    exchange.model, exchange.version = model.contract.name, model.contract.version
    return model


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


def respond(outcome: Outcome, form: str, query: SegmentQuery, exchange: Exchange) -> Response:
    """Encodes an outcome; called in a worker thread."""
    watch = exchange.watch
    if form == "json":
        document = describe(outcome, query, exchange.request_id, watch)
        headers = {"Server-Timing": server_timing(watch)}
        return Response(compact(document), 200, headers, FORMS[form].media_type)
    with watch.stage("encode"):
        content = FORMS[form].encode(outcome, query.encoding)
        header = summary(outcome)
    headers = {"Server-Timing": server_timing(watch), "X-Segmentation": header}
    return Response(content, 200, headers, FORMS[form].media_type)


def describe(
    outcome: Outcome, query: SegmentQuery, request_id: str, watch: Stopwatch
) -> dict[str, Any]:
    """The JSON answer."""
    with watch.stage("encode"):
        document = answer(outcome, query.encoding)
    return {"request_id": request_id, **document, "timings_ms": timings(watch)}


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


_PARTS = {
    "decode": ("decode", "fit"),
    "queue": ("queue",),
    "inference": ("inference",),
    "postprocess": ("restore", "label", "measure"),
    "encode": ("encode",),
}
