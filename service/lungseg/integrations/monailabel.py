"""The part of MONAI Label's API by which 3D Slicer has a volume segmented.

Its clients read errors by their status alone, and join the file's name in an answer to a folder of
theirs. They send paths of their own machine as names; nothing here reads, keeps or repeats one.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import httpx
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

import lungseg
from lungseg.core.errors import BodyTooLarge, MalformedRequest
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.formats.archive import in_memory
from lungseg.formats.label_map import label_nrrd
from lungseg.query import ModelQuery
from lungseg.settings import Settings
from lungseg.volume_forms import THREADS, VOLUME_FORMS
from lungseg.volumes import VolumeOutcome
from lungseg.web.body import compute, read_body
from lungseg.web.errors import Unauthorized
from lungseg.web.form import split_form
from lungseg.web.state import exchange_of, state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.home import RESEARCH_ONLY
from lungseg.web.surfaces.segment import chosen_model

PREFIX = "/monailabel"
SIDES = {"right lung": RIGHT, "left lung": LEFT}
MAX_PARTS = 3  # of a form that asks for an answer: params, file and label
SESSION_BYTES = 16 * 1024  # what a session counts for besides its volume: none costs nothing
Upload = tuple[list[memoryview], int]
"""A volume's files, and the bytes that they hold; what the client calls them is not kept."""


def surfaces(settings: Settings) -> tuple[Surface, Surface]:
    """The API, and that part of it where nobody has a key yet."""
    sessions = Sessions(settings.monailabel_session_bytes, settings.monailabel_session_s)
    router = APIRouter(prefix=PREFIX, include_in_schema=False)
    router.add_api_route("/auth/", log_in)
    router.add_api_route("/auth/token", log_in, methods=["POST"])
    router.add_api_route("/auth/token/valid", info)
    router.add_api_route("/info/", info)
    router.add_api_route("/session/", sessions.create, methods=["PUT"])
    router.add_api_route("/session/{name}", sessions.tell, methods=["GET", "DELETE"])
    router.add_api_route("/infer/{model}", sessions.infer, methods=["POST"])
    keyed, free = (PREFIX, f"{PREFIX}/auth/token/valid"), (f"{PREFIX}/auth",)
    large, small = attrgetter("max_volume_bytes"), attrgetter("max_header_bytes")
    return (
        Surface(prefixes=keyed, router=router, body_limit=large, takes="volumes"),
        Surface(prefixes=free, body_limit=small, needs_key=False),
    )


async def log_in(request: Request) -> Response:
    """Whether keys are asked for, and the token of who posts one as the password: it is the key."""
    keys, form = state_of(request.scope).keys, (await read_body(request)).decode("latin-1")
    key = httpx.QueryParams(form).get("password", "").encode().decode("latin-1")  # as in headers
    if request.method == "POST" and not keys.owner({"x-api-key": key}):
        raise Unauthorized("expected a known key as the password, received another")
    return JSONResponse({"enabled": bool(keys), "access_token": key, "token_type": "Bearer"})


async def info(request: Request) -> Response:
    """What there is; clients read every key of it."""
    about = {"type": "segmentation", "labels": SIDES, "dimension": 3, "config": {}}
    families = state_of(request.scope).registry.families().items()
    about["description"] = RESEARCH_ONLY
    models = {name: about for name, family in families if family.serving}
    said = {"name": "lungseg", "description": RESEARCH_ONLY, "version": lungseg.__version__}
    none = {key: {} for key in ("trainers", "strategies", "scoring", "train_stats", "datastore")}
    return JSONResponse({**said, "labels": list(SIDES), "models": models, **none})


