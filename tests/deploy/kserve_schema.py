"""Checks an InferenceService against KServe's own models, under a Python that has them.

kserve_schema.py FILE: prints each member that KServe doesn't know, and exits 1 if there is one.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client.models

SCALARS = {"str": str, "int": int, "float": (int, float), "bool": bool}


def unknown(value: Any, kind: str, where: str) -> list[str]:
    """Members of ``value`` that the model ``kind`` doesn't have, or whose type is another."""
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{where}: expected a list"]
        return [e for i, v in enumerate(value) for e in unknown(v, found[1], f"{where}[{i}]")]
    if found := re.fullmatch(r"dict[\[(]\w+, ?(.+)[\])]", kind):
        return [e for k, v in value.items() for e in unknown(v, found[1], f"{where}.{k}")]
    if kind in SCALARS:
        right = isinstance(value, SCALARS[kind]) and (kind == "bool") == isinstance(value, bool)
        return [] if right else [f"{where}: expected {kind}"]
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind, None)
    if model is None:  # a quantity, or a number or string: any scalar
        return []
    members = {name: model.openapi_types[key] for key, name in model.attribute_map.items()}
    errors = [f"{where}.{name}: unknown" for name in value if name not in members]
    for name, member in value.items():
        if name in members:
            errors += unknown(member, members[name], f"{where}.{name}")
    return errors


if __name__ == "__main__":
    wrong = unknown(json.loads(Path(sys.argv[1]).read_text()), "V1beta1InferenceService", "$")
    print("\n".join(wrong))
    sys.exit(bool(wrong))
