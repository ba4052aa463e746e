"""Publishes what a run has kept."""

from __future__ import annotations

import json
from pathlib import Path

from training.config import read_config
from training.data.material import PROVENANCE, read_material
from training.errors import DataError
from training.fitting.checkpoints import load_network
from training.fitting.state import BEST, CONFIG, LAST
from training.release.publish import Trained, publish
from training.release.target import Release, expect_publishable


def export(out: Path, release: Release) -> Path:
    """Publishes the kept network of a run as the next version of a model.

    Raises:
        DataError: the folder holds no whole run, or ``publish`` refuses.
    """
    if not (out / BEST).exists():
        raise DataError(f"{out}: expected a run with {BEST}; train first")
    config = read_config(out / CONFIG, {})
    kept = BEST if config.kept_epoch == "best" else LAST
    external = expect_publishable(release, config)
    target = publish(
        Trained(
            network=load_network(out / kept),
            config=config,
            material=read_material(out),
            provenance=json.loads((out / PROVENANCE).read_text()),
            external=external,
        ),
        release,
    )
    print(f"published {target}")
    return target
