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
from training.data.learnt import LEARNT, PROVENANCE, Learnt, learnt_record
from training.data.material import Material
from training.data.terms import terms_of
from training.errors import DataError
from training.evaluation.evaluate import SliceResult, evaluate, summarise
from training.networks.convert import OPSET, parity, to_onnx, write_triton_config
from training.release.card import CardFacts, write_card
from training.release.change import Start, describe_change
from training.release.credits import CARD
from training.release.gate import judge
from training.release.golden import write_golden
from training.release.quantize import (
    GOLDEN_DIFFERENCE,
    calibration_views,
    int8_cost,
    quantize_int8,
)
from training.release.target import Release, latest, next_version
from training.synthetic.views import STANDARD_WINDOWS_HU, through_window

PARITY_SLICES = 16
WEIGHTS = "model.keras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run has to show for itself.

    Attributes:
        network: the Keras model of the best epoch.
        config: its recipe.
        material: pairs it was fitted to, pairs it was not, and what was left out.
        provenance: data hash, versions and the like, as JSON values.
        external: other data sets to measure on, never trained on.
        seen: what the network that it started from has learnt, None for none.
        start: the model that it was fine-tuned from, to say what changed; None for none.
    """

    network: keras.Model
    config: TrainConfig
    material: Material
    provenance: dict[str, Any]
    external: tuple[Pair, ...] = ()
    seen: Learnt | None = None
    start: Start | None = None


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
    """Fills a bundle, says what fine-tuning changed, and asks the gate."""
    facts = _fill(folder, trained, release)
    change = ""
    if trained.start is not None:
        change = describe_change(trained.start, folder, facts.results)
        print(change)  # a version that the gate refuses is measured too
    before = latest(release.models / release.name)
    judgement = judge(folder, before, facts.results, release, seen=trained.seen)
    return replace(
        facts,
        stress=judgement.stressed,
        comparison=judgement.comparison,
        remark=judgement.remark,
        change=change,
        overruled=judgement.overruled,
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
        content = quantize_int8(content, list(calibration_views(material.training, config)))
    _write_graph(folder, content, config, golden)
    model = Model.load(folder, Engine())
    results = list(evaluate(model, material.validation))
    int8 = int8_cost(float_model, model, results)
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
    (folder / CARD).touch()
    return contract


def _greys(pairs: Sequence[Pair], config: TrainConfig) -> Iterator[NDArray[np.float32]]:
    """Slices as the network sees them in serving."""
    for pair in pairs:
        scan, size = read_sample(pair).scan, (config.grid, config.grid)
        yield fit(scan, size, config.intensity, covers=config.covers).grey


def _provenance(trained: Trained) -> dict[str, Any]:
    material = trained.material
    names = [f"{pair.source}/{pair.name}" for pair in material.validation]
    external = {pair.source for pair in trained.external}
    facts = {
        "config": asdict(trained.config),
        "validation": sorted(names),
        "external": [
            {"name": name} | terms_of(name, trained.external) for name in sorted(external)
        ],
    }
    if LEARNT not in trained.provenance:  # of a run that an earlier version began
        facts[LEARNT] = learnt_record(material.training, material.validation, trained.seen)
    return trained.provenance | facts


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
