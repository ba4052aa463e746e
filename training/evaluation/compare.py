"""Whether one model may replace another: paired differences on the same slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.evaluate import SliceResult, patients_of
from training.evaluation.groups import airway_share, by_lung
from training.evaluation.metrics import bootstrap_interval
from training.evaluation.stress import StressResult

MEAN_TOLERANCE = 0.0005
"""Loss of mean Dice that retraining with another seed makes too."""
TAIL_TOLERANCE = 0.005
"""Loss of the 5th percentile of Dice that is not held against a model."""
STRESS_TOLERANCE = 0.01
"""Loss of mean Dice under one stress that is not held against a model: many are compared."""
GROUP_TOLERANCE = 0.005
"""Loss of mean Dice on a group of real slices that is not held against a model."""
SHARE_TOLERANCE = 0.05
"""Further share of slivers that may be lost, and of airways that may be called lung."""
FALSE_TOLERANCE_CM2 = 0.5
"""Further mean area that may be called lung on slices without any."""
FALSE_POSITIVE_TOLERANCE = 0.003
"""Further share of a slice without lung that may be called lung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Dice of a candidate against a reference, slice by slice.

    Attributes:
        slices: how many both were measured on.
        patients: of how many patients.
        reference: mean Dice of the model in place.
        candidate: mean Dice of the model that would replace it.
        difference: mean of candidate − reference.
        interval: 95% bootstrap interval of the difference, drawn by patient.
        tail_difference: difference of the 5th percentiles.
        changes: name and difference of each slice, the greatest loss first.
        setbacks: a sentence for each stress or group of real slices on which the candidate is
            clearly worse.
    """

    slices: int
    patients: int
    reference: float
    candidate: float
    difference: float
    interval: tuple[float, float]
    tail_difference: float
    changes: tuple[tuple[str, float], ...]
    setbacks: tuple[str, ...] = ()

    @property
    def may_replace(self) -> bool:
        """Whether the candidate is no worse on average, in its tail, nor in any setback."""
        no_worse = self.difference >= -MEAN_TOLERANCE and self.tail_difference >= -TAIL_TOLERANCE
        return no_worse and not self.setbacks

    def describe(self) -> str:
        """Some lines for people, the verdict first."""
        verdict = "may replace" if self.may_replace else "must not replace"
        low, high = self.interval
        lines = [
            (
                f"B {verdict} A on {self.slices} slices of {self.patients} patients: mean Dice "
                f"{self.reference:.4f} → {self.candidate:.4f}, difference {self.difference:+.4f} "
                f"(95% interval {low:+.4f} … {high:+.4f}), "
                f"5th percentile {self.tail_difference:+.4f}"
            )
        ]
        losses = [change for change in self.changes[:5] if change[1] < 0]
        lines += [f"  {name}: {difference:+.4f}" for name, difference in losses]
        lines += [f"  {sentence}" for sentence in self.setbacks]
        return "\n".join(lines)


def compare_models(
    reference: Sequence[SliceResult], candidate: Sequence[SliceResult]
) -> Comparison:
    """Pairs the results of two models on the same slices.

    Args:
        reference: results of the model in place.
        candidate: results of the other on the same slices, in the same order.
    """
    a, b = (
        np.array([result.metrics.dice for result in results]) for results in (reference, candidate)
    )
    names = [f"{result.pair.source}/{result.pair.name}" for result in reference]
    changes = sorted(zip(names, (b - a).tolist(), strict=True), key=lambda change: change[1])
    return Comparison(
        slices=len(a),
        patients=len(set(patients_of(reference))),
        reference=float(a.mean()),
        candidate=float(b.mean()),
        difference=float((b - a).mean()),
        interval=bootstrap_interval(b - a, patients_of(reference)),
        tail_difference=float(np.percentile(b, 5) - np.percentile(a, 5)),
        changes=tuple(changes),
    )


def setbacks(
    reference: Sequence[StressResult], candidate: Sequence[StressResult]
) -> tuple[str, ...]:
    """Names each stress under which the candidate is worse by more than the tolerance.

    Args:
        reference: results of the model in place.
        candidate: results of the other on the same stressed slices, in the same order.
    """
    found = []
    for a, b in zip(reference, candidate, strict=True):
        if a.without_lung:
            before, after = a.false_positive.mean(), b.false_positive.mean()
            if after > before + FALSE_POSITIVE_TOLERANCE:
                found.append(f"{a.name}: false-positive area {before:.2%} → {after:.2%}")
        elif b.dice.mean() < a.dice.mean() - STRESS_TOLERANCE:
            found.append(f"{a.name}: mean Dice {a.dice.mean():.4f} → {b.dice.mean():.4f}")
    return tuple(found)


def group_setbacks(
    reference: Sequence[SliceResult], candidate: Sequence[SliceResult]
) -> tuple[str, ...]:
    """Names each group of real slices (``training.evaluation.groups``) that the candidate harms.

    Args:
        reference: results of the model in place.
        candidate: results of the other on the same slices, in the same order.
    """
    found = []
    for a, b in zip(by_lung(reference), by_lung(candidate), strict=True):
        if b.mean < a.mean - GROUP_TOLERANCE:
            found.append(f"{a.name}: mean Dice {a.mean:.4f} → {b.mean:.4f}")
        if b.found < a.found - SHARE_TOLERANCE:
            found.append(f"{a.name}: found {a.found:.0%} → {b.found:.0%}")
        if np.isnan(a.mean) and b.false_cm2 > a.false_cm2 + FALSE_TOLERANCE_CM2:
            found.append(f"{a.name}: {a.false_cm2:.2f} → {b.false_cm2:.2f} cm² called lung")
    before, after = airway_share(reference)[1], airway_share(candidate)[1]
    if after > before + SHARE_TOLERANCE:
        found.append(f"airways called lung: {before:.0%} → {after:.0%}")
    return tuple(found)
