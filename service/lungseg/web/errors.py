"""One table: error → status and problem document (RFC 9457); and what only the web refuses."""

from __future__ import annotations

import json

from starlette.responses import Response

from lungseg.core.errors import LungsegError

PROBLEM = "application/problem+json"

PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "The request is malformed"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "This is switched off here"),
    "unknown_model": (404, "There is no such model"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "headers_too_slow": (408, "The headers came too slowly"),
    "body_too_large": (413, "The body is too large"),
    "image_too_large": (413, "The image is too large"),
    "too_many_items": (413, "There are too many items"),
    "volume_too_large": (413, "The volume is too large"),
    "unsupported_media_type": (415, "The content is of no accepted format"),
    "undecodable_image": (422, "The image cannot be decoded"),
    "multi_frame": (422, "The file has several frames"),
    "not_ct": (422, "The object is not a CT slice"),
    "not_grey": (422, "The picture is not grey"),
    "several_volumes": (422, "There are several volumes"),
    "inconsistent_geometry": (422, "The slices form no volume"),
    "invalid_parameter": (422, "A parameter is invalid"),
    "headers_too_large": (431, "The headers are too large"),
    "internal_error": (500, "Something went wrong here"),
    "overloaded": (503, "The service is overloaded"),
    "model_not_ready": (503, "The model is not ready"),
    "draining": (503, "The service is shutting down"),
    "deadline_exceeded": (504, "The answer would come too late"),
}


class Unauthorized(LungsegError, code="unauthorized"):
    """API keys are configured and the request carries none that is known."""


class Forbidden(LungsegError, code="forbidden"):
    """The operator has switched this off."""


class HeadersTooLarge(LungsegError, code="headers_too_large"):
    """What a request has besides its body is more than the service takes in."""


class HeadersTooSlow(LungsegError, code="headers_too_slow"):
    """A request was begun, and its headers did not come in time."""


class Draining(LungsegError, code="draining"):
    """The service is shutting down and takes no new work."""


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


def problem(code: str, detail: str, request_id: str) -> Response:
    """A problem as a response."""
    document = problem_document(code, detail, request_id)
    return Response(json.dumps(document), PROBLEMS[code][0], media_type=PROBLEM)
