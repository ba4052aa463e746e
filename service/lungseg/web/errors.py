"""One table: error → status and problem document (RFC 9457)."""

from __future__ import annotations

import json
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from lungseg.core.errors import InvalidParameter, LungsegError, MalformedRequest
from lungseg.inference.errors import Overloaded
from lungseg.inference.workers import ClientGone
from lungseg.web.state import Exchange, exchange_of

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; it is logged and counted, never received."""
PROBLEM = "application/problem+json"

PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "The request is malformed"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "This is switched off here"),
    "unknown_model": (404, "There is no such model"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "body_too_large": (413, "The body is too large"),
    "image_too_large": (413, "The image is too large"),
    "too_many_items": (413, "There are too many items"),
    "unsupported_media_type": (415, "The content is of no accepted format"),
    "undecodable_image": (422, "The image cannot be decoded"),
    "multi_frame": (422, "The file has several frames"),
    "not_ct": (422, "The object is not a CT slice"),
    "not_grey": (422, "The picture is not grey"),
    "invalid_parameter": (422, "A parameter is invalid"),
    "internal_error": (500, "Something went wrong here"),
    "overloaded": (503, "The service is overloaded"),
    "model_not_ready": (503, "The model is not ready"),
    "draining": (503, "The service is shutting down"),
    "deadline_exceeded": (504, "The answer would come too late"),
}
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 400: "malformed_request"}


def problem_document(code: str, detail: str, request_id: str) -> dict[str, str | int]:
    """The members of a problem."""
    status, title = PROBLEMS[code]
    return {
        "type": f"urn:lungseg:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }


def respond(error: LungsegError, exchange: Exchange) -> Response:
    """The answer to an error: a problem, or under ``/v2`` the protocol's own error object."""
    exchange.code = error.code
    status = PROBLEMS[error.code][0]
    headers: dict[str, str] = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif status == 503:
        headers["Retry-After"] = "1"
    elif status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if exchange.path.startswith("/v2"):
        # Triton and KServe know no 422: what a client got wrong is a 400.
        status = 400 if status in (415, 422) else status
        content = json.dumps({"error": str(error)})
        return Response(content, status, headers, "application/json")
    document = problem_document(error.code, str(error), exchange.request_id)
    return Response(json.dumps(document), status, headers, PROBLEM)


def add_error_handlers(app: FastAPI) -> None:
    """Teaches the application the table."""
    app.add_exception_handler(LungsegError, _lungseg_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGone, _client_gone)


def _lungseg_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, LungsegError):
        raise error
    return respond(error, exchange_of(request.scope))


def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    # The message says what is wrong; the offending value stays out: it is the client's.
    found = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
    in_body = any(item["loc"][0] == "body" for item in error.errors())
    kind = MalformedRequest if in_body else InvalidParameter
    return respond(kind("; ".join(found)), exchange_of(request.scope))


def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    exchange = exchange_of(request.scope)
    exchange.code = _CODE_OF_STATUS.get(error.status_code, "internal_error")
    status, title = PROBLEMS[exchange.code]
    if exchange.path.startswith("/v2"):
        content, media_type = json.dumps({"error": title}), "application/json"
    else:
        document = problem_document(exchange.code, f"{title}.", exchange.request_id)
        content, media_type = json.dumps(document), PROBLEM
    return Response(content, status, dict(error.headers or {}), media_type)


def _client_gone(request: Request, _error: Exception) -> Response:
    exchange_of(request.scope).code = "client_gone"
    return Response(status_code=CLIENT_CLOSED_REQUEST)
