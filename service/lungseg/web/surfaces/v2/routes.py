"""The endpoints of the protocol, and its own form of errors."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from lungseg.core.errors import InvalidParameter
from lungseg.inference.contract import TensorSpec
from lungseg.inference.errors import BundleError
from lungseg.inference.model import Model
from lungseg.query import SegmentQuery, checked_query
from lungseg.settings import Settings
from lungseg.web.body import compute, read_body
from lungseg.web.errors import PROBLEMS, Forbidden
from lungseg.web.state import Exchange, State, exchange_of, state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.v2 import codec, control

PLATFORM = "onnx_onnxv1"
MAX_CONTROL_BYTES = 1024 * 1024
"""What a request to the repository may have: a model's configuration has a few thousand bytes."""
LOG = logging.getLogger("lungseg.models")
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_STATUSES = {
    400: "The request is malformed",
    401: "An API key is needed",
    403: "Loading and unloading is switched off",
    404: "There is no such model",
    413: "The body is too large",
    500: "Something went wrong here",
    503: "Not ready, overloaded or draining",
    504: "The answer would come too late",
}
router = APIRouter(
    prefix="/v2",
    tags=["open inference protocol"],
    responses={
        status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in _STATUSES.items()
    },
)


def _error_object(code: str, detail: str, _request_id: str) -> Response:
    # Triton and KServe know no 422: what a client got wrong is a 400.
    status = PROBLEMS[code][0]
    return JSONResponse({"error": detail}, 400 if status in (415, 422) else status)


def _control_limit(_settings: Settings) -> int:
    return MAX_CONTROL_BYTES


_V2 = Surface(prefixes=("/v2",), router=router, render=_error_object, takes="slices")
_PART = replace(_V2, router=None, takes="nothing")
SURFACES = (
    _V2,
    replace(_PART, prefixes=("/v2/health",), needs_key=False, quiet=True),
    replace(_PART, prefixes=("/v2/repository",), body_limit=_control_limit),
)


@router.get("", summary="Describe the server")
async def server(request: Request) -> dict[str, Any]:
    """Name, version and the extensions that are spoken."""
    return {
        "name": "lungseg",
        "version": request.app.version,
        "extensions": ["binary_tensor_data", "model_repository"],
    }


@router.get("/health/live", summary="Whether the process answers")
async def live() -> dict[str, bool]:
    """Always true."""
    return {"live": True}


@router.get("/health/ready", summary="Whether to send work")
async def ready(request: Request) -> dict[str, bool]:
    """503 when ``/readyz`` is."""
    if error := state_of(request.scope).unreadiness:
        raise error
    return {"ready": True}


