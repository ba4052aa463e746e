"""``POST /segment/volume``: one CT volume in, a 3-D mask and its measures out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lungseg.core.volume import Progress, silent
from lungseg.formats.archive import Member, in_memory
from lungseg.forms import compact
from lungseg.inference.model import Model
from lungseg.volume_forms import VOLUME_FORMS, volume_summary
from lungseg.volumes import VolumeOutcome
from lungseg.web.body import compute
from lungseg.web.form import NO_FIELDS, is_form, read_form, read_query
from lungseg.web.openapi import BINARY, WORK_PROBLEMS, request_of
from lungseg.web.progress import NDJSON, streamed
from lungseg.web.schemas import SeriesQuery, VolumeAnswer, problems
from lungseg.web.state import Exchange, State, exchange_of, state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.segment import HEADERS, chosen_model, preferred, server_timing, timings

PARTS = ("file", "files")
"""A form has one file of a whole volume, or the instances of a series; either name will do."""
FILES = {"type": "array", "minItems": 1, "items": BINARY["schema"]}
RAW_TYPES = ("application/zip", "application/dicom", "application/gzip", "application/octet-stream")
ACCEPTED = {form.media_type: name for name, form in reversed(VOLUME_FORMS.items())}
"""What ``Accept`` may name, beside lines of progress."""
_LINES = {
    "type": "string",
    "description": "A line `{stage, done, total}` after each file and slice, then the answer. With "
    "a `format` its member `file` has that form in base64. An error is the last line's `error`.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lungs of the volume, in the form asked for",
        "headers": HEADERS,
        "content": dict.fromkeys(ACCEPTED, BINARY) | {"application/json": {}, NDJSON: _LINES},
    },
    **problems(
        *WORK_PROBLEMS,
        *("too_many_items", "volume_too_large", "several_volumes", "inconsistent_geometry"),
    ),
}
router = APIRouter(tags=["segmentation"])
SURFACE = Surface(
    prefixes=("/segment/volume",),
    router=router,
    body_limit=lambda settings: settings.max_volume_bytes,
    takes="volumes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Files, which hold the body until they are taken off the list, and fields of a form."""

    files: list[Member]
    fields: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request for a volume, as far as it is known before its body came."""

    request: Request
    state: State
    exchange: Exchange
    query: SeriesQuery
    model: Model | None
    """None where the fields of a form may yet name another."""
    content_type: str
    accepted: str
    """The form that ``Accept`` names."""

    def open(self, body: bytes) -> Sent:
        """What was sent: the files of a form and its fields, or the body as one file."""
        if not is_form(self.content_type):
            return Sent(files=[in_memory(body)], fields=NO_FIELDS)
        most = self.state.volumes.limits.max_files
        form = read_form(body, self.content_type, PARTS, most)
        files = [in_memory(part.content) for part in form.files]  # their names say nothing
        if len(files) == 1:
            with self.exchange.held.holding(len(body)):  # copied, and then the form goes
                files = [in_memory(files[0].read())]
        return Sent(files=files, fields=form.fields)

    def respond(self, sent: Sent) -> Response:
        """The response; called in a worker thread."""
        outcome, form = self._segment(sent, silent)
        headers: dict[str, str] = {}
        if form == "json":
            content = compact(self._describe(outcome)).encode()
        else:
            content = self._encode(outcome, form)
            headers["X-Segmentation"] = volume_summary(outcome)
        headers["Server-Timing"] = server_timing(self.exchange.watch)
        return Response(content, headers=headers, media_type=VOLUME_FORMS[form].media_type)

    def answer(self, sent: Sent, progress: Progress) -> dict[str, Any]:
        """The last line of a stream: the answer, with the file that is asked for beside it."""
        outcome, form = self._segment(sent, progress)
        if form == "json":
            return self._describe(outcome)
        content = base64.b64encode(self._encode(outcome, form)).decode()
        media_type = VOLUME_FORMS[form].media_type
        file = {"format": form, "media_type": media_type, "base64": content}
        return {**self._describe(outcome), "file": file}

    def _segment(self, sent: Sent, progress: Progress) -> tuple[VolumeOutcome, str]:
        """Finds the lungs, lets go of what was sent as soon as it is read, and names the form."""
        volumes, watch, held = self.state.volumes, self.exchange.watch, self.exchange.held
        asked = read_query(SeriesQuery, self.request, sent.fields) if sent.fields else self.query
        model = self.model or chosen_model(self.request, asked)
        volume = volumes.read(sent.files, asked, watch=watch, progress=progress)
        sent.files.clear()
        held.let_go(held.held_bytes)
        outcome = volumes.segment(volume, model, asked, watch=watch, progress=progress)
        self.state.metrics.count_volume(outcome.report.quality.flags)
        return outcome, asked.format or self.accepted

    def _describe(self, outcome: VolumeOutcome) -> dict[str, Any]:
        with self.exchange.watch.stage("encode"):
            described = outcome.describe()
        request_id = self.exchange.request_id
        return {"request_id": request_id, **described, "timings_ms": timings(self.exchange.watch)}

    def _encode(self, outcome: VolumeOutcome, form: str) -> bytes:
        with self.exchange.watch.stage("encode"):
            return VOLUME_FORMS[form].encode(outcome)


@router.post(
    "/segment/volume",
    response_model=VolumeAnswer,
    responses=_RESPONSES,
    openapi_extra=request_of(SeriesQuery, {"file": BINARY["schema"], "files": FILES}, *RAW_TYPES),
    summary="Segment one CT volume",
)
async def segment_volume(request: Request) -> Response:
    """Finds the lungs in a volume; the content of its files decides what they are."""
    content_type = request.headers.get("content-type", "")
    query = read_query(SeriesQuery, request)
    form = preferred(request.headers.get("accept", ""), {**ACCEPTED, NDJSON: NDJSON})
    job = Job(
        request=request,
        state=state_of(request.scope),
        exchange=exchange_of(request.scope),
        query=query,
        model=None if is_form(content_type) else chosen_model(request, query),
        content_type=content_type,
        accepted="json" if form == NDJSON else form,
    )
    if form == NDJSON:
        return await streamed(request, job.open, job.answer)

    def work(body: bytes) -> Response:
        sent = job.open(body)
        del body
        return job.respond(sent)

    return await compute(request, work)
