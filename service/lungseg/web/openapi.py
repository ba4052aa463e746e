"""Examples and media types for the OpenAPI document that FastAPI cannot infer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lungseg.web.schemas import EXAMPLE_ID, Problem, problems

_BINARY = {"schema": {"type": "string", "format": "binary"}}
RAW_TYPES = (
    "image/png",
    "image/jpeg",
    "image/tiff",
    "image/bmp",
    "application/dicom",
    "application/octet-stream",
)
_HEADERS = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "Echoed or made."},
    "Server-Timing": {"schema": {"type": "string"}, "description": "The parts of `timings_ms`."},
    "X-Segmentation": {
        "schema": {"type": "string", "maxLength": 4096},
        "description": "Where the body is not JSON: the JSON answer without mask, id and times.",
    },
}
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
SEGMENT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            **dict.fromkeys(RAW_TYPES, _BINARY),
        },
    }
}


def _lung(pixels: int, x: int) -> dict[str, Any]:
    return {
        "pixels": pixels,
        "fraction": round(pixels / 262144, 6),
        "area_mm2": round(pixels * 0.49, 4),
        "bounding_box": {"x": x, "y": 130, "width": 150, "height": 240},
        "centroid": {"x": x + 75.2, "y": 249.8},
        "components": 1,
        "intensity": {
            "unit": "HU",
            "mean": -830.2,
            "std": 101.0,
            "min": -1020.0,
            "p5": -935.0,
            "p15": -912.0,
            "median": -853.0,
            "p95": -640.0,
            "max": 120.0,
        },
        "density": {
            "laa_950": 0.021,
            "laa_910": 0.161,
            "laa_856": 0.49,
            "haa_700": 0.071,
            "haa_600": 0.04,
            "haa_250": 0.011,
            "perc15": -912.0,
        },
    }


SEGMENT_EXAMPLE: dict[str, Any] = {
    "request_id": EXAMPLE_ID,
    "model": {"name": "lung-unet", "version": "1", "sha256": "0" * 64},
    "image": {
        "width": 512,
        "height": 512,
        "media_type": "application/dicom",
        "intensity_unit": "HU",
        "spacing_mm": [0.7, 0.7],
    },
    "mask": {"encoding": "coco_rle", "size": [512, 512], "counts": "PPYo1…"},
    "statistics": {
        **_lung(61234, 71),
        "total_pixels": 262144,
        "components": 2,
        "lungs": {"right": _lung(32000, 71), "left": _lung(29234, 292)},
        "laterality": "dicom_orientation",
    },
    "confidence": {"mean_probability": 0.985, "uncertain_fraction": 0.004},
    "quality": {"flags": [{"code": "touches_border", "message": "the mask touches the border"}]},
    "timings_ms": {
        "decode": 3.1,
        "queue": 0.2,
        "inference": 14.0,
        "postprocess": 1.9,
        "encode": 0.6,
    },
}
SEGMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask, in the form asked for",
        "headers": _HEADERS,
        "content": {
            "application/json": {"example": SEGMENT_EXAMPLE},
            "image/png": _BINARY,
            "application/x-npy": _BINARY,
            "application/dicom": _BINARY,
        },
    },
    **problems(*WORK_PROBLEMS),
}

BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/zip": _BINARY,
        },
    }
}
BATCH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An answer or a problem for each file, in the order sent",
        "content": {
            "application/json": {
                "example": {"items": [{"filename": "a.dcm", **SEGMENT_EXAMPLE}]},
            },
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "One item a line, as it is ready."}
            },
            "application/zip": {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": "A PNG mask for each slice and `statistics.csv`.",
                }
            },
        },
    },
    **problems(*WORK_PROBLEMS, "too_many_items"),
}


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
            _replace_validation_errors(made)
            _describe_v2_errors(made)
            made["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            made["security"] = [{}, {"bearer": []}, {"api_key": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document


def _replace_validation_errors(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            answer = operation["responses"].get("422", {})
            if "application/json" in answer.get("content", {}):
                operation["responses"]["422"] = problems("invalid_parameter")[422]


def _describe_v2_errors(document: dict[str, Any]) -> None:
    """The protocol's own error object, and its statuses, for everything under ``/v2``."""
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    answer = {"content": {"application/json": {"schema": error}}}
    for path, operations in document["paths"].items():
        if not path.startswith("/v2"):
            continue
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, description in _V2_ERRORS.items():
                operation["responses"].setdefault(status, {"description": description, **answer})


_V2_ERRORS = {
    "400": "The request is malformed",
    "401": "An API key is needed",
    "403": "Loading and unloading is switched off",
    "404": "There is no such model",
    "413": "The body is too large",
    "500": "Something went wrong here",
    "503": "Not ready, overloaded or draining",
    "504": "The answer would come too late",
}
