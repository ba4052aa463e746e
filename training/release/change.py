"""What fine-tuning changed: Dice before and after, on the new validation slices and the old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from training.data.dataset import Pair
from training.data.learnt import Learnt, read_learnt
from training.data.split import patient_key
from training.evaluation.compare import compare_models
from training.evaluation.evaluate import SliceResult, evaluate, markdown_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The model that a training started from.

    Attributes:
        folder: of the model.
        old: pairs among which its own validation slices are looked for, beside the run's.
    """

    folder: Path
    old: tuple[Pair, ...] = ()

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.folder.parent.name} {self.folder.name}"


def describe_change(start: Start, after: Path, results: Sequence[SliceResult]) -> str:
    """A table of both models on slices that neither has learnt from.

    Args:
        start: the model before.
        after: folder of the model that was made of it.
        results: of the model after, on the run's validation slices.
    """
    seen = read_learnt(start.folder) or Learnt()
    known = {(item.pair.image.resolve(), item.pair.index) for item in results}
    more = [
        pair
        for pair in start.old
        if seen.validated(pair) and (pair.image.resolve(), pair.index) not in known
    ]
    measured = [item for item in results if not seen.holds(item.pair)]
    measured += evaluate(Model.load(after, Engine()), more)
    before = list(evaluate(Model.load(start.folder, Engine()), [item.pair for item in measured]))
    rows, missing = [], []
    for name, validated in (("new", False), ("old", True)):
        chosen = [
            (one, other)
            for one, other in zip(before, measured, strict=True)
            if seen.validated(one.pair) == validated
        ]
        if chosen:
            rows.append(_row(name, [one for one, _ in chosen], [other for _, other in chosen]))
        else:
            missing.append(name)
    head = ("validation slices", "slices / patients", start.title, "this version", "difference")
    table = f"Mean Dice before and after fine-tuning:\n\n{markdown_table(head, rows)}"
    if "old" in missing and seen.held_out:
        table += (
            f"\n\nNone of the {len(seen.held_out)} slices that validated {start.title} is in the "
            "data; --old-data DIR says where they are, and shows what was forgotten."
        )
    return table


def _row(name: str, before: Sequence[SliceResult], after: Sequence[SliceResult]) -> tuple[str, ...]:
    outcome = compare_models(before, after)
    low, high = outcome.interval
    patients = len({patient_key(item.pair) for item in before})
    return (
        name,
        f"{len(before)} / {patients}",
        *(f"{np.mean([item.metrics.dice for item in items]):.4f}" for items in (before, after)),
        f"{outcome.difference:+.4f} ({low:+.4f} … {high:+.4f})",
    )
