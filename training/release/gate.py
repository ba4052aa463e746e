"""Whether a measured model may be published: a floor, and no worse than the version in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from training.data.dataset import Pair
from training.data.learnt import Learnt, read_learnt
from training.errors import DataError
from training.evaluation.compare import Comparison, compare_models, group_setbacks, setbacks
from training.evaluation.evaluate import SliceResult, evaluate, summarise
from training.evaluation.stress import StressResult, stress
from training.release.target import Release

STRESS_SLICES = 64
"""Of the validation slices, as many are stressed at most: each in some forty ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the gate measured.

    Attributes:
        stressed: results of the candidate under stress.
        comparison: with the version in place, None for a new name or where nothing can judge.
        remark: a sentence about which slices judged, empty where it needs none.
        overruled: what speaks against publishing and is overruled by force, each a clause.
    """

    stressed: Sequence[StressResult]
    comparison: Comparison | None = None
    remark: str = ""
    overruled: tuple[str, ...] = ()


def judge(
    candidate: Path,
    before: Path | None,
    results: Sequence[SliceResult],
    release: Release,
    *,
    seen: Learnt | None = None,
) -> Judgement:
    """Measures a candidate beside the version in place, on slices that neither has learnt from.

    Args:
        candidate: folder of the exported model.
        before: folder of the version in place, None for a new name.
        results: of the candidate on all validation slices.
        release: the floor, and whether what speaks against publishing is overruled.
        seen: what the candidate has learnt by the network that it started from.

    Raises:
        DataError: the candidate is below the floor or worse, or nothing can judge it.
    """
    dice = summarise("validation", results).means["dice"]
    low = dice < release.minimum_dice
    floor = f"the mean Dice of {dice:.4f} is below {release.minimum_dice:g} (--minimum-dice)"
    overruled = [_overrule(floor, release)] if low else []
    model = Model.load(candidate, Engine())
    known = read_learnt(before) if before is not None else None
    fresh = [result for result in results if not _learnt(result.pair, known, seen)]
    if before is None or not fresh:
        if before is not None:
            nobody = f"version {before.name} has learnt from all patients that validate"
            overruled.append(_overrule(nobody, release, "; add some that it has not seen"))
        pairs = [result.pair for result in results]
        stressed = stress([model], pairs, limit=STRESS_SLICES)[0]
        return Judgement(stressed=stressed, overruled=tuple(overruled))
    in_place, pairs = Model.load(before, Engine()), [result.pair for result in fresh]
    stressed = stress([model, in_place], pairs, limit=STRESS_SLICES)
    reference = list(evaluate(in_place, pairs))
    harm = setbacks(stressed[1], stressed[0]) + group_setbacks(reference, fresh)
    comparison = replace(compare_models(reference, fresh), setbacks=harm)
    remark = _left_out(len(results) - len(fresh), before, known)
    if not comparison.may_replace:
        overruled.append(
            _overrule(
                f"version {before.name} is better on the validation slices or under stress",
                release,
                f":\n{comparison.describe()}\n{remark}".rstrip(),
            )
        )
    return Judgement(
        stressed=stressed[0], comparison=comparison, remark=remark, overruled=tuple(overruled)
    )


def _overrule(objection: str, release: Release, more: str = "") -> str:
    """Refuses to publish, unless by force."""
    if not release.force:
        raise DataError(f"not published, {objection} (--force publishes anyway){more}")
    return objection


def _learnt(pair: Pair, *records: Learnt | None) -> bool:
    return any(record is not None and record.holds(pair) for record in records)


def _left_out(count: int, before: Path, known: Learnt | None) -> str:
    if known is None:
        return (
            f"Version {before.name} keeps no record of what it learnt from: it may have seen "
            "slices that it is compared on."
        )
    if not count:
        return ""
    return f"{count} validation slices that one of both has learnt from are left out."
