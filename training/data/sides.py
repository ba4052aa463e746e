"""Which pairs a run learns from, and which validate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.config import TrainConfig
from training.data.dataset import Pair
from training.data.learnt import Learnt
from training.data.split import (
    Patient,
    kin_of,
    patient_key,
    split_by_list,
    split_by_patient,
    split_fold,
)
from training.errors import DataError


def choose_sides(
    kept: list[Pair],
    alike: Sequence[tuple[Pair, Pair]],
    config: TrainConfig,
    seen: Learnt | None,
) -> tuple[list[Pair], list[Pair]]:
    """By a list, else by patient; patients whose slices are nearly the same count as one."""
    if config.held_out:
        return split_by_list(kept, Path(config.held_out))
    kin = kin_of(alike)
    whose = {pair: kin.get(patient_key(pair), patient_key(pair)) for pair in kept}
    learns: dict[Patient, bool] = {}
    if seen is not None and not config.folds:
        learns = {whose[pair]: False for pair in kept if seen.validated(pair)}
    if seen is not None:
        learns |= {whose[pair]: True for pair in kept if seen.holds(pair)}
    # The split sees each pair under its kin's name.
    free = {
        replace(pair, source=head[0], patient=head[1]): pair
        for pair, head in whose.items()
        if head not in learns
    }
    fresh = _split_fresh(list(free), config, set(learns.values()))
    held_out = {free[pair] for pair in fresh}
    held_out |= {pair for pair in kept if learns.get(whose[pair]) is False}
    training = [pair for pair in kept if pair not in held_out]
    return training, [pair for pair in kept if pair in held_out]


def _split_fresh(pairs: list[Pair], config: TrainConfig, settled: set[bool]) -> list[Pair]:
    """Which of the slices that nothing is settled about validate."""
    if config.folds:
        return split_fold(pairs, folds=config.folds, fold=config.fold, seed=config.seed)[1]
    if len({patient_key(pair) for pair in pairs}) < 2 and settled:
        if not pairs and len(settled) == 1:
            done, more = (
                ("learnt from", "validate with")
                if True in settled
                else ("been validated with", "learn from")
            )
            raise DataError(
                f"the network that the training starts from has {done} every patient in the "
                f"data: add patients whom it has not seen, to {more}"
            )
        return pairs if settled == {True} else []
    return split_by_patient(pairs, fraction=config.validation_fraction, seed=config.seed)[1]


def without_copies(
    training: list[Pair], validation: list[Pair], alike: Sequence[tuple[Pair, Pair]]
) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    """Leaves out of the training what is nearly the same as a slice that validates."""
    held_out = set(validation)
    copies: dict[Pair, str] = {}
    for one, other in alike:
        for pair, twin in ((one, other), (other, one)):
            if twin in held_out and pair not in held_out:
                copies[pair] = (
                    f"near_duplicate: looks like {twin.source}/{twin.name}, which validates"
                )
    kept = [pair for pair in training if pair not in copies]
    return kept, [(pair, copies[pair]) for pair in training if pair in copies]
