"""``contract.json``: everything about a model that the service must know.

Nothing about a model stands in service code or settings; a bundle folder holds

- ``model.onnx``: the graph, division by 255 included;
- ``contract.json``: this contract;
- ``golden.npz``: a phantom's slice, what the network sees of it, and the masks it must give;
- ``CARD.md``: what it was trained on and what it is good for.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lungseg.core.body import Covers
from lungseg.core.preprocess import IntensityRule


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Frozen):
    """Name and shape of the graph's input or output; axis 0 is the free batch axis."""

    name: str = Field(min_length=1)
    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)


class MaskRule(_Frozen):
    """How probabilities become a mask, unless a caller asks otherwise."""

    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    largest_components: int = Field(default=0, ge=0)


class Golden(_Frozen):
    """How closely ``golden.npz`` must be reproduced on another machine."""

    max_abs_difference: float = Field(default=1e-3, gt=0.0, le=0.1)


class Contract(_Frozen):
    """The contract of one model version."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str = Field(pattern=r"^[1-9][0-9]{0,8}$")
    created: str
    """ISO 8601 date of the export."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of ``model.onnx``."""
    opset: int
    input: TensorSpec
    output: TensorSpec
    grid: Covers = "whole"
    """What the input's grid covers of a slice: all of it, or the box of the body."""
    intensity: IntensityRule = IntensityRule()
    mask: MaskRule = MaskRule()
    golden: Golden = Golden()
    metrics: dict[str, float] = {}
    """What the export measured, for example ``kaggle-lungs.dice``."""
    license: str = "research use only, not a medical device"
