"""The list of what the service is made of, as `make sbom` and `make image-sbom` write it."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "service.txt").read_text(encoding="utf-8")
MODELS = {
    f"{file.parent.parent.name}/{file.parent.name}": hashlib.sha256(file.read_bytes()).hexdigest()
    for file in ROOT.glob("models/*/*/model.onnx")
}
IMAGE = {
    "models": [MODELS["lung-unet/3"]],
    "python": "3.11.99",
    "packages": {
        name: re.search(rf"^{name}==(\S+)", LOCK, re.M)[1]  # type: ignore[index]
        for name in ("numpy", "fastapi", "starlette", "protobuf")
    },
    "distribution": "debian",
    "system": [
        ["tool", "1:2.0-1", "amd64", "libone (>= 1), libabsent | libtwo, shell:any"],
        ["libone", "1.0", "amd64", ""],
        ["libtwo", "3", "all", "libone"],
    ],
    "licences": {"tool": "Files: *\nLicense: GPL-2+\n\nLicense: GPL-2+\n", "libone": "in words"},
}
"""What an image would say of itself, with a few packages."""


@pytest.fixture(scope="module")
def write() -> Any:
    return runpy.run_path(str(ROOT / "docker" / "sbom.py"))["main"]


@pytest.fixture(scope="module")
def service(write: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("sbom") / "service.cdx.json"
    write(out)
    return json.loads(out.read_text())


def docker(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Puts a Docker on the path that knows one image."""
    said = json.dumps(IMAGE | changes)
    cases = f"run) cat <<'END'\n{said}\nEND\n;; image) echo sha256:{'5' * 64};;"
    (folder / "docker").write_text(f"#!/bin/sh\ncase $1 in {cases} esac\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def parts(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The components by name, or by name and version where there are several."""
    models = "machine-learning-model"
    return {
        f"{c['name']}/{c['version']}" if c["type"] == models else c["name"]: c
        for c in bom["components"]
    }


def graph(bom: dict[str, Any]) -> dict[str, set[str]]:
    found = {node["ref"]: set(node.get("dependsOn", [])) for node in bom["dependencies"]}
    assert len(found) == len(bom["dependencies"])
    return found


def test_every_locked_package_is_listed_with_licence_and_hashes(service: dict[str, Any]) -> None:
    """What is locked for other systems is not."""
    found = {c["name"].lower().replace("_", "-"): c for c in service["components"] if "purl" in c}
    blocks = re.findall(r"^(\S+)==(\S+?) (;.*)?\\\n((?:    .*\n?)+)", LOCK, re.M)
    others = {name for name, *_ in blocks} - found.keys()
    assert others == {"colorama"}
    assert found.keys() == {name for name, *_ in blocks} - others
    for name, version, _, hashes in blocks:
        if name in found:
            assert found[name]["version"] == version
            assert found[name]["licenses"], name
            listed = [h["content"] for r in found[name]["externalReferences"] for h in r["hashes"]]
            assert sorted(listed) == sorted(re.findall(r"sha256:(\w+)", hashes))
    assert "file://" not in json.dumps(service)


def test_every_model_is_listed_with_hash_and_licence(service: dict[str, Any]) -> None:
    """As a machine-learning model, under the models' own licence."""
    found = {name: c for name, c in parts(service).items() if c["type"] == "machine-learning-model"}
    assert {name: c["hashes"] for name, c in found.items()} == {
        name: [{"alg": "SHA-256", "content": digest}] for name, digest in MODELS.items()
    }
    for name in MODELS:
        ((licence,),) = (entry.values() for entry in found[name]["licenses"])
        assert licence["name"] == "LicenseRef-lungseg-models"
        assert licence["text"]["content"] == (ROOT / "models" / "LICENSE").read_text("utf-8")
        (card,) = found[name]["externalReferences"]
        assert (ROOT / card["url"]).is_file()


def test_the_graph_reaches_every_part(service: dict[str, Any]) -> None:
    """From the project over its requirements to theirs, and to the models."""
    edges = graph(service)
    assert edges.keys() == {"root-component", *(c["bom-ref"] for c in service["components"])}
    reached, ahead = set(), {"root-component"}
    while ahead:
        reached |= ahead
        ahead = set().union(*(edges[ref] for ref in ahead)) - reached
    assert reached == edges.keys()
    named = {name: c["bom-ref"] for name, c in parts(service).items()}
    assert named["starlette"] in edges[named["fastapi"]]
    assert not edges[named["numpy"]]
    assert named["h11"] not in edges["root-component"]  # uvicorn's alone


def test_an_image_is_listed_with_interpreter_and_system(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is inside it by its own words, not what is only locked; by CycloneDX's schema."""
    docker(tmp_path, monkeypatch)
    write(tmp_path / "image.cdx.json", "lungseg:test")
    text = (tmp_path / "image.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    found, edges = parts(bom), graph(bom)
    described = bom["metadata"]["component"]
    assert (described["type"], described["hashes"][0]["content"]) == ("container", "5" * 64)
    assert found.keys() == {
        *("lungseg", "python", "lung-unet/3", *IMAGE["packages"]),
        *(name for name, *_ in IMAGE["system"]),
    }
    assert found["python"]["version"] == "3.11.99"
    system = {f"system:{name}" for name, *_ in IMAGE["system"]}
    assert edges["image"] == {"root-component", "python", *system}
    assert edges["system:tool"] == {"system:libone", "system:libtwo"}
    assert edges["system:libtwo"] == {"system:libone"}
    assert edges["system:libone"] == set()
    assert found["tool"]["purl"] == "pkg:deb/debian/tool@1:2.0-1?arch=amd64"
    names = {
        n: [e["license"]["name"] for e in found[n]["licenses"]]
        for n in ("tool", "libone", "libtwo")
    }
    assert names["tool"] == ["GPL-2+"]
    assert names["libone"] == ["see /usr/share/doc/libone/copyright in the image"]
    assert names["libtwo"] == ["see /usr/share/doc/libtwo/copyright in the image"]


def test_an_image_of_other_packages_is_not_described(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or models: licences and graph are this checkout's, and wrong for another one's image."""
    docker(tmp_path, monkeypatch, packages=IMAGE["packages"] | {"numpy": "1.0", "unheard-of": "2"})
    with pytest.raises(SystemExit, match="not as in this environment: numpy, unheard-of"):
        write(tmp_path / "image.cdx.json", "lungseg:test")
    docker(tmp_path, monkeypatch, models=["0" * 64])
    with pytest.raises(SystemExit, match=f"not in this checkout: {'0' * 64}"):
        write(tmp_path / "image.cdx.json", "lungseg:test")
    assert not (tmp_path / "image.cdx.json").exists()
