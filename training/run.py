"""From folders of slices and masks to a published model version, without a hand on it."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.config import TrainConfig, read_config, write_config
from training.dataset import Pair
from training.errors import DataError
from training.material import (
    PROVENANCE,
    SPLIT,
    Material,
    prepare,
    read_material,
    split_rows,
    write_material,
)
from training.sources import Source, list_sources, parse_source

CONFIG, FOLDS, STATE = "config.toml", "folds.json", "state.json"
MODELS = "models"
"""Folder of a cross-validation's own models."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Of a model, as ``lungseg.core.contract`` wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is to be published, and where.

    Attributes:
        models: folder of all models.
        name: of the model.
        external: folders or tables of slices to measure on, never trained on.
        force: publish although the version in place is better; the card says so.
        int8: quantise, and refuse when that costs too much.
    """

    models: Path
    name: str
    external: tuple[Path, ...] = ()
    force: bool = False
    int8: bool = False


def run(
    sources: Sequence[Source | Path], out: Path, config: TrainConfig, release: Release
) -> Path | None:
    """Trains and publishes; what ``out`` already holds of this run is continued.

    Returns:
        The folder of the new model version; None after a cross-validation, which publishes none.
    """
    if config.folds and not config.fold:
        cross_validate(sources, out, config, release)
        return None
    if not config.folds:
        expect_publishable(release, config)  # known now, not after a night of training
    chief = train(sources, out, config)
    if config.folds or not chief:
        return None
    return export(out, release)


def train(
    sources: Sequence[Source | Path], out: Path, config: TrainConfig, *, cache: Path | None = None
) -> bool:
    """Cleans, splits and fits; returns whether this process is the one that keeps the run.

    Raises:
        DataError: the slices can't be used, or ``out`` holds another run.
    """
    # Keras takes seconds to import: only where it is needed
    from training.cache import cache_pieces
    from training.fit import fit
    from training.provenance import provenance
    from training.strategies import is_chief

    cache = cache or out.parent / ".cache"
    chief = is_chief(config.strategy)
    expect_same_recipe(config, out)
    material = prepare(sources, config, cache=cache)
    expect_same_split(material, out)
    if chief:
        out.mkdir(parents=True, exist_ok=True)
        write_config(config, out / CONFIG)
        write_material(material, out, provenance(config))
        print(material.describe())
    fit(
        cache_pieces(material.training, config.grid, cache),
        cache_pieces(material.validation, config.grid, cache),
        config,
        out,
        weights=[material.weights.get(pair.source, 1.0) for pair in material.training],
    )
    return chief


def cross_validate(
    sources: Sequence[Source | Path], out: Path, config: TrainConfig, release: Release
) -> dict[str, Any]:
    """Runs all folds, each in its own folder; measures each slice with the fold it was kept from.

    The folds' models are published in ``out``, not among the release's.

    Args:
        sources: folders or tables of pairs.
        out: folder of all folds, to resume too.
        config: the recipe, with the number of folds.
        release: what to measure beside the folds' own slices, and whether to quantise.

    Returns:
        What ``folds.json`` holds: mean Dice of each fold at the slices' own size, their mean and
        standard deviation, mean, 5th percentile and minimum over all slices.
    """
    from lungseg.inference.model import Model
    from lungseg.inference.session import Engine
    from training.evaluate import SliceResult, evaluate, format_table, summarise
    from training.publish import latest

    groups: list[list[SliceResult]] = []
    for fold in range(1, config.folds + 1):
        print(f"fold {fold} of {config.folds}")
        name = f"fold-{fold}"
        folder = out / name
        train(sources, folder, replace(config, fold=fold), cache=out.parent / ".cache")
        bundle = latest(out / MODELS / name) or export(
            folder, replace(release, models=out / MODELS, name=name)
        )
        model = Model.load(bundle, Engine())
        groups.append(list(evaluate(model, read_material(folder).validation)))
    summaries = [summarise(f"fold {fold}", group) for fold, group in enumerate(groups, 1)]
    total = summarise("all folds", [result for group in groups for result in group])
    dice = [summary.means["dice"] for summary in summaries]
    result = {
        "validation_dice": dice,
        "mean": statistics.fmean(dice),
        "standard_deviation": statistics.stdev(dice),
        "slices": {"mean": total.means["dice"], "p5": total.p5, "minimum": total.minimum},
    }
    (out / FOLDS).write_text(json.dumps(result, indent=2) + "\n")
    print(format_table([*summaries, total]))
    print(f"validation Dice {result['mean']:.4f} ± {result['standard_deviation']:.4f} over folds")
    return result


def export(out: Path, release: Release) -> Path:
    """Publishes the kept network of a run as the next version of a model.

    Raises:
        DataError: the folder holds no whole run, or ``publish`` refuses.
    """
    from training.checkpoints import BEST, LAST, load_network
    from training.publish import Trained, publish

    if not (out / BEST).exists():
        raise DataError(f"{out}: expected a run with {BEST}; train first")
    config = read_config(out / CONFIG, {})
    kept = BEST if config.kept_epoch == "best" else LAST
    external = expect_publishable(release, config)
    material = read_material(out)
    target = publish(
        Trained(
            network=load_network(out / kept),
            config=config,
            training=material.training,
            validation=material.validation,
            provenance=json.loads((out / PROVENANCE).read_text()),
            dropped=material.dropped,
            external=external,
        ),
        release,
    )
    print(f"published {target}")
    return target


def expect_publishable(release: Release, config: TrainConfig) -> tuple[Pair, ...]:
    """Refuses what could only fail after the training; returns the external pairs.

    Raises:
        DataError: the name can't be a model's, or external slices are missing.
    """
    if not NAME.fullmatch(release.name):
        raise DataError(
            f"{release.name!r} can't be a model's name: expected at most 64 of a-z, 0-9, '.', '_' "
            "and '-', a letter or digit first; choose one with --name"
        )
    sources = [parse_source(str(path)) for path in release.external]
    listings = list_sources(sources, patient_pattern=config.patient_pattern)
    return tuple(pair for listing in listings for pair in listing.pairs)


def expect_begun(out: Path) -> None:
    """Refuses to take a new folder for a run to resume.

    Raises:
        DataError: ``out`` holds no run.
    """
    if next(out.rglob(CONFIG), None) is None:
        raise DataError(f"{out}: holds no run to resume; leave --resume out to begin one there")


def expect_same_recipe(config: TrainConfig, out: Path) -> None:
    """Refuses to continue a run with another recipe; one without a whole epoch may change.

    Raises:
        DataError: the folder holds a run of a different recipe.
    """
    if not (out / STATE).exists() or not (out / CONFIG).exists():
        return
    before, now = asdict(read_config(out / CONFIG, {})), asdict(config)
    changed = [name for name in now if now[name] != before[name]]
    if changed:
        raise DataError(
            f"{out}: holds a run of another recipe (other {', '.join(changed)}); "
            "choose another --out"
        )


def expect_same_split(material: Material, out: Path) -> None:
    """Refuses to continue a run on other slices; one without a whole epoch may change.

    Raises:
        DataError: slices were added, removed or moved to the other side since.
    """
    if not (out / STATE).exists() or not (out / SPLIT).exists():
        return
    with (out / SPLIT).open(newline="") as stream:
        before = {tuple(row) for row in list(csv.reader(stream))[1:]}
    now = {(p.source, p.name, p.patient, side) for p, side in split_rows(material)}
    if before != now:
        raise DataError(
            f"{out}: {len(before ^ now)} entries of the split changed since this run began; "
            "restore the data, or choose another --out"
        )
