"""Proposes, applies decisions, and writes masks, contact sheets and the table."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.errors import DataError
from training.labelling.decisions import (
    NUMBER_KEYS,
    POLYGON_KEYS,
    Decision,
    read_decisions,
    undecided,
    write_decisions,
)
from training.labelling.masks import IGNORE, LUNG, SliceMask, make_masks, without_hila
from training.labelling.pictures import View, sheets
from training.labelling.propose import Proposal, propose
from training.labelling.slabs import Slab, slab_dicom, slabs
from training.labelling.stacks import Slice, read_stacks

TABLE = "table.csv"
COLUMNS = (
    "image", "mask", "airway", "patient", "source", "position_mm", "dimensions", "proposed",
    "proposed_cm2", "verdict", "decided", "lung_cm2", "ignored_cm2", "airway_cm2", "note",
)  # fmt: skip
"""Of the table, whose first ones ``--pairs`` reads."""
SLABS = "slabs.csv"
SLAB_COLUMNS = COLUMNS[:5]


def label(
    series: Sequence[Path],
    out: Path,
    decided: Path | None = None,
    *,
    ignore_hila: bool = False,
    slabs_mm: Sequence[float] = (),
) -> None:
    """Makes the masks of some folders of slices.

    Args:
        series: folders of DICOM files, of different names.
        out: folder for ``masks`` with their table, ``airways``, ``sheets`` and, of what nothing
            is decided yet, ``decisions`` to fill in.
        decided: folder of decisions, ``NAME.toml`` for the folder ``NAME``.
        ignore_hila: for learning beside sources whose lungs end elsewhere at the hila.
        slabs_mm: thicknesses of slices to average from those of volumes, into ``slabs`` with a
            table of their own.

    Raises:
        DataError: a folder can't be read, decisions that don't fit what is there, a thickness
            that isn't above 0, or a slice that is called what a slab would be.
    """
    names = [folder.resolve().name for folder in series]
    _check(names, slabs_mm)
    masks = out / "masks"
    masks.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    thick: list[dict[str, object]] = []
    for name, folder in zip(names, series, strict=True):
        proposals = [propose(stack) for stack in read_stacks(folder)]
        decisions = _decisions(decided, out, name, proposals)
        views = list(_views(proposals, decisions, ignore_hila=ignore_hila))
        rows += [_write(view, name, out) for view in views]
        made = [_write_slab(slab, name, out) for slab in _slabs(views, slabs_mm)]
        thick += made
        _write_sheets(views, out / "sheets" / name)
        averaged = f"; {len(made)} slabs" if slabs_mm else ""
        print(f"{name}: {len(views)} slices; {_verdicts(views)}{averaged}")
    _write_table(masks / TABLE, COLUMNS, rows)
    if slabs_mm:
        _write_table(masks / SLABS, SLAB_COLUMNS, thick)
    else:  # an earlier run's would be of other masks
        (masks / SLABS).unlink(missing_ok=True)


def _check(names: Sequence[str], slabs_mm: Sequence[float]) -> None:
    """Makes sure, before anything is written, that all of it can be."""
    if len(set(names)) < len(names):
        raise DataError(f"expected folders of different names, received {', '.join(names)}")
    wrong = next((thickness for thickness in slabs_mm if not thickness > 0), None)
    if wrong is not None:
        raise DataError(f"--slabs-mm: expected thicknesses above 0 mm, received {wrong:g}")


def _verdicts(views: Sequence[View]) -> str:
    """How many slices there are of each verdict."""
    counts = Counter(view.decision.verdict for view in views)
    return ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def _decisions(
    decided: Path | None, out: Path, name: str, proposals: Sequence[Proposal]
) -> dict[str, Decision]:
    """What is decided of a folder; where nothing is, a file to fill in is written."""
    given = decided / f"{name}.toml" if decided else None
    if given is not None and given.exists():
        return read_decisions(given, proposals)
    blank = undecided(proposals)
    file = out / "decisions" / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_decisions(file, blank)
    return blank


def _views(
    proposals: Sequence[Proposal], decisions: dict[str, Decision], *, ignore_hila: bool
) -> Iterator[View]:
    for proposal in proposals:
        said = [decisions[item.name] for item in proposal.stack.slices]
        results = make_masks(proposal, said)
        if ignore_hila:
            results = [without_hila(one, proposal.stack.spacing_mm[1:]) for one in results]
        for index, result in enumerate(results):
            yield View(proposal=proposal, index=index, decision=said[index], result=result)


def _slabs(views: Sequence[View], slabs_mm: Sequence[float]) -> Iterator[Slab]:
    """The thick slices of all volumes among the views, of other names than the slices'."""
    taken = {view.proposal.stack.slices[view.index].name for view in views}
    for _, group in groupby(views, lambda view: id(view.proposal)):
        volume = list(group)
        results = [view.result for view in volume]
        for slab in slabs(volume[0].proposal.stack, results, slabs_mm):
            if slab.name in taken:
                raise DataError(f"{slab.name}: expected a name that no slab has; rename the slice")
            yield slab


