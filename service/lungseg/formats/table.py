"""Statistics of many slices as CSV, one row each, written and read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from lungseg.core.measures import Density, Intensity, Region
from lungseg.core.types import Confidence
from lungseg.core.volume_measures import Profile


def _numbers(of: type) -> list[str]:
    """Members of a report's value that are numbers or texts, in their order."""
    hints = get_type_hints(of)
    nested = [
        name for name, hint in hints.items() if any(map(is_dataclass, (hint, *get_args(hint))))
    ]
    return [item.name for item in fields(of) if item.name not in nested]


_REGION, _INTENSITY, _DENSITY = (_numbers(value) for value in (Region, Intensity, Density))
_PLACES: dict[str, tuple[str, ...]] = {
    "result": ("result",),
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
        rows: for each file its name and the JSON answer, with the name of its own file as
            ``result`` where it has one, or ``{"error": problem}``.
    """
    return csv_lines([COLUMNS, *(table_row(filename, answer) for filename, answer in rows)])


def table_row(filename: str, answer: Mapping[str, Any]) -> list[Any]:
    """The cells of one file, in the order of ``COLUMNS``."""
    row = {column: _at(answer, place) for column, place in _PLACES.items()}
    flags: list[dict[str, str]] = _at(answer, ("quality", "flags")) or []
    row["filename"] = as_cell(filename)
    row["error"] = _at(answer, ("error", "code"))
    row["result"] = as_cell(row["result"] or "")
    row["flags"] = " ".join(flag["code"] for flag in flags)
    return [row[column] for column in COLUMNS]


def as_cell(name: str) -> str:
    """A name as tables hold it: no formula, and text whatever bytes the file system has."""
    plain = name.encode(errors="backslashreplace").decode()
    return f"'{plain}" if plain.startswith(_FORMULA) else plain


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def profile_csv(profile: Profile) -> str:
    """A volume's figures plane by plane, from the feet to the head; unknown ones are empty."""
    planes = len(profile.mean_hu)
    columns: dict[str, Sequence[float | None] | None] = {
        "position_mm": profile.position_mm,
        "right_area_mm2": profile.area_mm2.right,
        "left_area_mm2": profile.area_mm2.left,
        "mean_hu": profile.mean_hu,
        "laa_950": profile.laa_950,
    }
    values = [column or (None,) * planes for column in columns.values()]
    return csv_lines([[*columns], *zip(*values, strict=True)])


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of a table that ``statistics_csv`` began; one that was cut off is left out.

    Raises:
        ValueError: it is no such table.
    """
    complete = text[: text.rfind("\n") + 1]
    try:
        header, *rows = csv.reader(io.StringIO(complete, newline=""))
    except (csv.Error, ValueError):
        header, rows = [], []
    if tuple(header) != COLUMNS:
        raise ValueError("expected a table of statistics with today's columns")
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows if len(row) == len(COLUMNS)]


def _at(answer: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        if not isinstance(answer, Mapping):
            return None
        answer = answer.get(name)
    return answer
