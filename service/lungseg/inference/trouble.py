"""What is wrong with a models folder: sentences for the operator, with paths, for the log alone."""

from __future__ import annotations

import os
from pathlib import Path

from lungseg.inference.registry import Family, Registry

_BUNDLE = "[1-9]*/model.onnx"


def trouble(registry: Registry) -> str:
    """Why the folder is not what was meant, or why nothing of it serves; empty when all is well."""
    root, policy = registry.root.absolute(), registry.policy
    try:
        os.scandir(root).close()
    except OSError as error:
        return f"the models folder {root} cannot be read ({(error.strerror or 'no').lower()})"
    family = registry.families().get(policy.model)
    if family is None:
        found = ", ".join(sorted(registry.families())) or "no model"
        return f"no model {policy.model} in the models folder {root}: it holds {found}{_hint(root)}"
    return "" if family.serving else _silence(family, f"{policy.model} in {root}")


def _silence(family: Family, where: str) -> str:
    """Why no version of a model serves."""
    if family.unloaded:
        return f"{where} was unloaded by request: nothing serves until it is loaded again"
    if family.pin is None:
        return f"no version of {where} is loaded: /models says why"
    if family.pin in family.versions:
        return f"version {family.pin} of {where} is asked for, and not loaded: /models says why"
    numbers = ", ".join(map(str, sorted(family.versions)))
    return f"no version {family.pin} of {where}: there are {numbers}"


def _hint(root: Path) -> str:
    """Where the folder lies one or two levels too deep, the one that was probably meant."""
    if any(root.glob(_BUNDLE)):
        return f"; its versions are those of one model: did you mean {root.parent}?"
    if (root / "model.onnx").exists():
        return f"; it is one version itself: did you mean {root.parent.parent}?"
    return ""
