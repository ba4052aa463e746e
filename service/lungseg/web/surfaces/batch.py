"""``POST /segment/batch``: many slices in, answers in the same order, each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from lungseg.core.errors import (
    BodyTooLarge,
    LungsegError,
    MalformedRequest,
    TooManyItems,
    UnsupportedMediaType,
)
from lungseg.formats.archive import ArchiveLimits, Member, open_archive, write_archive
from lungseg.formats.names import archive_name, result_names
from lungseg.formats.sniff import SNIFFED_BYTES, is_zip
from lungseg.formats.table import SLICES
from lungseg.forms import FORMS, compact
from lungseg.inference.errors import Overloaded
from lungseg.inference.model import Model
from lungseg.inference.timing import Stopwatch
from lungseg.inference.workers import ClientGone
from lungseg.query import SegmentQuery
from lungseg.settings import Settings
from lungseg.web.body import compute, disconnected, queued
from lungseg.web.errors import problem_document
from lungseg.web.form import NO_FIELDS, Part, is_form, read_form, read_query
from lungseg.web.held import Share
from lungseg.web.layers.telemetry import SEE_LOG, log_bug
from lungseg.web.openapi import BINARY, WORK_PROBLEMS, request_of
from lungseg.web.schemas import Problem, SegmentAnswer, problems
from lungseg.web.state import Exchange, State, exchange_of, state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.segment import chosen_model, describe, preferred

PART = "files"
RETRY_S = 0.05
"""Pause before an item knocks again at a full queue."""
NDJSON, ZIP = "application/x-ndjson", "application/zip"
ACCEPTED = {"application/json": "json", NDJSON: "ndjson", ZIP: "zip"}
_LINES = {"type": "string", "description": "One item a line, as it is ready."}
_MASKS = {**BINARY["schema"], "description": "A PNG mask for each slice and `statistics.csv`."}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An answer or a problem for each file, in the order sent",
        "content": {NDJSON: {"schema": _LINES}, ZIP: {"schema": _MASKS}},
    },
    **problems(*WORK_PROBLEMS, "too_many_items"),
}
router = APIRouter(tags=["segmentation"])
SURFACE = Surface(
    prefixes=("/segment/batch",),
    router=router,
    body_limit=lambda settings: settings.max_batch_bytes,
    takes="slices",
)


class BatchQuery(SegmentQuery):
    """Query parameters of ``/segment/batch``."""

    format: Literal["json", "ndjson", "zip"] | None = Field(
        default=None,
        description="The answer has this form; by default that which `Accept` names, else `json`.",
    )


class BatchItem(SegmentAnswer):
    """The answer for one slice of a batch."""

    filename: str


class BatchFailure(BaseModel):
    """Why one slice of a batch has no answer."""

    filename: str
    error: Problem


class BatchAnswer(BaseModel):
    """The answers in the order sent."""

    items: list[BatchItem | BatchFailure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One item: its JSON members, and its mask where a zip is wanted."""

    document: dict[str, Any]
    png: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is to be done with every item."""

    state: State
    exchange: Exchange
    model: Model
    query: BatchQuery

    async def results(self, members: list[Member]) -> AsyncGenerator[Done]:
        """Works on as many items at a time as there are workers; yields them in order."""
        places = asyncio.Semaphore(self.state.workers.threads)

        async def one(member: Member) -> Done:
            async with places:
                return await self._one(member)

        tasks = [asyncio.create_task(one(member)) for member in members]
        try:
            for task in tasks:
                yield await task
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, member: Member) -> Done:
        """One item; whatever is wrong with it is its own error."""
        deadline = self.exchange.deadline
        watch = Stopwatch(deadline)
        work = queued(partial(self._work, member, watch), watch, self.exchange.held)
        while True:
            try:
                size_bytes = member.size_bytes
                result = await self.state.workers.run(
                    work, deadline=deadline, size_bytes=size_bytes
                )
                for stage, spent_ms in watch.spent_ms.items():
                    self.exchange.watch.add(stage, spent_ms)
                return result
            except Overloaded:  # the batch itself was admitted: its items wait
                if deadline.remaining_s > RETRY_S:
                    await asyncio.sleep(RETRY_S)
                    continue
                code, detail = Overloaded.code, "the queue stayed full"
            except LungsegError as error:
                code, detail = error.code, str(error)
            except Exception as error:  # noqa: BLE001 - the boundary of an item: it fails alone
                log_bug(self.exchange, error)
                code, detail = LungsegError.code, SEE_LOG
            problem = problem_document(code, detail, self.exchange.request_id)
            return Done(document={"filename": member.filename, "error": problem})

    def _work(self, member: Member, watch: Stopwatch) -> Done:
        with self.exchange.held.holding(member.size_bytes):
            outcome = self.state.pipeline.segment(member.read(), self.model, self.query, watch)
            described = describe(outcome, self.exchange.request_id, watch)
            png = FORMS["png"].encode(outcome) if self.query.format == "zip" else b""
        self.state.metrics.count_mask(outcome.report.quality.flags)
        return Done(document={"filename": member.filename, **described}, png=png)


@router.post(
    "/segment/batch",
    response_model=BatchAnswer,
    responses=_RESPONSES,
    openapi_extra=request_of(
        BatchQuery, {PART: {"type": "array", "minItems": 1, "items": BINARY["schema"]}}, ZIP
    ),
    summary="Segment many CT slices",
)
async def segment_batch(request: Request) -> Response:
    """Finds the lungs in each of many slices; one that is refused fails alone."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    content_type = request.headers.get("content-type", "")
    query = read_query(BatchQuery, request)
    model = None if is_form(content_type) else chosen_model(request, query)
    members, fields = await compute(
        request, lambda body: _members(body, content_type, state.settings, exchange.held)
    )
    query = read_query(BatchQuery, request, fields) if fields else query
    form = query.format or preferred(request.headers.get("accept", ""), ACCEPTED)
    query = query.model_copy(update={"format": form})
    model = model or chosen_model(request, query)
    batch = Batch(state=state, exchange=exchange, model=model, query=query)
    if form == "ndjson":
        lines = (compact(done.document) + "\n" async for done in batch.results(members))
        return StreamingResponse(lines, media_type=NDJSON)
    results = await _all_unless_gone(request, batch.results(members))
    if form == "json":
        content = compact({"items": [result.document for result in results]})
        return Response(content, media_type="application/json")
    packed = await asyncio.to_thread(_zip, results)
    return Response(packed, media_type=ZIP)


