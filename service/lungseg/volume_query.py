"""What a caller may ask of a volume: one model for HTTP, command line and library."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lungseg.query import ModelQuery, OneOf, UnitName, are_spacings, numbers

SPACES = ("lps", "ras")
"""Directions in which a mesh's x and y grow: to the patient's left and back, or right and front."""
EXTRAS = ("volume",)
"""What a zip of all may have besides."""
MAX_UID_CHARACTERS = 64
"""Of a DICOM UID."""


def _spacing(value: Any) -> tuple[float, float, float] | None:
    found = numbers(value, 3)
    if found is None or not are_spacings(found, "slice,row,column"):
        return None
    return found[0], found[1], found[2]


Spacing = Annotated[
    tuple[float, float, float] | None, BeforeValidator(_spacing, json_schema_input_type=str)
]


class VolumeQuery(ModelQuery):
    """What is asked of one volume."""

    series: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_UID_CHARACTERS,
        description="The series of this SeriesInstanceUID is meant, where several were sent; by "
        "default that which reaches furthest along the body.",
    )
    volume: int | None = Field(
        default=None,
        ge=0,
        description="The phase of this index, from 0, is meant, where several lie at one place.",
    )
    unit: UnitName | None = Field(
        default=None,
        description="The values of NIfTI, NRRD, MHA and NPY are this; by default HU where they "
        "look like it. Not for DICOM.",
    )
    spacing_mm: Spacing = Field(
        default=None,
        description="Slices, rows and columns lie so far apart, `slice,row,column` in mm, where no "
        "file says it.",
        examples=["2.5,0.7,0.7"],
    )
    space: Annotated[str, OneOf(SPACES)] = Field(
        default="lps",
        description="The x and y of an STL grow to the patient's left and back (`lps`), or right "
        "and front (`ras`).",
    )
    include: Annotated[str, OneOf(EXTRAS)] | None = Field(
        default=None,
        description="A zip also holds the volume itself, on the grid of the mask.",
    )
