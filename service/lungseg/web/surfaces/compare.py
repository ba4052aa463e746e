"""``POST /compare``: two answers of ``/segment/volume`` in, what changed between them out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lungseg.core.compare import compare
from lungseg.core.errors import MalformedRequest
from lungseg.forms import compact
from lungseg.web.body import read_body
from lungseg.web.schemas import Comparison, TwoAnswers, problems
from lungseg.web.state import exchange_of
from lungseg.web.surface import Surface

MAX_BYTES = 16 * 1024 * 1024
"""Two answers with profiles of a hundred thousand planes; most have a thousandth of it."""
MEMBERS = ("before", "after")
router = APIRouter(tags=["segmentation"])
SURFACE = Surface(
    prefixes=("/compare",),
    router=router,
    body_limit=lambda settings: min(MAX_BYTES, settings.max_body_bytes),
)


@router.post(
    "/compare",
    response_model=Comparison,
    responses=problems(
        *("malformed_request", "unauthorized", "body_too_large", "unsupported_media_type"),
        *("invalid_parameter", "overloaded", "draining", "deadline_exceeded", "internal_error"),
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": TwoAnswers.model_json_schema()}},
        }
    },
    summary="Compare two volumes of one patient",
)
async def compare_volumes(request: Request) -> Response:
    """Differences, raw and adjusted for the volume, and whether rescans differ as much."""
    body = await read_body(request)
    found = await asyncio.to_thread(_compared, body)
    content = compact({"request_id": exchange_of(request.scope).request_id, **found})
    return Response(content, media_type="application/json")


def _compared(body: bytes) -> dict[str, Any]:
    try:
        sent = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):  # their words quote the body
        raise MalformedRequest("expected JSON, received something else") from None
    if not isinstance(sent, Mapping) or set(cast("Mapping[str, Any]", sent)) != {*MEMBERS}:
        raise MalformedRequest(
            "expected an object with the members before and after, each an answer of "
            "/segment/volume, received something else"
        )
    return compare(sent["before"], sent["after"])


def _refuse(_name: str) -> NoReturn:
    """NaN and its like are not JSON."""
    raise ValueError
