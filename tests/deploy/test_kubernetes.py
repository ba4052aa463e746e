"""The Kubernetes manifests against the schemas of Kubernetes, KServe and the operator."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
from pydantic import ValidationError

from lungseg.cli import _parser
from lungseg.settings import Settings

ROOT = Path(__file__).parents[2]
BASE = ROOT / "docker" / "kubernetes" / "base"
KSERVE = ROOT / "docker" / "kubernetes" / "kserve" / "inference-service.yaml"
COHORT = ROOT / "docker" / "kubernetes" / "cohort" / "job.yaml"
KSERVE_PYTHON = Path(sys.prefix) / "kserve" / "bin" / "python"
KUBERNETES = "1.33"
OWN_SCHEMA = ("kustomization.yaml", "service-monitor.yaml")


def manifest(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


CORE = sorted(path.name for path in BASE.glob("*.yaml") if path.name not in OWN_SCHEMA)


@pytest.mark.parametrize("name", CORE)
def test_core_manifests_are_valid(name: str) -> None:
    """Strictly: an unknown member is an error."""
    kubernetes_validate.validate(manifest(BASE / name), KUBERNETES, strict=True)


def test_the_cohort_is_valid_and_its_parts_fit() -> None:
    """As many parts as pods; a worker's memory is bounded below the pod's; options are known."""
    job = manifest(COHORT)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    pods = job["spec"]["completions"]
    asked = [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in container["args"]]
    options = _parser().parse_args(["cohort", *asked])
    assert options.shard == (0, pods)
    assert options.workers == int(container["resources"]["limits"]["cpu"])
    limit_kib = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 20
    script = container["command"][2]
    worker_kib = int(script.partition("ulimit -d ")[2].partition(";")[0])
    assert options.workers * worker_kib < limit_kib
    assert script.endswith('exec python -m lungseg cohort "$@"')


def test_the_validation_can_fail() -> None:
    """A member that doesn't exist is found."""
    wrong = manifest(BASE / "deployment.yaml")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_service_monitor_is_valid() -> None:
    """Against the operator's model; a wrong interval is found."""
    right = manifest(BASE / "service-monitor.yaml")
    ServiceMonitor.model_validate(right)
    wrong = copy.deepcopy(right)
    wrong["spec"]["endpoints"][0]["interval"] = "often"
    with pytest.raises(ValidationError):
        ServiceMonitor.model_validate(wrong)


def kserve_errors(document: dict[str, Any], folder: Path) -> str:
    path = folder / "document.json"
    path.write_text(json.dumps(document))
    script = Path(__file__).with_name("kserve_schema.py")
    done = subprocess.run(
        [KSERVE_PYTHON, script, path], capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not KSERVE_PYTHON.exists(), reason="`make test` installs KServe's models")
def test_the_inference_service_is_valid(tmp_path: Path) -> None:
    """Every member is known to KServe, with its type; a wrong one is named."""
    right = manifest(KSERVE)
    assert kserve_errors(right, tmp_path) == ""
    wrong = copy.deepcopy(right)
    wrong["spec"]["predictor"]["minReplica"] = 1
    wrong["spec"]["predictor"]["containers"][0]["image"] = 7
    said = kserve_errors(wrong, tmp_path)
    assert "$.spec.predictor.minReplica: unknown" in said
    assert "containers[0].image: expected str" in said


@pytest.mark.parametrize("path", [BASE / "deployment.yaml", KSERVE], ids=lambda p: p.parent.name)
def test_settings_in_manifests_exist_and_fit(path: Path) -> None:
    """Each LUNGSEG_ variable is a setting, and the grace period covers lingering and draining."""
    spec = manifest(path)["spec"]
    pod = spec["template"]["spec"] if "template" in spec else spec["predictor"]
    variables = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
    names = {f"LUNGSEG_{name.upper()}" for name in Settings.model_fields}
    assert set(variables) <= names
    values = {name.removeprefix("LUNGSEG_").lower(): value for name, value in variables.items()}
    settings = Settings(_env_file=None, **values)
    assert pod["terminationGracePeriodSeconds"] > settings.linger_s + settings.drain_s


def test_every_manifest_is_in_the_kustomization() -> None:
    """And nothing else is."""
    listed = manifest(BASE / "kustomization.yaml")["resources"]
    assert sorted(listed) == sorted(p.name for p in BASE.glob("*.yaml") if p.name != OWN_SCHEMA[0])


def test_selectors_meet_the_pods_labels() -> None:
    """Service, autoscaler, budget, policy and monitor all mean the deployment's pods."""
    deployment = manifest(BASE / "deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    service = manifest(BASE / "service.yaml")
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        manifest(BASE / "disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
        manifest(BASE / "network-policy.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)
    monitored = manifest(BASE / "service-monitor.yaml")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= service["metadata"]["labels"].items()
    target = manifest(BASE / "autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert target["name"] == deployment["metadata"]["name"]
