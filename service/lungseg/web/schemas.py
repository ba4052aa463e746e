"""What the HTTP contract looks like, for FastAPI's checks and for the OpenAPI document."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lungseg.core.measures import Confidence, Statistics
from lungseg.core.report import Quality
from lungseg.web.errors import PROBLEM, PROBLEMS, problem_document

Format = Literal["json", "png", "overlay", "probability", "npy", "dicom-seg"]
Encoding = Literal[
    "coco_rle",
    "coco_rle_uncompressed",
    "kaggle_rle",
    "cvat",
    "label_studio",
    "polygon",
    "png_base64",
    "none",
]
EXAMPLE_ID = "6f1c0f5e9d3b4b6c8d5e2a7f90c1d2e3"


def _numbers(value: Any) -> tuple[float, float] | None:
    """``a,b`` as two finite numbers, None as itself."""
    if isinstance(value, list):
        # FastAPI collects a parameter whose type is a tuple into a list.
        value = ",".join(map(str, cast("list[object]", value)))
    if value is None:
        return None
    try:
        first, second = (float(part) for part in str(value).split(","))
    except ValueError:  # its message quotes the value
        first = second = math.nan
    if not math.isfinite(first + second):
        raise ValueError("expected two finite numbers with a comma between them")
    return first, second


def _spacing(value: Any) -> tuple[float, float] | None:
    pair = _numbers(value)
    if pair and not all(0.01 <= number <= 100 for number in pair):
        raise ValueError("expected row,column spacing in mm, each from 0.01 to 100")
    return pair


def _window(value: Any) -> tuple[float, float] | None:
    pair = _numbers(value)
    if pair and not -32768 <= pair[0] < pair[1] <= 65535:
        raise ValueError("expected low,high in HU with low < high, from -32768 to 65535")
    return pair


class SegmentQuery(BaseModel):
    """Query parameters of ``/segment`` that mean the same for every slice of a batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoding: Encoding = Field(default="coco_rle", description="Form of the mask within JSON.")
    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Lung is where the probability is at least this; by default the model's own.",
    )
    spacing_mm: Annotated[
        tuple[float, float] | None, BeforeValidator(_spacing, json_schema_input_type=str)
    ] = Field(
        default=None,
        description="`row,column` spacing of pictures that carry none, in mm.",
        examples=["0.7,0.7"],
    )
    window_hu: Annotated[
        tuple[float, float] | None, BeforeValidator(_window, json_schema_input_type=str)
    ] = Field(
        default=None,
        description="`low,high`: HU that black and white of a picture stand for.",
        examples=["-1000,400"],
    )
    largest_components: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Most connected regions to keep, 0 = all; by default the model's own.",
    )
    allow_non_ct: bool = Field(
        default=False,
        description="Accept a DICOM that is not CT, with a flag.",
    )
    model: str | None = Field(default=None, min_length=1, description="By default the configured.")
    version: str | None = Field(default=None, min_length=1, description="By default the serving.")


class SliceQuery(SegmentQuery):
    """Query parameters of ``/segment``."""

    format: Format | None = Field(
        default=None,
        description="Form of the answer; by default after `Accept`, else `json`.",
    )


class ModelRef(BaseModel):
    """The model that answered."""

    name: str
    version: str
    sha256: str


class ImageInfo(BaseModel):
    """What the content was found to be."""

    width: int
    height: int
    media_type: str
    intensity_unit: Literal["HU", "grey level"]
    spacing_mm: tuple[float, float] | None = Field(description="(row, column) in mm.")


class Mask(BaseModel):
    """The mask in the encoding asked for; further members depend on it."""

    model_config = ConfigDict(extra="allow")

    encoding: Encoding
    size: tuple[int, int] = Field(description="(height, width): always the input's.")


class SegmentAnswer(BaseModel):
    """The JSON answer for one slice."""

    request_id: str
    model: ModelRef
    image: ImageInfo
    mask: Mask
    statistics: Statistics
    confidence: Confidence
    quality: Quality
    timings_ms: dict[str, float]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class VersionInfo(BaseModel):
    """One version of a model."""

    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not ready, or why newer content was refused.")
    serving: bool = Field(description="Whether it answers where a request names no version.")
    sha256: str | None
    metrics: dict[str, float]


class ModelInfo(BaseModel):
    """A model and its versions, newest first."""

    name: str
    default: bool = Field(description="Whether it answers where a request names no model.")
    versions: list[VersionInfo]


class ModelList(BaseModel):
    """All models of the models folder."""

    models: list[ModelInfo]


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for error codes, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEMS[code]
        entry = responses.setdefault(
            status,
            {
                "description": title,
                "content": {
                    PROBLEM: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )
        example = problem_document(code, f"{title}.", EXAMPLE_ID)
        entry["content"][PROBLEM]["examples"][code] = {"value": example}
    return responses
