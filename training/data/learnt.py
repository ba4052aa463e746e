"""What a network has learnt from, as its record says: what may not measure it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.dataset import Pair, file_hash
from training.errors import DataError

PROVENANCE, LEARNT = "provenance.json", "learnt"
"""File of a run's or a model's folder, and the record's place in it."""
DIGEST = 16
"""Hexadecimal digits that name a slice or a patient in a record: enough for millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a network has seen, and the one that it started from; digests of 16 hex digits.

    Attributes:
        slices: what was learnt from, by the file's content.
        patients: whose slices were learnt from, by source and name.
        held_out: what validated, by the file's content.
    """

    slices: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()

    def holds(self, pair: Pair) -> bool:
        """Whether the slice, or another one of its patient, was learnt from."""
        return _patient(pair) in self.patients or _slice(pair) in self.slices

    def validated(self, pair: Pair) -> bool:
        """Whether the slice was held out, and nothing of its patient was learnt from."""
        return _slice(pair) in self.held_out and not self.holds(pair)


def read_learnt(folder: Path) -> Learnt | None:
    """The record of a model's or a run's folder; None where there is none.

    Raises:
        DataError: the record is damaged.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        return None
    try:
        record: Any = json.loads(path.read_text()).get(LEARNT)
        if record is None:
            return None
        return Learnt(**{name: frozenset(values) for name, values in record.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the record is damaged ({error})") from error


def learnt_record(
    training: Iterable[Pair], validation: Iterable[Pair], before: Learnt | None
) -> dict[str, list[str]]:
    """What ``read_learnt`` reads back: digests, so that no patient's name leaves the run.

    Args:
        training: what is learnt from now.
        validation: what is held out now.
        before: what the network that this one starts from has seen.
    """
    before, training = before or Learnt(), list(training)
    return {
        "slices": sorted(before.slices | {_slice(pair) for pair in training}),
        "patients": sorted(before.patients | {_patient(pair) for pair in training}),
        "held_out": sorted(before.held_out | {_slice(pair) for pair in validation}),
    }


def _slice(pair: Pair) -> str:
    digest = hashlib.sha256(file_hash(pair.image))
    if pair.index is not None:
        digest.update(str(pair.index).encode())
    return digest.hexdigest()[:DIGEST]


def _patient(pair: Pair) -> str:
    return hashlib.sha256(f"{pair.source}\0{pair.patient}".encode()).hexdigest()[:DIGEST]