def _members(
    body: bytes, content_type: str, limits: Settings, held: Share
) -> tuple[list[Member], Mapping[str, Sequence[str]]]:
    """The files of a form's parts, of a zip that is the body, or of a form's only part; fields."""
    fields = NO_FIELDS
    if is_form(content_type):
        form = read_form(body, content_type, (PART,), limits.max_batch_items)
        files, fields = form.files, form.fields
        if len(files) != 1 or not is_zip(bytes(files[0].content[:SNIFFED_BYTES])):
            members = [_member(part, limits.max_body_bytes) for part in files]
            return _counted(members, limits.max_batch_items), fields
        with held.holding(len(body)):  # copied, and then the form goes
            body = bytes(files[0].content)
            del form, files
    if not is_zip(body):
        raise UnsupportedMediaType(
            f"expected a form with parts named {PART}, or a zip archive, received neither"
        )
    archive_limits = ArchiveLimits(
        max_items=limits.max_batch_items,
        max_item_bytes=limits.max_body_bytes,
        max_total_bytes=limits.max_batch_bytes,
    )
    return _counted(open_archive(body, archive_limits), limits.max_batch_items), fields


def _member(part: Part, limit: int) -> Member:
    size_bytes = len(part.content)

    def read() -> bytes:
        if size_bytes > limit:
            raise BodyTooLarge(f"expected at most {limit} bytes a file, received more")
        return bytes(part.content)

    return Member(filename=part.filename, size_bytes=min(size_bytes, limit), read=read)


def _counted(members: list[Member], limit: int) -> list[Member]:
    if not members:
        raise MalformedRequest(f"expected parts named {PART} or files in a zip, received none")
    if len(members) > limit:
        raise TooManyItems(f"expected at most {limit} files, received {len(members)}")
    return members


async def _all_unless_gone(request: Request, results: AsyncGenerator[Done]) -> list[Done]:
    """Awaits the results, or stops them when the client leaves."""

    async def collect() -> list[Done]:
        return [result async for result in results]

    task, leaving = asyncio.create_task(collect()), asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


def _zip(results: list[Done]) -> bytes:
    """A mask per slice that has one, and ``statistics.csv`` of all."""
    places = [place for place, result in enumerate(results) if result.png]
    sent = [archive_name(results[place].document["filename"], place) for place in places]
    names = dict(zip(places, result_names(sent, FORMS["png"].suffix), strict=True))
    rows = [
        (result.document["filename"], result.document | {"result": names.get(place)})
        for place, result in enumerate(results)
    ]
    masks = {names[place]: results[place].png for place in places}
    return write_archive({**masks, "statistics.csv": SLICES.csv(rows).encode()})
