"""How models do on ``training.synthetic.stress_set``: figures of each stress, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import Scan
from lungseg.inference.model import Model
from training.data.dataset import Pair, read_sample
from training.evaluation.evaluate import markdown_table, predict
from training.evaluation.metrics import dice_of
from training.synthetic.stress_set import STRESSES, as_piece, stressed


@dataclass(frozen=True, slots=True, kw_only=True)
class StressResult:
    """What became of all slices under one stress.

    Attributes:
        name: of the stress.
        dice: of each slice, at the shown slice's size.
        false_positive: share of each slice that is wrongly called lung.
        without_lung: whether the truth is empty throughout: only false positives tell then.
    """

    name: str
    dice: NDArray[np.float64]
    false_positive: NDArray[np.float64]
    without_lung: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StressSummary:
    """A whole table in a few figures; None where it has no such stress.

    Attributes:
        mean: mean Dice over all stresses with lung.
        lowest_mean: the lowest mean Dice of a stress and its name.
        lowest_p5: the lowest 5th percentile of Dice of a stress and its name.
        false_positive: mean share of the slice called lung over the stresses without lung.
        most_false_positive: the largest such share of a stress and its name.
    """

    mean: float | None = None
    lowest_mean: tuple[float, str] | None = None
    lowest_p5: tuple[float, str] | None = None
    false_positive: float | None = None
    most_false_positive: tuple[float, str] | None = None

    def describe(self) -> str:
        """A sentence without its end."""
        parts = []
        if self.mean is not None and self.lowest_mean and self.lowest_p5:
            parts = [
                f"mean Dice {self.mean:.4f} over the stresses with lung",
                "lowest mean {:.4f} ({})".format(*self.lowest_mean),
                "lowest p5 {:.4f} ({})".format(*self.lowest_p5),
            ]
        if self.false_positive is not None and self.most_false_positive:
            parts += [
                f"false-positive area {self.false_positive:.3%} where there is no lung",
                "at most {:.3%} ({})".format(*self.most_false_positive),
            ]
        return ", ".join(parts)


def stress(
    models: Sequence[Model], pairs: Iterable[Pair], *, limit: int | None = None
) -> list[list[StressResult]]:
    """Measures models on the same stressed slices, through the service's own pipeline.

    Args:
        models: one or more.
        pairs: slices with truths, none of them trained on.
        limit: how many of them to use at most, evenly chosen.

    Returns:
        For each model one result for each stress.

    Raises:
        DataError: a file can't be read.
    """
    return stress_masks(
        lambda scan: [predict(model, scan).mask[0] for model in models], pairs, limit=limit
    )


def stress_masks(
    draw: Callable[[Scan], Sequence[NDArray[np.bool_]]],
    pairs: Iterable[Pair],
    *,
    limit: int | None = None,
) -> list[list[StressResult]]:
    """Measures several ways of drawing a mask on the same stressed slices.

    Args:
        draw: makes a mask of a slice in each of the ways.
        pairs: slices with truths.
        limit: how many of them to use at most, evenly chosen.

    Returns:
        For each way one result for each stress.

    Raises:
        DataError: a file can't be read.
    """
    pairs = list(pairs)
    if limit is not None and len(pairs) > limit:
        pairs = [pairs[place * len(pairs) // limit] for place in range(limit)]
    found: dict[tuple[int, str], list[tuple[float, float, bool]]] = {}
    for pair in pairs:
        sample = read_sample(pair)
        piece = as_piece(sample)
        for rule in STRESSES:
            scan, truth, ignored = stressed(rule, sample, piece)
            truth = truth & ~ignored
            for number, drawn in enumerate(draw(scan)):
                mask = drawn & ~ignored
                wrong = float((mask & ~truth).mean())
                row = (dice_of(mask, truth), wrong, bool(truth.any()))
                found.setdefault((number, rule.name), []).append(row)
    return [
        [_result(rule.name, found[number, rule.name]) for rule in STRESSES]
        for number in sorted({number for number, _ in found})
    ]


def format_stress(results: Sequence[StressResult]) -> str:
    """A table as GitHub-flavoured Markdown and a line about the whole of it.

    Where there is no lung, only false positives tell.
    """
    rows = []
    for item in results:
        dice = item.dice
        cells = [f"{dice.mean():.4f}", f"{np.percentile(dice, 5):.4f}", f"{dice.min():.4f}", "–"]
        if item.without_lung:
            cells = ["–", "–", "–", f"{item.false_positive.mean():.3%}"]
        rows.append((item.name, str(len(dice)), *cells))
    head = ("stress", "slices", "mean Dice", "p5", "min", "false-positive area")
    return f"{markdown_table(head, rows)}\n\nAll: {sum_up(results).describe()}."


def sum_up(results: Sequence[StressResult]) -> StressSummary:
    """The mean over all stresses and the worst of them: what two models differ in at a glance."""
    summary = StressSummary()
    if with_lung := [item for item in results if not item.without_lung]:
        summary = replace(
            summary,
            mean=float(np.mean([item.dice.mean() for item in with_lung])),
            lowest_mean=min((float(item.dice.mean()), item.name) for item in with_lung),
            lowest_p5=min((float(np.percentile(item.dice, 5)), item.name) for item in with_lung),
        )
    if without := [item for item in results if item.without_lung]:
        shares = [(float(item.false_positive.mean()), item.name) for item in without]
        summary = replace(
            summary,
            false_positive=float(np.mean([share for share, _ in shares])),
            most_false_positive=max(shares),
        )
    return summary


def joined(tables: Sequence[Sequence[StressResult]]) -> list[StressResult]:
    """Puts the slices of several tables together, as of the folds of a cross-validation."""
    return [
        replace(
            rows[0],
            dice=np.concatenate([row.dice for row in rows]),
            false_positive=np.concatenate([row.false_positive for row in rows]),
        )
        for rows in zip(*tables, strict=True)
    ]


def _result(name: str, rows: Sequence[tuple[float, float, bool]]) -> StressResult:
    dice, wrong, lung = zip(*rows, strict=True)
    return StressResult(
        name=name,
        dice=np.array(dice),
        false_positive=np.array(wrong),
        without_lung=not any(lung),
    )
