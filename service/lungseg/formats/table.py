"""Statistics of many slices or volumes as CSV, one row each, written and read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from lungseg.core.measures import Density, Intensity, Region
from lungseg.core.types import Confidence
from lungseg.core.volume import Acquisition, Series
from lungseg.core.volume_measures import Profile, VolumeRegion, VolumeStatistics


def _numbers(of: type) -> list[str]:
    """Members of a report's value that are numbers or texts, in their order."""
    hints = get_type_hints(of)
    nested = [
        name for name, hint in hints.items() if any(map(is_dataclass, (hint, *get_args(hint))))
    ]
    return [item.name for item in fields(of) if item.name not in nested]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A kind of table, by where an answer has what its columns show."""

    places: Mapping[str, tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in their order."""
        return ("filename", "error", *self.places, "flags")

    @property
    def kinds(self) -> dict[str, type]:
        """What the cells of each column are, where they are not None: bool, int, float or str."""
        kinds = _kinds(
            Series, Region, VolumeStatistics, Intensity, Density, Confidence, Acquisition
        )
        places = {"filename": (), "error": (), **self.places, "flags": ()}
        return {name: kinds.get("".join(place[-1:]), str) for name, place in places.items()}

    def row(self, filename: str, answer: Mapping[str, Any]) -> list[Any]:
        """The cells of one file, in the order of the columns; unknown values are None.

        Args:
            filename: what the file is called.
            answer: the JSON answer, with the name of its own file as ``result`` where it has
                one, or ``{"error": problem}``.
        """
        row = {column: _at(answer, place) for column, place in self.places.items()}
        flags: list[dict[str, str]] = _at(answer, ("quality", "flags")) or []
        row["filename"] = filename
        row["error"] = _at(answer, ("error", "code"))
        row["result"] = row["result"] or ""
        row["flags"] = " ".join(flag["code"] for flag in flags)
        values = [row[column] for column in self.columns]
        return [as_cell(value) if isinstance(value, str) else value for value in values]

    def csv(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
        """CSV with a header line; of each file what ``row`` takes."""
        return csv_lines([self.columns, *(self.row(*row) for row in rows)])

    def read(self, text: str) -> list[dict[str, str]]:
        """The rows of such a table; one that was cut off is left out.

        Raises:
            ValueError: it is no such table.
        """
        complete = text[: text.rfind("\n") + 1]
        try:
            header, *rows = csv.reader(io.StringIO(complete, newline=""))
        except (csv.Error, ValueError):
            header, rows = [], []
        if tuple(header) != self.columns:
            raise ValueError("expected a table of statistics with today's columns")
        whole = (row for row in rows if len(row) == len(self.columns))
        return [dict(zip(self.columns, row, strict=True)) for row in whole]


def _kinds(*values: type) -> dict[str, type]:
    """The types of members by name; what is none of a number is a text."""
    hints = {name: hint for of in values for name, hint in get_type_hints(of).items()}
    found = {name: {hint, *get_args(hint)} & {bool, int, float} for name, hint in hints.items()}
    return {name: next(iter(kinds)) for name, kinds in found.items() if kinds}


_INTENSITY, _DENSITY, _CONFIDENCE = map(_numbers, (Intensity, Density, Confidence))


def _places(region: type) -> dict[str, tuple[str, ...]]:
    """Where an answer has the numbers of all lung, and those of each lung."""
    sizes = _numbers(region)
    return {
        **{name: ("statistics", name) for name in sizes},
        **{
            f"{side}_{name}": ("statistics", "lungs", side, name)
            for side in ("right", "left")
            for name in sizes
        },
        "laterality": ("statistics", "laterality"),
        **{f"intensity_{name}": ("statistics", "intensity", name) for name in _INTENSITY},
        **{name: ("statistics", "density", name) for name in _DENSITY},
        **{name: ("confidence", name) for name in _CONFIDENCE},
    }


SLICES = Table(
    places={
        "result": ("result",),
        "width": ("image", "width"),
        "height": ("image", "height"),
        **_places(Region),
    }
)
"""One row for each slice."""
VOLUMES = Table(
    places={
        "result": ("result",),
        **{name: ("volume", name) for name in ("slices", "height", "width")},
        **_places(VolumeRegion),
        "right_left_ratio": ("statistics", "right_left_ratio"),
        **{name: ("acquisition", name) for name in _numbers(Acquisition)},
    }
)
"""One row for each volume."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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


def _at(answer: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        if not isinstance(answer, Mapping):
            return None
        answer = answer.get(name)
    return answer
