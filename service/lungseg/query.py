"""What a caller may ask of a segmentation: one model for HTTP, command line and library.

Names, limits and sentences stand here once; OpenAPI, the command line's options and the
library's keyword arguments are derived from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, ValidationError, core_schema

from lungseg.answers import as_texts
from lungseg.core.errors import InvalidParameter
from lungseg.core.types import Unit
from lungseg.formats.write import ENCODINGS

Q = TypeVar("Q", bound="ModelQuery")
UNITS: dict[str, Unit] = {"hu": "HU", "grey": "grey level"}
"""What the values of an array may be."""
COUNTS = {2: "two", 3: "three"}
LEAST_MM, MOST_MM = 0.01, 100.0
"""What a spacing may be."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A text that is one of the names of a table, checked and documented as a ``Literal`` is."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """``a,b`` as so many finite numbers, None as itself."""
    if isinstance(value, list | tuple):  # the library takes pairs
        value = ",".join(map(str, value))
    if value is None:
        return None
    try:
        found = tuple(float(part) for part in str(value).split(","))
    except ValueError:  # its message quotes the value
        found = ()
    if len(found) != count or not math.isfinite(sum(found)):
        raise ValueError(f"expected {COUNTS[count]} finite numbers, separated by commas")
    return found


def are_spacings(values: Sequence[float], names: str) -> bool:
    """Makes sure that numbers can be distances of pixels in mm."""
    if not all(LEAST_MM <= value <= MOST_MM for value in values):
        raise ValueError(f"expected {names} spacing in mm, each from {LEAST_MM} to {MOST_MM:.0f}")
    return True


def _spacing(value: Any) -> tuple[float, float] | None:
    pair = numbers(value, 2)
    return (pair[0], pair[1]) if pair and are_spacings(pair, "row,column") else None


def _window(value: Any) -> tuple[float, float] | None:
    pair = numbers(value, 2)
    if pair and not -32768 <= pair[0] < pair[1] <= 65535:
        raise ValueError("expected low,high in HU with low < high, from -32768 to 65535")
    return (pair[0], pair[1]) if pair else None


Encoding = Annotated[str, OneOf(ENCODINGS)]
UnitName = Annotated[str, OneOf(tuple(UNITS)), BeforeValidator(str.lower)]
Spacing = Annotated[
    tuple[float, float] | None, BeforeValidator(_spacing, json_schema_input_type=str)
]
Window = Annotated[tuple[float, float] | None, BeforeValidator(_window, json_schema_input_type=str)]


class ModelQuery(BaseModel):
    """Which model answers, and where lung begins for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Lung begins at this probability; by default the model's own threshold holds.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="The model of this name answers; by default it is the configured one.",
    )
    version: str | None = Field(
        default=None,
        min_length=1,
        description="Its version of this number answers; by default it is the one that serves.",
    )


class SegmentQuery(ModelQuery):
    """What is asked of one slice, or of each slice of many."""

    encoding: Encoding = Field(
        default="coco_rle", description="The mask within a JSON answer is written in this encoding."
    )
    spacing_mm: Spacing = Field(
        default=None,
        description="Rows and columns lie so far apart, `row,column` in mm, where no file says it.",
        examples=["0.7,0.7"],
    )
    window_hu: Window = Field(
        default=None,
        description="A picture's black and white stand for these HU, `low,high`; not for DICOM.",
        examples=["-1000,400"],
    )
    unit: UnitName = Field(
        default="grey",
        description="An array's or a signed or floating-point TIFF's values are this; not DICOM's.",
    )
    largest_components: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="So many regions are kept, 0 keeps all; by default the model's own rule holds.",
    )
    allow_non_ct: bool = Field(
        default=False, description="A DICOM that is no CT slice is accepted, with a flag."
    )


def reason(error: Mapping[str, Any]) -> str:
    """What is wrong with a value by one of pydantic's errors, as our own sentences say it."""
    said = str(error["msg"]).removeprefix("Value error, ")
    subject, _, wanted = said.partition(" should ")
    if subject not in ("Input", "String"):
        return said
    wanted = wanted.partition(", unable")[0].removeprefix("be ").removeprefix("have ")
    return f"expected {'a value ' if ' than ' in wanted else ''}{wanted}"


def checked_query(kind: type[Q], parameters: dict[str, Any]) -> Q:
    """Checks parameters of a kind of query as the service does.

    Raises:
        InvalidParameter: one has a name or value that is not accepted.
    """
    try:
        return kind.model_validate(as_texts(parameters))
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {reason(e)}" for e in error.errors()]
        raise InvalidParameter("; ".join(found)) from None