@dataclass(frozen=True, slots=True)
class Sessions:
    """Uploads in memory, each until its time ends or others need its room; on the event loop."""

    limit_bytes: int
    time_s: float
    kept: dict[str, tuple[Upload, asyncio.TimerHandle]] = field(default_factory=dict[str, Any])
    """That which was not used for longest comes first."""

    async def create(self, request: Request) -> Response:
        """Keeps the files of a form, which may be a zip."""
        body, kind = await read_body(request), request.headers.get("content-type", "")
        most = state_of(request.scope).volumes.limits.max_files
        parts = await asyncio.to_thread(split_form, body, kind, most)
        if not (files := [part.content for part in parts if part.name == "files"]):
            raise MalformedRequest("expected form parts named files, received none")
        size_bytes = len(body) + SESSION_BYTES
        if size_bytes > self.limit_bytes:
            raise BodyTooLarge(f"expected at most {self.limit_bytes} bytes, received more")
        excess = size_bytes + sum(held for (_, held), _ in self.kept.values()) - self.limit_bytes
        while excess > 0:
            excess -= self._use(next(iter(self.kept)), end=True)[1]
        name = uuid.uuid4().hex
        self._keep(name, (files, size_bytes))
        return JSONResponse({"session_id": name, "session_info": {"expiry": self.time_s}})

    async def tell(self, name: str, request: Request) -> Response:
        """Says that a session is still there, which prolongs it, or ends it."""
        self._use(name, end=request.method == "DELETE")
        return JSONResponse({"expiry": self.time_s})

    async def infer(self, model: str, request: Request) -> Response:
        """Segments the volume of a session, or the one that comes along."""
        state, exchange = state_of(request.scope), exchange_of(request.scope)
        output, name = (request.query_params.get(key, "") for key in ("output", "session_id"))
        chosen = chosen_model(request, ModelQuery(model=model))
        upload, kind = self._use(name) if name else None, request.headers.get("content-type", "")

        def work(body: bytes) -> Response:
            parts = split_form(body, kind, MAX_PARTS)
            files = [in_memory(bytes(part.content)) for part in parts if part.name == "file"]
            del body, parts
            if upload:
                exchange.held.take(upload[1])
                files = list(map(in_memory, upload[0]))
            if not files:
                raise MalformedRequest("expected a session_id or a form part named file")
            volume = state.volumes.read(files, watch=exchange.watch)
            files.clear()
            exchange.held.let_go(exchange.held.held_bytes)
            outcome = state.volumes.segment(volume, chosen, watch=exchange.watch)
            state.metrics.count_volume(outcome.report.quality.flags)
            with exchange.watch.stage("encode"):
                return _answer(outcome, alone=output == "image")

        return await compute(request, work)

    def _keep(self, name: str, upload: Upload) -> None:
        loop = asyncio.get_running_loop()
        self.kept[name] = upload, loop.call_later(self.time_s, self.kept.pop, name)

    def _use(self, name: str, *, end: bool = False) -> Upload:
        if name not in self.kept:
            raise HTTPException(404)
        upload, timer = self.kept.pop(name)
        timer.cancel()
        if not end:
            self._keep(name, upload)
        return upload


def _answer(outcome: VolumeOutcome, *, alone: bool) -> Response:
    """The label map and the names of its labels, or alone and not packed, as OHIF can read it."""
    content = label_nrrd(outcome.volume, outcome.segmentation.labels, THREADS, packed=not alone)
    if alone:
        return Response(content, media_type=VOLUME_FORMS["nrrd"].media_type)
    # Slicer sorts names by their numbers, and then counts: none may be left out before another.
    names = SIDES if outcome.segmentation.laterality else {**SIDES, "lung": UNSIDED}
    flags = [flag.code for flag in outcome.report.quality.flags]
    about = {"params": json.dumps({"label_names": names, "latencies": {}, "flags": flags})}
    file = {"image": ("lungs.nrrd", content, VOLUME_FORMS["nrrd"].media_type)}
    form = httpx.Request("POST", "http://client", data=about, files=file)  # answers are forms, too
    return Response(form.read(), media_type=form.headers["content-type"])
