"""The part of MONAI Label's API by which 3D Slicer has a volume segmented.

Its clients read errors by their status alone, and join the file's name in an answer to a folder of
theirs. They send paths of their own machine as names; nothing here reads, keeps or repeats one.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers

import lungseg
from lungseg.core.errors import BodyTooLarge, InvalidParameter, MalformedRequest
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.formats.archive import in_memory
from lungseg.formats.label_map import label_nrrd
from lungseg.inference.timing import Stopwatch
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
from lungseg.web.surfaces.segment import chosen_model, timings

PREFIX = "/monailabel"
SIDES = {"right lung": RIGHT, "left lung": LEFT}
OUTPUTS = ("", "all", "image", "json", "dicom_seg")
NRRD, NIFTI = ".nrrd", ".nii.gz"
FORMS = {NRRD: VOLUME_FORMS["nrrd"], NIFTI: VOLUME_FORMS["nifti"]}
"""By what a client wants its file's name to end with."""
PARTS = ("params", "file", "label")
MAX_DIGITS = 9
MAX_PARAMS_BYTES = 64 * 1024
"""Of what a client says besides its files: Slicer sends whole configurations back."""


def surfaces(settings: Settings) -> tuple[Surface, ...]:
    """The API, and its door, which is open to those who have yet to say their key."""
    sessions = Sessions(
        limit_bytes=settings.monailabel_session_bytes, longest_s=settings.monailabel_session_s
    )
    api, door = (APIRouter(prefix=PREFIX, include_in_schema=False) for _ in range(2))
    api.add_api_route("/info/", info)
    api.add_api_route("/session/", sessions.create, methods=["PUT"])
    api.add_api_route("/session/{name}", sessions.tell, methods=["GET", "DELETE"])
    api.add_api_route("/infer/{model}", sessions.infer, methods=["POST"])
    api.add_api_route("/auth/token/valid", info)  # of which only the status is read
    door.add_api_route("/auth/", auth)
    door.add_api_route("/auth/token", token, methods=["POST"])
    own = Surface(
        prefixes=(PREFIX, f"{PREFIX}/auth/token/valid"),
        router=api,
        body_limit=lambda settings: settings.max_volume_bytes,
        takes="volumes",
    )
    return own, Surface(
        prefixes=(f"{PREFIX}/auth",),
        router=door,
        body_limit=lambda _settings: MAX_PARAMS_BYTES,
        needs_key=False,
    )


async def info(request: Request) -> Response:
    """What there is; clients read every key of it."""
    about = {"type": "segmentation", "labels": SIDES, "dimension": 3, "config": {}}
    families = state_of(request.scope).registry.families().items()
    served = [name for name, family in families if family.serving]
    models = {name: {**about, "description": RESEARCH_ONLY} for name in served}
    said = {"name": "lungseg", "description": RESEARCH_ONLY, "version": lungseg.__version__}
    others = ("trainers", "strategies", "scoring", "train_stats", "datastore")
    return JSONResponse(
        {**said, "labels": list(SIDES), "models": models} | {name: {} for name in others}
    )


async def auth(request: Request) -> Response:
    """Whether a client should ask its user for name and password."""
    return JSONResponse({"enabled": bool(state_of(request.scope).keys)})


