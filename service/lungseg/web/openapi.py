"""What FastAPI cannot infer for the OpenAPI document, and how that is put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from lungseg.web.errors import PROBLEMS
from lungseg.web.schemas import Problem

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_NO_WORK = ("forbidden", "not_found", "method_not_allowed", "too_many_items")
WORK_PROBLEMS = tuple(code for code in PROBLEMS if code not in _NO_WORK)
"""What can be wrong where a slice is segmented."""


def request_of(
    query: type[BaseModel], parts: Mapping[str, dict[str, Any]], *raw_types: str
) -> dict[str, Any]:
    """A request: its parameters, and its body of files and fields, or of bytes of some types.

    Args:
        query: its parameters.
        parts: of a form the schema of each part with files; one of them is there.
        raw_types: what a body that is no form may be.
    """
    fields = query.model_json_schema()["properties"]
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": field["description"],
            "schema": field,
        }
        for name, field in fields.items()
    ]
    properties = {**parts} | {name: _without_null(field) for name, field in fields.items()}
    required = [{"required": [part]} for part in parts]
    choice = required[0] if len(required) == 1 else {"anyOf": required}
    form = {"type": "object", **choice, "properties": properties}
    content = {"multipart/form-data": {"schema": form}, **dict.fromkeys(raw_types, BINARY)}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A parameter as a field of a form, which is not there rather than null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in field.items() if name != "anyOf"}
    return {**rest, **kinds[0]} if len(kinds) == 1 else field


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
