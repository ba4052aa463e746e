"""CycloneDX list of what the service, or an image of it, is made of: sbom.py OUT [IMAGE].

Python packages with licences, hashes and graph, and the models; of an image also its interpreter
and its system's packages. Runs in the development environment, which holds what is locked for the
service in the same versions.
"""

import hashlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "service.txt"
MODELS = sorted(ROOT.glob("models/*/*/model.onnx"))
APPLICATION = "root-component"
"""What cyclonedx-py calls the project."""
INSIDE = """
import hashlib, json, os, platform, subprocess
from importlib import metadata
from pathlib import Path
form = "${Package}\\t${Version}\\t${Architecture}\\t${Depends}\\n"
asked = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True)
system = [line.split("\\t") for line in asked.stdout.splitlines()]
texts = {name: Path("/usr/share/doc", name, "copyright") for name, *_ in system}
networks = Path(os.environ["LUNGSEG_MODELS_DIR"]).glob("*/*/model.onnx")
print(json.dumps({
    "models": [hashlib.sha256(network.read_bytes()).hexdigest() for network in networks],
    "python": platform.python_version(),
    "packages": {d.name: d.version for d in metadata.distributions() if d.name != "lungseg"},
    "distribution": platform.freedesktop_os_release()["ID"],
    "system": system,
    "licences": {n: t.read_text("utf-8", "replace") for n, t in texts.items() if t.is_file()},
}))
"""
"""What an image says of itself."""


def main(out: Path, image: str | None = None) -> None:
    inside = said_by(image) if image else {"packages": locked(), "models": None}
    bom = of_environment(inside["packages"])
    add(bom, models(inside["models"]), to=APPLICATION)
    if image:
        wrap(bom, image)
        bom["dependencies"] += system_graph(inside["system"])
        add(bom, [*system_packages(inside), interpreter(inside["python"])], to="image")
    bom["components"].sort(key=lambda component: component["bom-ref"])
    bom["dependencies"].sort(key=lambda node: node["ref"])
    text = json.dumps(bom, indent=2) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"the list would not be CycloneDX 1.6: {wrong}")
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {len(bom['components'])} components")


def said_by(image: str) -> dict:
    return json.loads(
        called("docker", "run", "--rm", "--entrypoint", "python", image, "-c", INSIDE)
    )


