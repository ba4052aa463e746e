"""What a person decided of each slice: numbers and polygons in a TOML file, never a pixel."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DataError
from training.labelling.propose import Proposal

Polygon = tuple[tuple[float, float], ...]

ACCEPT, EMPTY, EDIT, REJECT = "accept", "empty", "edit", "reject"
UNDECIDED = "undecided"
VERDICTS = (ACCEPT, EMPTY, EDIT, REJECT, UNDECIDED)
NUMBER_KEYS = ("drop", "keep")
POLYGON_KEYS = ("lung", "not_lung", "ignore", "airway", "not_airway")
KEYS = ("verdict", "pixels", "proposal", *NUMBER_KEYS, *POLYGON_KEYS, "note")
EXPLANATION = """\
# What a person decided of each slice of this folder; docs/labelling.md explains the words.
# Polygons are corners [x, y] in pixels from the upper left corner of the slice.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person said of one slice.

    Attributes:
        verdict: ``accept`` as proposed, ``empty`` of lung and airways, ``edit`` with the changes
            below, ``reject`` the slice as a whole (nothing in it trains or counts),
            ``undecided``.
        pixels: hash of the slice that was looked at.
        proposal: hash of what was proposed for it.
        drop: components that are not lung, by number.
        keep: components that are lung, by number.
        lung: polygons that are lung, whatever is in them.
        not_lung: polygons in which no component is lung.
        ignore: polygons in which it can't be told.
        airway: polygons whose air is trachea or main bronchus.
        not_airway: polygons in which what was taken for an airway is lung.
        note: one sentence for the table.
    """

    verdict: str
    pixels: str
    proposal: str
    drop: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()
    lung: tuple[Polygon, ...] = ()
    not_lung: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    airway: tuple[Polygon, ...] = ()
    not_airway: tuple[Polygon, ...] = ()
    note: str = ""


def undecided(proposals: Iterable[Proposal]) -> dict[str, Decision]:
    """A decision for each slice that says nothing yet, by the slice's name."""
    blank = {
        item.name: Decision(verdict=UNDECIDED, pixels=item.digest, proposal=proposal.digest(index))
        for proposal in proposals
        for index, item in enumerate(proposal.stack.slices)
    }
    return dict(sorted(blank.items()))


def read_decisions(path: Path, proposals: Iterable[Proposal]) -> dict[str, Decision]:
    """Reads a file of decisions and holds each against the slice and what is proposed for it.

    Args:
        path: the TOML file.
        proposals: of all slices of the folder that the file is about.

    Returns:
        One decision for each slice, by name; slices that the file doesn't name are undecided.

    Raises:
        DataError: no TOML, a word that isn't known, a slice that isn't there, other pixels or
            another proposal than decided upon, a component that the slice doesn't show.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path.name}: expected a file of decisions in TOML ({error})") from error
    if set(table) != {"slices"}:
        raise DataError(f"{path.name}: expected the table slices, found {sorted(table)}")
    proposals = list(proposals)
    decisions = undecided(proposals)
    shown = {
        item.name: {component.number for component in proposal.on_slice(index)}
        for proposal in proposals
        for index, item in enumerate(proposal.stack.slices)
    }
    for name, entry in table["slices"].items():
        where = f"{path.name}, slice {name}"
        if name not in decisions:
            raise DataError(f"{where}: expected a slice of the folder, found none of that name")
        decision = _parse(entry, where)
        _check(decision, decisions[name], shown[name], where)
        decisions[name] = decision
    return decisions


def write_decisions(path: Path, decisions: Mapping[str, Decision]) -> None:
    """Writes a file of decisions that ``read_decisions`` reads back as they are."""
    parts = [EXPLANATION]
    for name, decision in decisions.items():
        lines = [f"[slices.{json.dumps(name)}]"]
        for key in KEYS:
            value = getattr(decision, key)
            if value:
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        parts.append("\n".join(lines) + "\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def _parse(entry: Any, where: str) -> Decision:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected a table, found {entry!r}")
    unknown = sorted(set(entry) - set(KEYS))
    if unknown:
        raise DataError(f"{where}: expected {', '.join(KEYS)}, found {', '.join(unknown)}")
    texts = {key: entry.get(key, "") for key in ("verdict", "pixels", "proposal", "note")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise DataError(f"{where}: expected verdict, pixels, proposal and note as texts")
    if texts["verdict"] not in VERDICTS:
        raise DataError(
            f"{where}: expected a verdict of {', '.join(VERDICTS)}, found {texts['verdict']!r}"
        )
    numbers = {key: _numbers(entry.get(key, []), f"{where}, {key}") for key in NUMBER_KEYS}
    polygons = {key: _polygons(entry.get(key, []), f"{where}, {key}") for key in POLYGON_KEYS}
    changes = any([*numbers.values(), *polygons.values()])
    if changes != (texts["verdict"] == EDIT):
        raise DataError(f"{where}: expected changes with the verdict {EDIT}, and with no other")
    fields: dict[str, Any] = {**texts, **numbers, **polygons}
    return Decision(**fields)


def _numbers(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise DataError(f"{where}: expected numbers of components, found {value!r}")
    return tuple(value)


def _polygons(value: Any, where: str) -> tuple[Polygon, ...]:
    try:
        polygons = tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected polygons of corners [x, y]") from error
    if any(len(polygon) < 3 for polygon in polygons):
        raise DataError(f"{where}: expected at least three corners a polygon")
    return polygons


def _check(decision: Decision, fresh: Decision, shown: set[int], where: str) -> None:
    """Whether a decision is about this slice and this proposal."""
    if decision.pixels != fresh.pixels:
        raise DataError(
            f"{where}: expected the slice that was decided upon ({decision.pixels}), found other "
            f"pixels ({fresh.pixels})"
        )
    if decision.proposal != fresh.proposal:
        raise DataError(
            f"{where}: expected the proposal that was decided upon ({decision.proposal}), found "
            f"another ({fresh.proposal}); look at the slice again"
        )
    missing = sorted({*decision.drop, *decision.keep} - shown)
    if missing:
        raise DataError(
            f"{where}: expected components of the slice {sorted(shown)}, found {missing}"
        )
