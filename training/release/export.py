"""Publishes what a run has kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import keras

from lungseg.inference.contract import Contract
from training.config import TrainConfig, read_config
from training.data.dataset import Pair
from training.data.learnt import PROVENANCE
from training.data.material import read_material
from training.errors import DataError
from training.fitting.checkpoints import load_network
from training.fitting.start import seen_by
from training.fitting.state import BEST, CONFIG, LAST
from training.networks.unet import build_unet
from training.release.change import Start
from training.release.publish import Trained, publish
from training.release.target import Release, expect_publishable

NETWORK, INT8 = "network_sha256", "int8"
"""Facts of a record that tell a network from others, and how it is computed."""


def export(out: Path, release: Release, *, old: tuple[Pair, ...] | None = None) -> Path:
    """Publishes the kept network of a run as the next version of a model, once.

    Args:
        out: folder of the run.
        release: what to publish, and where.
        old: of a fine-tuning, pairs to find the first network's validation slices among.

    Returns:
        The folder of the version, of the one that is there where it was published before.

    Raises:
        DataError: the folder holds no whole run, or ``publish`` refuses.
    """
    if not (out / BEST).exists():
        raise DataError(f"{out}: expected a run with {BEST}; train first")
    config = read_config(out / CONFIG, {})
    kept = out / (BEST if config.kept_epoch == "best" else LAST)
    external = expect_publishable(release, config)
    with kept.open("rb") as stream:
        identity = {NETWORK: hashlib.file_digest(stream, "sha256").hexdigest(), INT8: release.int8}
    there = _published(release, identity)
    if there is not None:
        print(f"this network is published already, as {there}; nothing was done")
        return there
    target = publish(
        Trained(
            network=_in_float32(load_network(kept), config),
            config=config,
            material=read_material(out),
            provenance=json.loads((out / PROVENANCE).read_text()) | identity,
            external=external,
            seen=seen_by(config.init_from),
            start=None if old is None else Start(folder=Path(config.init_from), old=old),
        ),
        release,
    )
    print(_announcement(target, release))
    return target


def _published(release: Release, identity: dict[str, object]) -> Path | None:
    """The version that is the same network in the same arithmetic."""
    for record in sorted((release.models / release.name).glob(f"*/{PROVENANCE}")):
        try:
            facts = json.loads(record.read_text())
        except (OSError, ValueError):
            continue  # not ours to judge here
        if all(facts.get(name) == value for name, value in identity.items()):
            return record.parent
    return None


def _in_float32(network: keras.Model, config: TrainConfig) -> keras.Model:
    """The same weights without 16-bit arithmetic, which serving does not use."""
    if config.mixed_precision == "none":
        return network
    plain = build_unet(replace(config, encoder_weights="none"))
    plain.set_weights(network.get_weights())
    return plain


def _announcement(target: Path, release: Release) -> str:
    """What was published, how good it is, and how to call it."""
    contract = Contract.model_validate_json((target / "contract.json").read_text())
    dice = contract.metrics["validation.dice"]
    least = contract.metrics["validation.dice_min"]
    return (
        f"published {target}: mean Dice {dice:.4f} on the validation slices, {least:.4f} at least\n"
        f"  serve it: LUNGSEG_MODELS_DIR={release.models} LUNGSEG_MODEL={release.name} "
        "lungseg serve\n"
        f"  call it:  curl -F file=@slice.dcm 'http://127.0.0.1:8000/segment?model={release.name}'"
    )