async def token(request: Request) -> Response:
    """The API key of a user who gives it as password; the name may be any."""
    fields = parse_qs((await read_body(request)).decode("latin-1"), encoding="latin-1")
    key = fields.get("password", [""])[0]
    if not state_of(request.scope).keys.owner(Headers({"x-api-key": key})):
        raise Unauthorized("expected a known key as password")
    return JSONResponse({"access_token": key, "token_type": "Bearer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One volume, or one series; what the client calls its files is not kept."""

    files: list[memoryview]
    size_bytes: int
    expiry_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Uploads in memory, each until its time ends or others need its room; on the event loop."""

    limit_bytes: int
    longest_s: float
    kept: dict[str, tuple[Upload, asyncio.TimerHandle]] = field(default_factory=dict[str, Any])
    """That which was not used for longest comes first."""

    async def create(self, request: Request) -> Response:
        """Keeps the files of a form, which may be a zip."""
        asked = request.query_params.get("expiry", "0")
        if not (asked.isdecimal() and len(asked) <= MAX_DIGITS):
            raise InvalidParameter("expiry: expected a whole number of seconds")
        body, kind = await read_body(request), request.headers.get("content-type", "")
        most = state_of(request.scope).volumes.limits.max_files
        parts = await asyncio.to_thread(split_form, body, kind, most)
        if not (files := [part.content for part in parts if part.name == "files"]):
            raise MalformedRequest("expected form parts named files, received none")
        room_bytes = self.limit_bytes - len(body)
        if room_bytes < 0:
            raise BodyTooLarge(f"expected at most {self.limit_bytes} bytes, received more")
        while sum(upload.size_bytes for upload, _ in self.kept.values()) > room_bytes:
            self._take(next(iter(self.kept)))
        expiry_s = min(int(asked) or self.longest_s, self.longest_s)
        upload = Upload(files=files, size_bytes=len(body), expiry_s=expiry_s)
        name = uuid.uuid4().hex
        self._keep(name, upload)
        return JSONResponse({"session_id": name, "session_info": {"expiry": expiry_s}})

    async def tell(self, name: str, request: Request) -> Response:
        """Says that a session is still there, which prolongs it, or ends it."""
        upload = self._take(name) if request.method == "DELETE" else self._use(name)
        return JSONResponse({"expiry": upload.expiry_s})

    async def infer(self, model: str, request: Request) -> Response:
        """Segments the volume of a session, or the one that comes along."""
        state, exchange = state_of(request.scope), exchange_of(request.scope)
        output, name = (request.query_params.get(key, "") for key in ("output", "session_id"))
        if output not in OUTPUTS:
            raise InvalidParameter(f"output: expected {' or '.join(filter(None, OUTPUTS))}")
        chosen = chosen_model(request, ModelQuery(model=model))
        upload, kind = self._use(name) if name else None, request.headers.get("content-type", "")

        def work(body: bytes) -> Response:
            parts = {part.name: part.content for part in split_form(body, kind, len(PARTS))}
            params, sent = _params(parts.get("params", b"{}")), parts.get("file")
            files = [in_memory(bytes(sent))] if sent else []
            del body, parts, sent
            if upload:
                exchange.held.take(upload.size_bytes)
                files = list(map(in_memory, upload.files))
            if not files:
                raise MalformedRequest("expected a session_id or a form part named file")
            volume = state.volumes.read(files, watch=exchange.watch)
            files.clear()
            exchange.held.let_go(exchange.held.held_bytes)
            outcome = state.volumes.segment(volume, chosen, watch=exchange.watch)
            state.metrics.count_volume(outcome.report.quality.flags)
            return _answer(outcome, output, params, exchange.watch)

        return await compute(request, work)

    def _keep(self, name: str, upload: Upload) -> None:
        loop = asyncio.get_running_loop()
        self.kept[name] = upload, loop.call_later(upload.expiry_s, self.kept.pop, name)

    def _take(self, name: str) -> Upload:
        if name not in self.kept:
            raise HTTPException(404)
        upload, end = self.kept.pop(name)
        end.cancel()
        return upload

    def _use(self, name: str) -> Upload:
        upload = self._take(name)
        self._keep(name, upload)
        return upload


def _params(content: bytes | memoryview) -> dict[str, Any]:
    """What a client asks beside its files, of which most is for others than us."""
    try:
        params = json.loads(bytes(content[:MAX_PARAMS_BYTES]))
    except (ValueError, RecursionError):
        params = None
    if not isinstance(params, dict):
        raise MalformedRequest("expected params to be a short JSON object, received something else")
    if str(params.setdefault("result_extension", NIFTI)) not in FORMS:
        raise InvalidParameter(f"result_extension: expected {' or '.join(FORMS)}")
    return params


def _answer(
    outcome: VolumeOutcome, output: str, params: dict[str, Any], watch: Stopwatch
) -> Response:
    """The label map, what its numbers mean, or both as a form."""
    form, ending = VOLUME_FORMS["dicom-seg"], params["result_extension"]
    with watch.stage("encode"):
        if output == "dicom_seg":
            return Response(form.encode(outcome), media_type=form.media_type)
        content = _label_map(outcome, ending, params)
    names = {"lung": UNSIDED} if outcome.segmentation.laterality is None else SIDES
    flags = [flag.code for flag in outcome.report.quality.flags]
    about = {"label_names": names, "latencies": timings(watch), "flags": flags}
    if output == "json":
        return JSONResponse(about)
    told = f'form-data; name="image"; filename="lungs{ending}"'
    kind, limit = FORMS[ending].media_type, uuid.uuid4().hex
    if output == "image":
        return Response(content, media_type=kind, headers={"Content-Disposition": told})
    lines = [
        *(f"--{limit}", 'Content-Disposition: form-data; name="params"', "", json.dumps(about)),
        *(f"--{limit}", f"Content-Disposition: {told}", f"Content-Type: {kind}", "", ""),
    ]
    whole = b"".join(["\r\n".join(lines).encode(), content, f"\r\n--{limit}--\r\n".encode()])
    return Response(whole, media_type=f"multipart/form-data; boundary={limit}")


def _label_map(outcome: VolumeOutcome, ending: str, params: Mapping[str, Any]) -> bytes:
    """NIfTI, or NRRD as it is wanted: OHIF can unpack nothing but numbers of two bytes."""
    if ending != NRRD:
        return FORMS[ending].encode(outcome)
    return label_nrrd(
        outcome.volume,
        outcome.segmentation.labels,
        THREADS,
        kind="uint16" if params.get("result_dtype") == "uint16" else "uint8",
        packed=params.get("result_compress") is not False,
    )
