"""Where slices come from: folders and tables of pairs, each a named source with a weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungseg.formats.index import numbered_rows
from training.config import PATIENT_PATTERN
from training.data.dataset import Listing, Pair, list_pairs, slices_of
from training.data.layouts import stem_of
from training.data.patients import expect_match, patient_of
from training.data.volumes import is_volume
from training.errors import DataError

COLUMNS = ("image", "mask")
"""Of a table of pairs; those that ``read_table`` names besides may be missing or empty."""
_SPEC = re.compile(r"^(?:(?P<name>[\w.-]+)=)?(?P<path>.+?)(?::(?P<weight>\d+(?:\.\d+)?))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set to train on.

    Attributes:
        name: in reports, and in the split.
        path: a folder in one of the known layouts, or a CSV table of pairs.
        weight: how often each of its slices is drawn in an epoch; 1 is once.
    """

    name: str
    path: Path
    weight: float = 1.0


def parse_source(text: str) -> Source:
    """Reads ``[NAME=]PATH[:WEIGHT]``; the name is the folder's or the table's by default.

    Raises:
        DataError: the weight is 0.
    """
    if Path(text).exists():  # a path may hold the very signs that the syntax uses
        return Source(name=_default_name(Path(text)), path=Path(text))
    match = _SPEC.match(text)
    if match is None:
        raise DataError(f"{text!r}: expected [NAME=]PATH[:WEIGHT]")
    path = Path(match["path"])
    weight = float(match["weight"] or 1)
    if weight <= 0:
        raise DataError(f"{text}: expected a weight above 0; leave the source out instead")
    return Source(name=match["name"] or _default_name(path), path=path, weight=weight)


def list_sources(sources: Sequence[Source], *, patient_pattern: str) -> list[Listing]:
    """Lists the pairs of all sources.

    Raises:
        DataError: two sources share a name, one holds no pair, or the pattern is none or
            matches nothing.
    """
    try:
        re.compile(patient_pattern)
    except re.error as error:
        raise DataError(f"--patient-pattern: no regular expression ({error})") from error
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two sources are called {name}: name them, --data NAME=DIR")
    listings = [list_source(source, patient_pattern=patient_pattern) for source in sources]
    expect_match(patient_pattern, (pair.name for item in listings for pair in item.pairs))
    return listings


def list_source(source: Source, *, patient_pattern: str = PATIENT_PATTERN) -> Listing:
    """Lists the pairs of one source, in its name.

    Raises:
        DataError: no such folder or table, or it holds no usable pair.
    """
    if source.path.suffix.lower() == ".csv":
        return read_table(source.path, source=source.name, patient_pattern=patient_pattern)
    return list_pairs(source.path, patient_pattern=patient_pattern, source=source.name)


def read_table(path: Path, *, source: str, patient_pattern: str = PATIENT_PATTERN) -> Listing:
    """Reads a CSV table of pairs; its paths are relative to the table's folder.

    Args:
        path: a table with the columns ``image`` and ``mask``, and perhaps ``patient``,
            ``source``, ``airway`` (a mask of trachea and main bronchi), ``hu_slope`` (of an
            uncalibrated image: HU = slope · value), ``weight`` (how often a slice is drawn) and
            ``group`` (what it is an example of).
        source: name of the rows that give none.
        patient_pattern: names the patient of the rows that give none.

    Raises:
        DataError: a column or a file is missing, or a slice is listed twice; with the line.
    """
    rows = _rows(path)
    files = [[_file(path, line, row, column) for column in ("image", "mask")] for line, row in rows]
    names = _names([image for image, _ in files])
    pairs: list[Pair] = []
    unknown: list[str] = []
    lines: dict[tuple[str, str], int] = {}
    for (line, row), (image, mask), name in zip(rows, files, names, strict=True):
        patient = row.get("patient") or patient_of(
            name, image, patient_pattern, volume=is_volume(image)
        )
        pair = Pair(
            name=name,
            image=image,
            mask=mask,
            patient=patient or name,
            source=row.get("source") or source,
            airway=_file(path, line, row, "airway") if row.get("airway") else None,
            hu_slope=_number(path, line, row, "hu_slope"),
            weight=_number(path, line, row, "weight") or 1.0,
            group=row.get("group") or "",
        )
        if not patient:
            unknown.append(f"{pair.source}/{name}")
        first = lines.setdefault((pair.source, pair.name), line)
        if first != line:
            raise DataError(
                f"{path.name}: {image.name} is listed in lines {first} and {line}; "
                "take one out, or give the rows different sources"
            )
        pairs += slices_of(pair)
    if not pairs:
        raise DataError(f"{path.name}: expected rows of image and mask, found none")
    pairs.sort(key=lambda pair: (pair.source, pair.name))
    return Listing(pairs=tuple(pairs), unmatched=(), unknown=tuple(unknown))


def _names(images: Sequence[Path]) -> list[str]:
    """Their stems, all with as many folders before them as it takes to tell them apart."""
    names = [stem_of(image) for image in images]
    different = len({(image.parent, name) for image, name in zip(images, names, strict=True)})
    depth = 0
    while len(set(names)) < different:
        depth += 1
        names = ["/".join((*image.parts[-1 - depth : -1], stem_of(image))) for image in images]
    return names


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        return numbered_rows(path.read_text(encoding="utf-8"), COLUMNS)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: {error}") from error


def _file(table: Path, line: int, row: dict[str, str], column: str) -> Path:
    file = table.parent / row[column]
    if not row[column] or not file.is_file():
        raise DataError(
            f"{table.name}, line {line}: no file {row[column]!r} for the column {column}; "
            "paths are relative to the table"
        )
    return file


def _number(table: Path, line: int, row: dict[str, str], column: str) -> float | None:
    text = row.get(column) or ""
    try:
        number = float(text.replace(",", ".")) if text else None
    except ValueError:
        number = 0.0
    if number is not None and not 0 < number < float("inf"):
        raise DataError(
            f"{table.name}, line {line}: expected a number above 0 for {column}, found {text!r}"
        )
    return number


def _default_name(path: Path) -> str:
    resolved = path.resolve()
    return resolved.stem if resolved.suffix.lower() == ".csv" else resolved.name
