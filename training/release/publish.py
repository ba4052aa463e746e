"""Writes a trained network as the next version of a model: checked, gated, all or nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lungseg.core.preprocess import fit
from lungseg.inference.contract import Contract, Golden, MaskRule, TensorSpec
from lungseg.inference.errors import BundleError
from lungseg.inference.model import Model
from lungseg.inference.session import Engine, Session
from training.config import TrainConfig
from training.data.dataset import Pair, read_sample
from training.data.material import PROVENANCE, Material
from training.errors import DataError
from training.evaluation.compare import Comparison, compare_models, group_setbacks, setbacks
from training.evaluation.evaluate import SliceResult, evaluate, predict, summarise
from training.evaluation.metrics import dice_of
from training.evaluation.stress import stress
from training.networks.convert import OPSET, parity, to_onnx, write_triton_config
from training.release.card import CardFacts, write_card
from training.release.golden import write_golden
from training.release.quantize import CALIBRATION_SLICES, GOLDEN_DIFFERENCE, Int8Cost, quantize_int8
from training.release.target import Release, latest, next_version
from training.synthetic.views import STANDARD_WINDOWS_HU, through_window

PARITY_SLICES = 16
STRESS_SLICES = 64
"""Of the validation slices, as many are stressed at most: each in some forty ways."""
WEIGHTS = "model.keras"
AS_STORED = None
CALIBRATION_VIEWS = (AS_STORED, AS_STORED, AS_STORED, *STANDARD_WINDOWS_HU)
"""How the slices that int8 is calibrated on are shown in turn: half of them as 8-bit pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run has to show for itself.

    Attributes:
        network: the Keras model of the best epoch.
        config: its recipe.
        material: pairs it was fitted to, pairs it was not, and what was left out.
        provenance: data hash, versions and the like, as JSON values.
        external: other data sets to measure on, never trained on.
    """

    network: keras.Model
    config: TrainConfig
    material: Material
    provenance: dict[str, Any]
    external: tuple[Pair, ...] = ()


def publish(trained: Trained, release: Release) -> Path:
    """Exports, proves, measures and publishes a network.

    The bundle is made in a hidden folder beside the models and moved into place by one rename,
    so that a crash or a full disk leaves nothing half-written.

    Returns:
        The folder of the new version.

    Raises:
        DataError: Keras and ONNX disagree, the gate refuses, or the disk is full.
    """
    version = next_version(release.models / release.name)
    try:
        with _staging(release.models) as staging:
            folder = staging / release.name / version
            folder.mkdir(parents=True)
            facts = _measured(folder, trained, release)
            write_card(facts, folder)
            Model.load(folder, Engine())  # the proof: the service itself accepts the bundle
            target = release.models / release.name / version
            target.parent.mkdir(parents=True, exist_ok=True)
            write_triton_config(
                target.parent, release.name, Session((folder / "model.onnx").read_bytes(), Engine())
            )
            folder.rename(target)
    except OSError as error:
        raise DataError(
            f"{release.models}: the model could not be written ({error.strerror}); nothing is "
            "left half-written. Make room and export again"
        ) from error
    except BundleError as error:
        raise DataError(f"the service refuses the exported model: {error}") from error
    return target


def _measured(folder: Path, trained: Trained, release: Release) -> CardFacts:
    """Fills a bundle, then measures it beside the version in place and asks the gate."""
    facts = _fill(folder, trained, release)
    before = latest(release.models / release.name)
    models = [Model.load(place, Engine()) for place in (folder, before) if place is not None]
    stressed = stress(models, trained.material.validation, limit=STRESS_SLICES)
    comparison = None
    if before is not None:
        reference = list(evaluate(models[1], trained.material.validation))
        harm = setbacks(stressed[1], stressed[0]) + group_setbacks(reference, facts.results)
        comparison = replace(compare_models(reference, facts.results), setbacks=harm)
        _gate(comparison, before.name, release)
    return replace(
        facts,
        stress=stressed[0],
        comparison=comparison,
        forced=release.force,
        foreword=release.foreword.read_text(encoding="utf-8") if release.foreword else "",
    )


def _fill(folder: Path, trained: Trained, release: Release) -> CardFacts:
    """Writes all files of a bundle but the card."""
    network, config, material = trained.network, trained.config, trained.material
    metadata = {"model": release.name, "version": folder.name, "license": "research use only"}
    content = to_onnx(network, metadata | {"config": json.dumps(asdict(config))})
    difference = parity(network, content, _greys(material.validation[:PARITY_SLICES], config))
    golden, float_model = Golden(), None
    if release.int8:
        _write_graph(folder, content, config, golden)
        golden = Golden(max_abs_difference=GOLDEN_DIFFERENCE)
        float_model = Model.load(folder, Engine())
        chosen = material.training[:: max(1, len(material.training) // CALIBRATION_SLICES)]
        content = quantize_int8(content, list(_greys(chosen, config, CALIBRATION_VIEWS)))
    _write_graph(folder, content, config, golden)
    model = Model.load(folder, Engine())
    results = list(evaluate(model, material.validation))
    int8 = _int8_cost(float_model, model, results)
    external = list(evaluate(model, trained.external))
    windows = {
        window: list(evaluate(model, material.validation, vary=through_window(*window)))
        for window in STANDARD_WINDOWS_HU
    }
    if not release.int8:  # its weights are the float model's
        network.save(folder / WEIGHTS, include_optimizer=False)
    (folder / PROVENANCE).write_text(json.dumps(_provenance(trained), indent=1, sort_keys=True))
    contract = _write_graph(folder, content, config, golden, _metrics(results, external))
    return CardFacts(
        contract=contract,
        config=config,
        provenance=_provenance(trained),
        material=material,
        results=results,
        external=external,
        windows=windows,
        parity=difference,
        int8=int8,
        parameters=network.count_params(),
    )


def _write_graph(
    folder: Path,
    content: bytes,
    config: TrainConfig,
    golden: Golden,
    metrics: Mapping[str, float] | None = None,
) -> Contract:
    """Writes graph, golden scan and the contract that binds them."""
    session = Session(content, Engine())
    (folder / "model.onnx").write_bytes(content)
    sides = [
        (int(node.shape[1] or 0), int(node.shape[2] or 0))
        for node in (session.input, session.output)
    ]
    contract = Contract(
        name=folder.parent.name,
        version=folder.name,
        created=dt.datetime.now(dt.UTC).date().isoformat(),
        sha256=hashlib.sha256(content).hexdigest(),
        opset=OPSET,
        input=TensorSpec(name=session.input.name, height=sides[0][0], width=sides[0][1]),
        output=TensorSpec(name=session.output.name, height=sides[1][0], width=sides[1][1]),
        grid=config.covers,
        intensity=config.intensity,
        mask=MaskRule(threshold=config.threshold, largest_components=config.largest_components),
        golden=golden,
        metrics=dict(metrics or {}),
    )
    (folder / "contract.json").write_text(contract.model_dump_json(indent=2) + "\n")
    write_golden(folder, contract, session)
    (folder / "CARD.md").touch()
    return contract


def _greys(
    pairs: Sequence[Pair],
    config: TrainConfig,
    views: Sequence[tuple[float, float] | None] = (AS_STORED,),
) -> Iterator[NDArray[np.float32]]:
    """Slices as the network sees them in serving, through the windows of ``views`` in turn."""
    for pair, window in zip(pairs, cycle(views), strict=False):
        sample, size = read_sample(pair), (config.grid, config.grid)
        if window is not None:
            sample = through_window(*window)(sample)
        yield fit(sample.scan, size, config.intensity, covers=config.covers).grey


def _gate(comparison: Comparison, version: str, release: Release) -> None:
    """Refuses what is worse than the version in place, unless forced."""
    if not comparison.may_replace and not release.force:
        raise DataError(
            f"not published, version {version} is better on the validation slices "
            f"(--force publishes anyway):\n{comparison.describe()}"
        )


def _int8_cost(
    float_model: Model | None, model: Model, results: Sequence[SliceResult]
) -> Int8Cost | None:
    """Compares a quantised model with the float model that it was made from, if it was."""
    if float_model is None:
        return None
    losses, agreement = [], []
    for result in results:
        sample = read_sample(result.pair)
        as_float, as_int8 = (predict(one, sample.scan).mask[0] for one in (float_model, model))
        losses.append(dice_of(as_float, sample.mask) - result.metrics.dice)
        agreement.append(dice_of(as_int8, as_float))
    cost = Int8Cost(
        dice_loss=float(np.mean(losses)),
        agreement=float(np.mean(agreement)),
        least_agreement=min(agreement),
    )
    cost.expect_small()
    return cost


def _provenance(trained: Trained) -> dict[str, Any]:
    names = [f"{pair.source}/{pair.name}" for pair in trained.material.validation]
    return trained.provenance | {"config": asdict(trained.config), "validation": sorted(names)}


def _metrics(results: Sequence[SliceResult], external: Sequence[SliceResult]) -> dict[str, float]:
    found: dict[str, float] = {}
    for prefix, group in (("validation", results), ("external", external)):
        if group:
            summary = summarise(prefix, group)
            figures = {name: summary.means[name] for name in ("dice", "iou", "hd95")}
            found |= {f"{prefix}.{name}": round(value, 4) for name, value in figures.items()}
            found[f"{prefix}.dice_min"] = round(summary.minimum, 4)
    return {name: value for name, value in found.items() if np.isfinite(value)}


@contextmanager
def _staging(models: Path) -> Generator[Path]:
    """A hidden folder on the same file system as the models, gone afterwards."""
    models.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=models))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
