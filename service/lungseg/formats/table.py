"""Statistics of many slices as CSV, one row each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from lungseg.core.measures import Density, Intensity, Region
from lungseg.core.types import Confidence


def _numbers(of: type) -> list[str]:
    """Members of a report's value that are numbers or texts, in their order."""
    hints = get_type_hints(of)
    nested = [
        name for name, hint in hints.items() if any(map(is_dataclass, (hint, *get_args(hint))))
    ]
    return [item.name for item in fields(of) if item.name not in nested]


_REGION, _INTENSITY, _DENSITY = (_numbers(value) for value in (Region, Intensity, Density))
_PLACES: dict[str, tuple[str, ...]] = {
    "width": ("image", "width"),
    "height": ("image", "height"),
    **{name: ("statistics", name) for name in _REGION},
    **{
        f"{side}_{name}": ("statistics", "lungs", side, name)
        for side in ("right", "left")
        for name in _REGION
    },
    "laterality": ("statistics", "laterality"),
    **{f"intensity_{name}": ("statistics", "intensity", name) for name in _INTENSITY},
    **{name: ("statistics", "density", name) for name in _DENSITY},
    **{name: ("confidence", name) for name in _numbers(Confidence)},
}
COLUMNS = ("filename", "error", *_PLACES, "flags")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def statistics_csv(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """CSV with a header line; unknown values are empty.

    Args:
        rows: for each file its name and the JSON answer, or ``{"error": problem}``.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for filename, answer in rows:
        row = {column: _at(answer, place) for column, place in _PLACES.items()}
        flags: list[dict[str, str]] = _at(answer, ("quality", "flags")) or []
        row["filename"] = f"'{filename}" if filename.startswith(_FORMULA) else filename
        row["error"] = _at(answer, ("error", "code"))
        row["flags"] = " ".join(flag["code"] for flag in flags)
        writer.writerow(row)
    return stream.getvalue()


def _at(answer: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        if not isinstance(answer, Mapping):
            return None
        answer = answer.get(name)
    return answer