def _write_slab(slab: Slab, series: str, out: Path) -> dict[str, object]:
    """Writes a thick slice and its masks; returns its row of the table."""
    image = out / "slabs" / series / f"{slab.name}.dcm"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(slab_dicom(slab))
    result = SliceMask(mask=slab.mask, airway=slab.airway)
    return _write_masks(result, replace(slab.middle, name=slab.name, path=image), series, out)


def _write_masks(result: SliceMask, item: Slice, series: str, out: Path) -> dict[str, object]:
    """Writes the masks of a slice; returns what every table says of it."""
    files = {role: out / role / series / f"{item.name}.png" for role in ("masks", "airways")}
    airway = np.where(result.airway, LUNG, 0).astype(np.uint8)
    for role, plane in (("masks", result.mask), ("airways", airway)):
        files[role].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(plane).save(files[role])
    table = out / "masks"
    return {
        "image": os.path.relpath(item.path, table),
        "mask": os.path.relpath(files["masks"], table),
        "airway": os.path.relpath(files["airways"], table),
        "patient": f"{series}-{item.patient}" if item.patient else series,
        "source": series,
    }


def _write(view: View, series: str, out: Path) -> dict[str, object]:
    """Writes the masks of a slice; returns its row of the table."""
    stack = view.proposal.stack
    item = stack.slices[view.index]
    lung = view.proposal.proposed_lung()
    shown = view.proposal.on_slice(view.index)
    return (
        _write_masks(view.result, item, series, out)
        | {
            "position_mm": f"{item.position_mm:.2f}",
            "dimensions": 3 if stack.is_volume else 2,
            "proposed": " ".join(f"{component.number}:{component.kind}" for component in shown),
            "verdict": view.decision.verdict,
            "decided": _describe(view.decision),
            "note": view.decision.note,
        }
        | _areas(view, np.isin(view.proposal.numbers[view.index], sorted(lung)))
    )


def _areas(view: View, proposed: np.ndarray[Any, Any]) -> dict[str, object]:
    spacing = view.proposal.stack.spacing_mm
    result: SliceMask = view.result
    planes = {
        "proposed_cm2": proposed,
        "lung_cm2": result.mask == LUNG,
        "ignored_cm2": result.mask == IGNORE,
        "airway_cm2": result.airway,
    }
    pixel_cm2 = spacing[1] * spacing[2] / 100
    return {name: f"{plane.sum() * pixel_cm2:.2f}" for name, plane in planes.items()}


def _describe(decision: Decision) -> str:
    """The changes of a decision in short: numbers, and how many polygons of each kind."""
    parts = [
        f"{key} {' '.join(map(str, numbers))}"
        for key in NUMBER_KEYS
        if (numbers := getattr(decision, key))
    ]
    parts += [
        f"{key} × {len(polygons)}" for key in POLYGON_KEYS if (polygons := getattr(decision, key))
    ]
    return "; ".join(parts)


def _write_sheets(views: Sequence[View], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, sheet in enumerate(sheets(views), 1):
        sheet.save(folder / f"{number:03d}.png")
