"""What FastAPI cannot infer for the OpenAPI document, and how that is put together."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from lungseg.web.errors import PROBLEMS
from lungseg.web.schemas import Problem

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_NO_WORK = ("forbidden", "not_found", "method_not_allowed", "too_many_items")
WORK_PROBLEMS = tuple(code for code in PROBLEMS if code not in _NO_WORK)
"""What can be wrong where a slice is segmented."""


def form_body(part: str, schema: dict[str, Any], *raw_types: str) -> dict[str, Any]:
    """A request body: a form with one kind of part, or bytes of some media types."""
    form = {"type": "object", "required": [part], "properties": {part: schema}}
    content = {"multipart/form-data": {"schema": form}, **dict.fromkeys(raw_types, BINARY)}
    return {"requestBody": {"required": True, "content": content}}


def describe_api(app: FastAPI) -> None:
    """Gives the application its OpenAPI document: problems instead of FastAPI's own errors."""
    make = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(make())
        return make()

    app.openapi = document


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{}, {"bearer": []}, {"api_key": []}]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for path in document["paths"].values():  # no surface answers a 422 as FastAPI would
        for operation in path.values():
            answer = operation["responses"].get("422", {})
            if "application/json" in answer.get("content", {}):
                del operation["responses"]["422"]