@router.get("/models/{model}", summary="Describe a model")
@router.get("/models/{model}/versions/{version}", summary="Describe a model version")
async def metadata(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Versions, inputs and outputs."""
    registry = state_of(request.scope).registry
    contract = registry.get(model, version).contract
    versions = registry.families()[model].versions
    return {
        "name": contract.name,
        "versions": [str(number) for number in sorted(versions) if versions[number].model],
        "platform": PLATFORM,
        "inputs": [_tensor(contract.input)],
        "outputs": [_tensor(contract.output)],
        "parameters": {"sha256": contract.sha256},
    }


@router.get("/models/{model}/ready", summary="Whether a model serves")
@router.get("/models/{model}/versions/{version}/ready", summary="Whether a version serves")
async def model_ready(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """404 when there is none, 503 when it is not loaded or the service drains."""
    state = state_of(request.scope)
    found = state.registry.get(model, version)
    if state.lifecycle.draining and (error := state.unreadiness):
        raise error
    return {"name": found.contract.name, "ready": True}


@router.post("/models/{model}/infer", summary="Run a model")
@router.post("/models/{model}/versions/{version}/infer", summary="Run a model version")
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Grey levels on the network's grid, or encoded images, in; probabilities out."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    found = state.registry.get(model, version)
    exchange.model, exchange.version = found.contract.name, found.contract.version
    header_length = request.headers.get(codec.HEADER_LENGTH.lower(), "")
    return await compute(request, lambda body: _answer(body, header_length, found, state, exchange))


@router.post("/repository/index", summary="List models and their states")
async def index(request: Request) -> list[dict[str, str]]:
    """Every version in the models folder, with the reason where it is not ready."""
    only_ready = control.wants_ready(await read_body(request))
    return [
        {
            "name": name,
            "version": str(number),
            "state": version.state,
            "reason": version.reason,
        }
        for name, family in sorted(state_of(request.scope).registry.families().items())
        for number, version in sorted(family.versions.items())
        if version.state == "READY" or not only_ready
    ]


@router.post("/repository/models/{model}/load", summary="Load or roll back a model")
async def load(request: Request, model: str) -> JSONResponse:
    """Loads the newest version, or the one asked for; what serves is swapped when it is ready."""
    _may_control(request)
    version = control.load_version(await read_body(request))
    registry = state_of(request.scope).registry
    try:
        loaded = await asyncio.to_thread(registry.load, model, version)
    except BundleError as error:
        raise InvalidParameter(f"the bundle is refused: {error}") from None
    level, message = (
        (logging.INFO, "model loaded by request")
        if version is None
        else (logging.WARNING, "model held at one version by request")
    )
    _tell(request, level, message, f"{model}/{loaded.contract.version}")
    return JSONResponse({"name": model, "version": loaded.contract.version, "load": True})


@router.post("/repository/models/{model}/unload", summary="Unload a model")
async def unload(request: Request, model: str) -> JSONResponse:
    """Lets every version go; requests in flight still finish."""
    _may_control(request)
    control.check_unload(await read_body(request))
    await asyncio.to_thread(state_of(request.scope).registry.unload, model)
    _tell(request, logging.WARNING, "model unloaded by request", model)
    return JSONResponse({"name": model, "unload": True})


def _tell(request: Request, level: int, message: str, model: str) -> None:
    """Says in the log that a request changed what answers; its access line says whose it was."""
    fields = {"model": model, "request_id": exchange_of(request.scope).request_id}
    LOG.log(level, message, extra={"fields": fields})


def _may_control(request: Request) -> None:
    if not state_of(request.scope).settings.model_control:
        raise Forbidden("model control is switched off here")


def _answer(
    body: bytes, header_length: str, model: Model, state: State, exchange: Exchange
) -> Response:
    """Reads, computes and writes; called in a worker thread."""
    contract = model.contract
    watch = exchange.watch
    with watch.stage("decode"):
        request = codec.parse(body, header_length, _expected(model, state.settings))
    if isinstance(request.images, list):
        # encoded images come to the grid as ``/segment`` brings them there
        pipeline, query = state.pipeline, checked_query(SegmentQuery, request.reading)
        grey = np.concatenate(
            [pipeline.fitted(image, model, query, watch) for image in request.images]
        )
    elif request.reading:
        raise InvalidParameter(f"expected {', '.join(request.reading)} with encoded images only")
    else:
        grey = request.images
    expected = (*model.grid_size, 1)
    if grey.shape[1:] != expected:
        raise InvalidParameter(f"expected shape [N, {', '.join(map(str, expected))}]")
    mask = state.pipeline.runner.infer(model, grey, watch)
    with watch.stage("encode"):
        head = {"model_name": contract.name, "model_version": contract.version}
        content, json_length = codec.render(request, head, contract.output.name, mask)
    if not json_length:
        return Response(content, media_type="application/json")
    headers = {codec.HEADER_LENGTH: json_length}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _expected(model: Model, settings: Settings) -> codec.Expected:
    contract, max_items = model.contract, settings.max_batch_items
    return codec.Expected(
        input_name=contract.input.name,
        output_name=contract.output.name,
        max_items=max_items,
        values=max_items * math.prod(model.grid_size),
    )


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": "FP32", "shape": [-1, spec.height, spec.width, 1]}
