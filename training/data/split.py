"""Divides pairs by patient, so that no patient is learnt from and measured on at once."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.data.dataset import Pair
from training.errors import DataError

Patient = tuple[str, str]
"""Source and patient: names are unique within a source only."""


def patient_key(pair: Pair) -> Patient:
    """Whose slice it is, apart from patients of the same name in other sources."""
    return pair.source, pair.patient


def split_by_patient(
    pairs: Sequence[Pair], *, fraction: float, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs into training and validation so that no patient is on both sides.

    Args:
        pairs: all pairs.
        fraction: share of the patients that validates.
        seed: of the shuffle; the same seed and names give the same split.

    Raises:
        DataError: fewer than two patients.
    """
    patients, order = _shuffled_patients(pairs, seed, least=2)
    count = min(len(patients) - 1, max(1, round(fraction * len(patients))))
    return _hold_out(pairs, {patients[index] for index in order[:count]})


def split_by_list(pairs: Sequence[Pair], path: Path) -> tuple[list[Pair], list[Pair]]:
    """Holds out the patients that a table names, whatever else is in the data.

    Args:
        pairs: all pairs.
        path: a CSV table with the columns ``source`` and ``patient``.

    Raises:
        DataError: the table can't be read, or none or all of its patients are in the data.
    """
    held_out = set(read_patients(path))
    training, validation = _hold_out(pairs, held_out)
    if not training or not validation:
        raise DataError(
            f"{path.name}: expected slices of patients that it names and of others, found "
            f"{len(validation)} and {len(training)}; sources and patients must be called as "
            "`python -m training inspect` calls them"
        )
    return training, validation


def read_patients(path: Path) -> dict[Patient, str]:
    """The (source, patient) rows of a table, each with its ``group``, empty where it has none.

    Raises:
        DataError: no readable table, or it lacks one of the columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
            return {(row["source"], row["patient"]): row.get("group") or "" for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(
            f"{path}: expected a CSV table with the columns source and patient ({error})"
        ) from error


def in_groups(pairs: Iterable[Pair], path: Path) -> list[Pair]:
    """The pairs of the patients that a table lists, in the groups that it names.

    Raises:
        DataError: as for ``read_patients``.
    """
    listed = read_patients(path)
    chosen = [pair for pair in pairs if patient_key(pair) in listed]
    return [replace(pair, group=listed[patient_key(pair)] or pair.group) for pair in chosen]


def split_fold(
    pairs: Sequence[Pair], *, folds: int, fold: int, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs for one round of cross-validation; the rounds hold out each patient once.

    Args:
        pairs: all pairs.
        folds: rounds in all.
        fold: this round, from 1 to ``folds``.
        seed: of the shuffle.

    Raises:
        DataError: fewer patients than folds.
    """
    patients, order = _shuffled_patients(pairs, seed, least=folds)
    return _hold_out(pairs, {patients[index] for index in order[fold - 1 :: folds]})


def kin_of(alike: Iterable[tuple[Pair, Pair]]) -> dict[Patient, Patient]:
    """Joins patients whose slices are nearly the same, for they may be one under two names.

    Args:
        alike: pairs that look the same.

    Returns:
        For each patient who has kin the first of them by name.
    """
    heads: dict[Patient, Patient] = {}

    def head(patient: Patient) -> Patient:
        while (above := heads.get(patient, patient)) != patient:
            patient = above
        return patient

    for one, other in alike:
        first, second = sorted(head(patient_key(pair)) for pair in (one, other))
        if first != second:
            heads[second] = first
    return {patient: head(patient) for patient in heads}


def split_hash(training: Sequence[Pair], validation: Sequence[Pair]) -> str:
    """SHA-256 over which slice is on which side, in order."""
    digest = hashlib.sha256()
    for side, pairs in (("training", training), ("validation", validation)):
        for pair in pairs:
            digest.update(f"{side}\0{pair.source}\0{pair.patient}\0{pair.name}\n".encode())
    return digest.hexdigest()


def _shuffled_patients(
    pairs: Sequence[Pair], seed: int, *, least: int
) -> tuple[list[Patient], list[int]]:
    patients = sorted({patient_key(pair) for pair in pairs})
    if len(patients) < least:
        raise DataError(
            f"expected usable slices of at least {least} patients, found {len(patients)}"
            f"{_only(patients)}; check with `python -m training inspect` what was dropped and how "
            "patients are named, and name them by --patient-pattern or a table"
        )
    return patients, np.random.default_rng(seed).permutation(len(patients)).tolist()


def _only(patients: Sequence[Patient]) -> str:
    return f" ({patients[0][1]})" if len(patients) == 1 else ""


def _hold_out(pairs: Sequence[Pair], held_out: set[Patient]) -> tuple[list[Pair], list[Pair]]:
    training = [pair for pair in pairs if patient_key(pair) not in held_out]
    return training, [pair for pair in pairs if patient_key(pair) in held_out]