def called(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def cyclonedx(kind: str, source: str) -> dict:
    # Only the whole is validated; of requirements alone there is no graph, of which it warns.
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--no-validate")
    command = (sys.executable, "-W", "ignore", "-m", "cyclonedx_py", kind, source, *options)
    return json.loads(called(*command))


def locked() -> dict[str, str]:
    """Names and versions of what is locked for the service on this system."""
    lines = re.findall(r"^(\S+==.+) \\$", LOCK.read_text(encoding="utf-8"), re.M)
    entries = [Requirement(line) for line in lines]
    here = [entry for entry in entries if not entry.marker or entry.marker.evaluate()]
    return {entry.name: str(entry.specifier).removeprefix("==") for entry in here}


def of_environment(packages: dict[str, str]) -> dict:
    """The list of the environment, cut down to some packages, with the hashes of the lock file."""
    bom = cyclonedx("environment", sys.executable)
    wanted = {canonicalize_name(name): version for name, version in packages.items()}
    kept = [c for c in bom["components"] if canonicalize_name(c["name"]) in wanted]
    found = {canonicalize_name(c["name"]): c["version"] for c in kept}
    if found != wanted:
        differing = sorted(dict(found.items() ^ wanted.items()))
        raise SystemExit(f"not as in this environment: {', '.join(differing)} (make setup)")
    files = {
        c["purl"]: c["externalReferences"]
        for c in cyclonedx("requirements", str(LOCK))["components"]
    }
    for component in kept:
        component["externalReferences"] = files[component["purl"]]  # in place of its web pages
        if not component.get("licenses"):
            component["licenses"] = [{"license": {"name": declared(component["name"])}}]
    refs = {component["bom-ref"] for component in kept}
    bom["components"] = kept
    bom["dependencies"] = [
        {"ref": node["ref"], "dependsOn": [ref for ref in node.get("dependsOn", []) if ref in refs]}
        for node in bom["dependencies"]
        if node["ref"] in refs | {APPLICATION}
    ]
    return bom


def declared(package: str) -> str:
    """The licence in a package's own words, where cyclonedx-py makes nothing of them."""
    words = metadata.metadata(package).json.get("license")
    if not words:
        raise SystemExit(f"{package} names no licence")
    return str(words)


def add(bom: dict, components: list[dict], *, to: str) -> None:
    """Adds components that something depends on."""
    refs = [component["bom-ref"] for component in components]
    bom["components"] += components
    (node,) = (node for node in bom["dependencies"] if node["ref"] == to)
    node["dependsOn"] += refs
    known = {node["ref"] for node in bom["dependencies"]}
    bom["dependencies"] += [{"ref": ref} for ref in refs if ref not in known]


def models(hashes: list[str] | None) -> list[dict]:
    """Every version of every model of the checkout, or those with some hashes."""
    found = {hashlib.sha256(file.read_bytes()).hexdigest(): file.parent for file in MODELS}
    if unknown := set(hashes or ()) - found.keys():
        raise SystemExit(f"models that are not in this checkout: {', '.join(sorted(unknown))}")
    text = (ROOT / "models" / "LICENSE").read_text(encoding="utf-8")
    licence = {"name": "LicenseRef-lungseg-models", "text": {"content": text}}
    return [
        {
            "bom-ref": f"model:{folder.parent.name}/{folder.name}",
            "type": "machine-learning-model",
            "name": folder.parent.name,
            "version": folder.name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "licenses": [{"license": licence}],
            "externalReferences": [
                {"type": "model-card", "url": f"{folder.relative_to(ROOT)}/CARD.md"}
            ],
        }
        for digest, folder in found.items()
        if hashes is None or digest in hashes
    ]


def wrap(bom: dict, image: str) -> None:
    """Makes the image what is described, and the application a part of it."""
    application = bom["metadata"]["component"]
    digest = called("docker", "image", "inspect", "--format", "{{.Id}}", image).strip()
    bom["metadata"]["component"] = {
        "bom-ref": "image",
        "type": "container",
        "name": application["name"],
        "version": application["version"],
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
    }
    bom["components"].append(application)
    bom["dependencies"].append({"ref": "image", "dependsOn": [APPLICATION]})


def interpreter(version: str) -> dict:
    return {
        "bom-ref": "python",
        "type": "platform",
        "name": "python",
        "version": version,
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def system_packages(inside: dict) -> list[dict]:
    """The packages of the image's system, with the licences that their own files name."""
    return [
        {
            "bom-ref": f"system:{name}",
            "type": "library",
            "name": name,
            "version": version,
            "licenses": [
                {"license": {"name": licence}}
                for licence in named(inside["licences"].get(name, ""), name)
            ],
            "purl": PackageURL(
                "deb", inside["distribution"], name, version, {"arch": architecture}
            ).to_string(),
        }
        for name, version, architecture, _ in inside["system"]
    ]


def named(text: str, package: str) -> list[str]:
    """The licences of a Debian copyright file; where it is no list, the place of the file."""
    found = sorted({name.strip() for name in re.findall(r"^License: *(\S.*)$", text, re.M)})
    return found or [f"see /usr/share/doc/{package}/copyright in the image"]


def system_graph(system: list[list[str]]) -> list[dict]:
    """Which packages of the system need which; of alternatives, those that are there."""
    names = {name for name, *_ in system}
    graph = []
    for name, _, _, needs in system:
        found = sorted(set(re.findall(r"(?:^|[,|]) *([a-z0-9.+-]+)", needs)) & names)
        graph.append({"ref": f"system:{name}", "dependsOn": [f"system:{need}" for need in found]})
    return graph


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
