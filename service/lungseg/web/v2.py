"""Open Inference Protocol v2 (KServe, Triton): an unmodified ``tritonclient.http`` works here."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from lungseg.core.errors import Forbidden, InvalidParameter
from lungseg.inference.errors import BundleError
from lungseg.inference.model import Model
from lungseg.query import SegmentQuery
from lungseg.web import v2_codec
from lungseg.web.body import disconnected, inflate, read_body
from lungseg.web.health import unreadiness
from lungseg.web.state import Exchange, State, exchange_of, state_of

PLATFORM = "onnx_onnxv1"
router = APIRouter(prefix="/v2", tags=["open inference protocol"])


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
    if error := unreadiness(state_of(request.scope)):
        raise error
    return {"ready": True}


@router.get("/models/{model}", summary="Describe a model")
@router.get("/models/{model}/versions/{version}", summary="Describe a model version")
async def metadata(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """Versions, inputs and outputs."""
    registry = state_of(request.scope).registry
    contract = registry.get(model, version).contract
    versions = registry.families()[model].versions
    source, target = contract.input, contract.output
    return {
        "name": contract.name,
        "versions": [str(number) for number in sorted(versions) if versions[number].model],
        "platform": PLATFORM,
        "inputs": [_tensor(source.name, source.height, source.width)],
        "outputs": [_tensor(target.name, target.height, target.width)],
        "parameters": {"sha256": contract.sha256},
    }


@router.get("/models/{model}/ready", summary="Whether a model serves")
@router.get("/models/{model}/versions/{version}/ready", summary="Whether a version serves")
async def model_ready(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
    """404 when there is none, 503 when it is not loaded or the service drains."""
    state = state_of(request.scope)
    found = state.registry.get(model, version)
    if state.lifecycle.draining and (error := unreadiness(state)):
        raise error
    return {"name": found.contract.name, "ready": True}


@router.post("/models/{model}/infer", summary="Run a model")
@router.post("/models/{model}/versions/{version}/infer", summary="Run a model version")
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Grey levels on the network's grid, or encoded images, in; probabilities out."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    found = state.registry.get(model, version)
    exchange.model, exchange.version = found.contract.name, found.contract.version
    headers = request.headers
    encoding = headers.get("content-encoding", "")
    header_length = headers.get(v2_codec.HEADER_LENGTH.lower(), "")
    body = await read_body(request)
    submitted = time.perf_counter()

    def work() -> Response:
        exchange.watch.add("queue", (time.perf_counter() - submitted) * 1000)
        whole = inflate(body, encoding, state.limits.max_body_bytes)
        return _answer(whole, header_length, found, state, exchange)

    return await state.workers.run(
        work, deadline=exchange.deadline, gone=lambda: disconnected(request), size_bytes=len(body)
    )


@router.post("/repository/index", summary="List models and their states")
async def index(request: Request) -> list[dict[str, str]]:
    """Every version in the models folder, with the reason where it is not ready."""
    only_ready = v2_codec.wants_ready(await read_body(request))
    return [
        {
            "name": name,
            "version": str(number),
            "state": family.versions[number].state,
            "reason": family.versions[number].reason,
        }
        for name, family in sorted(state_of(request.scope).registry.families().items())
        for number in sorted(family.versions)
        if family.versions[number].state == "READY" or not only_ready
    ]


@router.post("/repository/models/{model}/load", summary="Load or roll back a model")
async def load(request: Request, model: str) -> JSONResponse:
    """Loads the newest version, or the one asked for; what serves is swapped when it is ready."""
    _may_control(request)
    version = v2_codec.load_version(await read_body(request))
    registry = state_of(request.scope).registry
    try:
        loaded = await asyncio.to_thread(registry.load, model, version)
    except BundleError as error:
        raise InvalidParameter(f"the bundle is refused: {error}") from None
    return JSONResponse({"name": model, "version": loaded.contract.version, "load": True})


@router.post("/repository/models/{model}/unload", summary="Unload a model")
async def unload(request: Request, model: str) -> JSONResponse:
    """Lets every version go; requests in flight still finish."""
    _may_control(request)
    await read_body(request)
    await asyncio.to_thread(state_of(request.scope).registry.unload, model)
    return JSONResponse({"name": model, "unload": True})


def _may_control(request: Request) -> None:
    if not state_of(request.scope).limits.model_control:
        raise Forbidden("model control is switched off here")


def _answer(
    body: bytes, header_length: str, model: Model, state: State, exchange: Exchange
) -> Response:
    """Reads, computes and writes; called in a worker thread."""
    contract = model.contract
    watch = exchange.watch
    with watch.stage("decode"):
        request = v2_codec.parse(
            body,
            header_length,
            contract.input.name,
            contract.output.name,
            state.limits.max_batch_items,
        )
    if isinstance(request.images, list):
        # encoded images come to the grid as ``/segment`` brings them there
        pipeline, query = state.pipeline, SegmentQuery()
        grey = np.concatenate(
            [pipeline.fitted(image, model, query, watch) for image in request.images]
        )
    else:
        grey = request.images
    expected = (*model.grid_size, 1)
    if grey.shape[1:] != expected:
        raise InvalidParameter(f"expected shape [N, {', '.join(map(str, expected))}]")
    mask = state.pipeline.runner.infer(model, grey, watch)
    with watch.stage("encode"):
        head = {"model_name": contract.name, "model_version": contract.version}
        content, json_length = v2_codec.render(request, head, contract.output.name, mask)
    if not json_length:
        return Response(content, media_type="application/json")
    headers = {v2_codec.HEADER_LENGTH: json_length}
    return Response(content, headers=headers, media_type="application/octet-stream")


def _tensor(name: str, height: int, width: int) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [-1, height, width, 1]}
