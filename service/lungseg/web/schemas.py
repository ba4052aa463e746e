"""What the HTTP contract looks like, for FastAPI's checks and for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lungseg.core.measures import Statistics
from lungseg.core.quality import Flag
from lungseg.core.report import Quality
from lungseg.core.types import Confidence
from lungseg.core.volume import Dropped, Series
from lungseg.core.volume_measures import VolumeStatistics
from lungseg.forms import FORMS
from lungseg.query import Encoding, OneOf, SegmentQuery
from lungseg.volume_forms import VOLUME_FORMS
from lungseg.volume_query import VolumeQuery
from lungseg.web.errors import PROBLEM, PROBLEMS, problem_document

EXAMPLE_ID = "6f1c0f5e9d3b4b6c8d5e2a7f90c1d2e3"


class SliceQuery(SegmentQuery):
    """Query parameters of ``/segment``."""

    format: Annotated[str, OneOf(tuple(FORMS))] | None = Field(
        default=None,
        description="The answer has this form; by default that which `Accept` names, else `json`.",
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
    affine_lps: list[list[float]] | None = Field(
        description="4 x 4, from (0, row, column, 1) to the patient's mm: left, back, head. Null "
        "where the file does not say how the slice lies."
    )


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


class SeriesQuery(VolumeQuery):
    """Query parameters of ``/segment/volume``."""

    format: Annotated[str, OneOf(tuple(VOLUME_FORMS))] | None = Field(
        default=None,
        description="The answer has this form; by default that which `Accept` names, else `json`.",
    )


class VolumeInfo(BaseModel):
    """What the files were found to be."""

    slices: int
    height: int
    width: int
    media_type: str
    intensity_unit: Literal["HU", "grey level"]
    spacing_mm: tuple[float | None, float, float] | None = Field(
        description="(slice, row, column) in mm; between slices the median."
    )
    affine_lps: list[list[float]] | None = Field(
        description="4 x 4, from (slice, row, column, 1) to the patient's mm: left, back, head. "
        "Null where no one matrix places all slices."
    )
    acquisition_plane: Literal["axial", "coronal", "sagittal"] | None
    series: list[Series] = Field(description="All that was sent and could be a volume.")
    dropped: list[Dropped] = Field(description="What was sent and is part of none.")


class AcquisitionInfo(BaseModel):
    """How the scan was made; null where the header does not say."""

    kernel: str | None
    slice_thickness_mm: float | None
    kvp: float | None
    contrast: bool | None
    manufacturer: str | None
    date: None = Field(description="Always null: it might tell who the patient is.")


class VolumeAnswer(BaseModel):
    """The JSON answer for one volume."""

    request_id: str
    model: ModelRef
    volume: VolumeInfo
    statistics: VolumeStatistics
    acquisition: AcquisitionInfo
    confidence: Confidence
    quality: Quality
    timings_ms: dict[str, float]


class TwoAnswers(BaseModel):
    """What is sent to be compared: of each answer what is measured and how it was made."""

    model_config = ConfigDict(extra="forbid")

    before: dict[str, Any] = Field(description="The answer of `/segment/volume` for the earlier.")
    after: dict[str, Any] = Field(description="That for the later scan.")


class Repeatability(BaseModel):
    """Between which changes of an unchanged lung lie in 95% of pairs."""

    low: float
    high: float
    unit: str
    source: str


class Change(BaseModel):
    """How one figure changed; null where it is unknown or scans do not compare."""

    unit: str
    before: float | None
    after: float | None
    change: float | None
    percent: float | None
    repeatability: Repeatability | None
    verdict: Literal["within", "beyond"] | None


class Figure(Change):
    """The same, raw and brought to the volume before."""

    adjusted: Change | None


Figures = dict[str, Figure] | None
Thirds = dict[Literal["lower", "middle", "upper"], Figures] | None


class Differences(BaseModel):
    """Of both lungs, each lung and each third, by the names of the statistics."""

    both: Figures
    lungs: dict[Literal["right", "left"], Figures]
    thirds: dict[
        Literal["right", "left"], dict[Literal["lower", "middle", "upper"], Figures] | None
    ]


class Adjustment(BaseModel):
    """How densities are brought to the volume before."""

    model: str
    formula: str
    reference: str


class Comparison(BaseModel):
    """What changed between two scans."""

    request_id: str
    differences: Differences
    adjustment: Adjustment
    warnings: list[Flag]


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
    pinned: str | None = Field(
        description="The version that serves by the settings or a roll-back, else null: the newest."
    )
    versions: list[VersionInfo]


class ModelList(BaseModel):
    """All models of the models folder."""

    models: list[ModelInfo]


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for error codes, with an example of each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEMS[code]
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
        entry = responses.setdefault(status, {"description": title, "content": {PROBLEM: content}})
        example = problem_document(code, f"{title}.", EXAMPLE_ID)
        entry["content"][PROBLEM]["examples"][code] = {"value": example}
    return responses
