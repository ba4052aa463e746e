"""``/livez``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from lungseg.core.errors import Draining, LungsegError
from lungseg.inference.errors import ModelNotReady
from lungseg.web.schemas import problems
from lungseg.web.state import State, state_of

router = APIRouter(tags=["operations"])
OPENMETRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/livez", summary="Whether the process answers")
async def livez() -> dict[str, str]:
    """Always 200: a process that can't answer is to be replaced."""
    return {"status": "ok"}


@router.get(
    "/readyz", responses=problems("model_not_ready", "draining"), summary="Whether to send work"
)
async def readyz(request: Request) -> JSONResponse:
    """503 until the model is warmed up, while draining, and when none is loaded."""
    if error := unreadiness(state_of(request.scope)):
        raise error
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
    summary="Prometheus metrics",
)
async def metrics(request: Request) -> Response:
    """Everything counted and timed since the start."""
    text = state_of(request.scope).metrics.render()
    return Response(text, headers={"Content-Type": OPENMETRICS_TEXT})


def unreadiness(state: State) -> LungsegError | None:
    """Why no work should be sent; None when it may be."""
    if state.lifecycle.draining:
        return Draining("the service is shutting down")
    return None if state.ready else ModelNotReady("no model is loaded (yet)")
