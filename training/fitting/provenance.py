"""Under which circumstances a run was made."""

from __future__ import annotations

import datetime as dt
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from training.config import TrainConfig

PACKAGES = ("lungseg", "keras", "tensorflow", "torch", "jax", "numpy", "scipy", "pillow", "pydicom")
"""Whose versions a run's weights may depend on; those not installed are left out."""


def provenance(config: TrainConfig) -> dict[str, Any]:
    """Seed, backend, package versions, git commit and machine, as JSON values.

    Args:
        config: the recipe, whose seed is the only one: split, weights, order and variation
            follow from it.
    """
    return {
        "seed": config.seed,
        "backend": keras.backend.backend(),
        "versions": {"python": platform.python_version()} | _versions(),
        "git": git_state(Path(__file__).parent),
        "machine": f"{platform.system()} {platform.machine()}",
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the checkout, and whether files differ from it; empty without a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": bool(changes)}


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
