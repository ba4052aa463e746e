"""Cross-validation: each slice measured with the one fold that it was kept from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from training.config import TrainConfig
from training.data.material import read_material
from training.data.sources import Source
from training.evaluation.evaluate import SliceResult, evaluate, format_table, summarise
from training.fitting.train import train
from training.release.export import export
from training.release.target import Release, latest

FOLDS = "folds.json"
MODELS = "models"
"""Folder of a cross-validation's own models."""


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
    groups: list[list[SliceResult]] = []
    for fold in range(1, config.folds + 1):
        print(f"fold {fold} of {config.folds}")
        name = f"fold-{fold}"
        folder = out / name
        train(sources, folder, replace(config, fold=fold), cache=out.parent / ".cache")
        bundle = latest(out / MODELS / name) or export(
            folder, replace(release, models=out / MODELS, name=name, minimum_dice=0.0)
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
