"""What is raised becomes an answer, in the form of the surface that was asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from lungseg.core.errors import LungsegError
from lungseg.inference.errors import Overloaded
from lungseg.inference.workers import ClientGone
from lungseg.query import reason
from lungseg.web.errors import PROBLEMS
from lungseg.web.state import Exchange, exchange_of

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; it is logged and counted, never received."""
REFUSALS = (LungsegError, HTTPException, ClientGone)
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}


def respond(error: LungsegError, exchange: Exchange) -> Response:
    """The answer to an error."""
    status = PROBLEMS[error.code][0]
    headers: dict[str, str] = {}
    if status == 503:
        wait_s = error.retry_after_s if isinstance(error, Overloaded) else 0.0
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    elif status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(error.code, str(error), exchange, headers)


async def refuse(request: Request, error: Exception) -> Response:
    """The answer to an exception of ``REFUSALS``."""
    exchange = exchange_of(request.scope)
    match error:
        case LungsegError():
            return respond(error, exchange)
        case HTTPException():
            code = _CODE_OF_STATUS.get(error.status_code, LungsegError.code)
            headers = dict(error.headers or {})
            if headers.get("Allow") == "GET":
                headers["Allow"] = "GET, HEAD"
            return _answer(code, f"{PROBLEMS[code][1]}.", exchange, headers)
        case _:
            exchange.code = "client_gone"
            return Response(status_code=CLIENT_CLOSED_REQUEST)


def sentences(errors: Iterable[Mapping[str, Any]]) -> str:
    """What is wrong with parameters, each thing once."""
    return "; ".join(dict.fromkeys(_sentence(item) for item in errors))


def _sentence(item: Mapping[str, Any]) -> str:
    """What is wrong with a parameter, without its value and any name that the client made up."""
    if item["type"] == "extra_forbidden":
        return "expected only the parameters of this endpoint, received another"
    return f"{item['loc'][-1]}: {reason(item)}"


def _answer(code: str, detail: str, exchange: Exchange, headers: dict[str, str]) -> Response:
    exchange.code = code
    response = exchange.surface.render(code, detail, exchange.request_id)
    response.headers.update(headers)
    return response
