"""What a run learns from: listed, cleaned and split, with a record of each step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.data.dataset import Pair, data_hash, write_pairs
from training.data.learnt import LEARNT, PROVENANCE, Learnt, learnt_record
from training.data.sides import choose_sides, without_copies
from training.data.sources import Source, list_sources
from training.data.split import in_groups, patient_key, split_hash
from training.data.terms import terms_of
from training.data.usable import usable_pairs
from training.errors import DataError

SPLIT, DROPPED = "split.csv", "dropped.csv"
MATERIAL = "material.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The cleaned and split slices of a run.

    Attributes:
        training: pairs to learn from.
        validation: pairs held out, of other patients.
        dropped: pairs left out, each with the reason.
        unmatched: files without a partner.
        weights: how often the slices of a source are drawn in an epoch.
        unknown: slices whose patient nothing tells, as ``source/name``.
    """

    training: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    dropped: tuple[tuple[Pair, str], ...]
    unmatched: tuple[str, ...]
    weights: dict[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def describe(self) -> str:
        """Counts in one line, whose patients nothing tells, each dropped pair with its reason."""
        sides = (self.training, self.validation)
        training, validation = (len({patient_key(pair) for pair in side}) for side in sides)
        counts = (
            f"{len(self.training)} slices of {training} patients to train on, "
            f"{len(self.validation)} of {validation} to validate, "
            f"{len(self.dropped)} dropped, {len(self.unmatched)} unmatched files"
        )
        lines = [counts, *([unknown_patients(self.unknown)] if self.unknown else [])]
        lines += [f"  dropped {pair.source}/{pair.name}: {why}" for pair, why in self.dropped]
        return "\n".join(lines)


def prepare(
    sources: Sequence[Source | Path],
    config: TrainConfig,
    *,
    cache: Path | None = None,
    seen: Learnt | None = None,
) -> Material:
    """Lists, cleans and splits the pairs of all sources.

    Args:
        sources: folders or tables of pairs.
        config: how patients are named and split, and whether unreadable pairs are left out.
        cache: folder that keeps what was found of each pair.
        seen: what the network that the training starts from has learnt: without a list of
            patients that are held out, it stays on its side, and what validated on its own.

    Raises:
        DataError: a pair can't be read, or nothing usable is left.
    """
    named = [
        item if isinstance(item, Source) else Source(name=item.resolve().name, path=item)
        for item in sources
    ]
    listings = list_sources(named, patient_pattern=config.patient_pattern)
    kept, dropped, alike = usable_pairs(
        listings, skip_unreadable=config.skip_unreadable, cache=cache, keep=config.keep
    )
    training, validation = choose_sides(kept, alike, config, seen)
    training, copies = without_copies(training, validation, alike)
    if config.held_out:
        validation = in_groups(validation, Path(config.held_out))
    return Material(
        training=tuple(training),
        validation=tuple(validation),
        dropped=(*dropped, *copies),
        unmatched=tuple(name for listing in listings for name in listing.unmatched),
        weights={
            pair.source: source.weight
            for source, listing in zip(named, listings, strict=True)
            for pair in listing.pairs
        },
        unknown=tuple(name for listing in listings for name in listing.unknown),
    )


def unknown_patients(names: Sequence[str]) -> str:
    """A sentence about slices that stand for patients of their own."""
    return (
        f"nothing tells the patients of {len(names)} slices, {names[0]} first: each counts as one "
        "of its own; where several are of one patient, name them by --patient-pattern or a table"
    )


def write_material(
    material: Material, out: Path, provenance: dict[str, Any], seen: Learnt | None = None
) -> None:
    """Records the split, what was dropped and the hashes of what is used.

    Args:
        material: of the run.
        out: folder of the run.
        provenance: how the run was made.
        seen: what the network that it starts from has learnt.
    """
    # Absolute paths: an export may start in another folder.
    content = json.dumps(asdict(material), default=lambda path: str(path.resolve()), indent=1)
    (out / MATERIAL).write_text(content)
    write_pairs(out / SPLIT, split_rows(material))
    write_pairs(out / DROPPED, material.dropped)
    facts = {
        "data_sha256": data_hash((*material.training, *material.validation)),
        "split_sha256": split_hash(material.training, material.validation),
        LEARNT: learnt_record(material.training, material.validation, seen),
        "unmatched": list(material.unmatched),
        "sources": [
            {"name": name, "weight": weight}
            | _counts(material, name)
            | terms_of(name, (*material.training, *material.validation))
            for name, weight in material.weights.items()
        ],
    }
    (out / PROVENANCE).write_text(json.dumps(facts | provenance, indent=2) + "\n")


def read_material(out: Path) -> Material:
    """The slices of a run, as ``write_material`` recorded them.

    Raises:
        DataError: the record is missing or damaged.
    """
    try:
        content = json.loads((out / MATERIAL).read_text())
        return Material(
            training=tuple(_pair(entry) for entry in content["training"]),
            validation=tuple(_pair(entry) for entry in content["validation"]),
            dropped=tuple((_pair(entry), reason) for entry, reason in content["dropped"]),
            unmatched=tuple(content["unmatched"]),
            weights=content.get("weights", {}),
            unknown=tuple(content.get("unknown", ())),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{out / MATERIAL}: the run's record of its slices is missing or damaged; start its "
            "command again, which writes it anew"
        ) from error


def _pair(entry: dict[str, Any]) -> Pair:
    files = ("image", "mask", "airway")
    paths: dict[str, Any] = {name: Path(entry[name]) for name in files if entry.get(name)}
    return Pair(**(entry | paths))


def split_rows(material: Material) -> list[tuple[Pair, str]]:
    """Each used pair with its side of the split."""
    rows = [(pair, "training") for pair in material.training]
    return rows + [(pair, "validation") for pair in material.validation]


def _counts(material: Material, source: str) -> dict[str, int]:
    sides = {
        "training": material.training,
        "validation": material.validation,
        "dropped": tuple(pair for pair, _ in material.dropped),
    }
    return {side: sum(pair.source == source for pair in pairs) for side, pairs in sides.items()}
