"""What FastAPI cannot infer for the OpenAPI document, and how that is put together."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lungseg.web.schemas import Problem

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
WORK_PROBLEMS = (
    "malformed_request",
    "unauthorized",
    "unknown_model",
    "body_too_large",
    "image_too_large",
    "unsupported_media_type",
    "undecodable_image",
    "multi_frame",
    "not_ct",
    "not_grey",
    "invalid_parameter",
    "internal_error",
    "overloaded",
    "model_not_ready",
    "draining",
    "deadline_exceeded",
)


def form_body(part: str, schema: dict[str, Any], *raw_types: str) -> dict[str, Any]:
    """A request body: a form with one kind of part, or bytes of some media types."""
    form = {"type": "object", "required": [part], "properties": {part: schema}}
    content = {"multipart/form-data": {"schema": form}, **dict.fromkeys(raw_types, BINARY)}
    return {"requestBody": {"required": True, "content": content}}


def describe_api(app: FastAPI) -> None:
    """Gives the application its OpenAPI document: problems instead of FastAPI's own errors."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            schemas = made["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            _drop_validation_errors(made)
            made["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            made["security"] = [{}, {"bearer": []}, {"api_key": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document


def _drop_validation_errors(document: dict[str, Any]) -> None:
    """Leaves out FastAPI's own form of a 422: no surface answers so."""
    for path in document["paths"].values():
        for operation in path.values():
            answer = operation["responses"].get("422", {})
            if "application/json" in answer.get("content", {}):
                del operation["responses"]["422"]
