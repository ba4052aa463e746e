"""Figures in the documents: each is one of a card, of the experiments, or of what it speaks of."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from lungseg.inference.workers import LARGE_BODY_BYTES
from tests.documents.test_pages import ROOT, table, text_of

CARDS = [str(path.relative_to(ROOT)) for path in ROOT.glob("models/*/*/CARD.md")]
SOURCES = [*CARDS, "training/EXPERIMENTS.md"]
CARD = "models/lung-unet/3/CARD.md"


def figures(text: str) -> set[str]:
    """Numbers with three decimals or more, outside of code: what only a measurement gives."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return set(re.findall(r"(?<![\d.])\d+\.\d{3,4}(?![\d.])", plain))


@pytest.mark.parametrize("page", ["README.md", "DESIGN.md", "docs/model.md"])
def test_every_measured_figure_is_one_of_a_card_or_of_the_experiments(page: str) -> None:
    """Rounded as the page rounds; a figure from nowhere fails."""
    measured = {number for source in SOURCES for number in figures(text_of(source))}
    known = {f"{float(number):.{digits}f}" for number in measured for digits in (3, 4)}
    rules = {"0.001", "0.01"} if page == "DESIGN.md" else set()  # limits, not measurements
    shown = figures(text_of(page)) - rules
    assert len(shown) >= 3
    assert shown <= known


def test_the_readmes_figures_are_those_of_the_card() -> None:
    """Row by row: number, mean with its interval where there is one, 5th percentile, minimum."""
    rows = table("README.md", "The model, on real slices")
    assert len(rows) >= 6
    card = text_of(CARD)
    lines = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    measured = [cells[1:5] for cells in lines]
    bare = [[number, mean.partition(" ")[0], *rest] for number, mean, *rest in measured]
    for name, *cells in rows:  # an interval stands where each slice is a patient of its own
        assert cells in (measured if "(" in cells[1] else bare), name
    said = " ".join(text_of("README.md").split())
    groups = {name: row for name, *row in table(CARD, "Validation slices by what they hold")}
    assert f"of which {groups['slivers below 10 cm²'][4]} are found" in said
    slices = groups["no lung"][0].partition(" ")[0]
    assert groups["no lung"][6:8] == ["0.00", "0.00"]
    assert f"Nothing was called lung on {slices} slices without any" in said
    share, count = re.findall(r"Airways: (.+?%) of .+? on (\d+) slices", card)[0]
    assert f"{share} of trachea and main bronchi on {count} that show them" in said


def test_the_counts_of_decisions_are_those_of_the_files() -> None:
    """Folder by folder: all slices, verdicts, and those with ignored parts."""
    rows = table("training/labels/README.md", "What stands here")
    assert len(rows) == len(list((ROOT / "training" / "labels").glob("*.toml")))
    for folder, *counts in rows:
        text = text_of(f"training/labels/{folder.strip('`')}.toml")
        slices = list(tomllib.loads(text)["slices"].values())
        given = [entry["verdict"] for entry in slices]
        verdicts = [given.count(word) for word in ("accept", "edit", "empty")]
        ignoring = sum("ignore" in entry for entry in slices)
        assert [int(count) for count in counts] == [len(slices), *verdicts, ignoring], folder


def test_the_gateways_figures_are_those_of_its_configuration() -> None:
    """What the page on deploying says of rates, bodies and times."""
    said = " ".join(text_of("docs/deploying.md").split())
    files = {name: text_of(f"docker/nginx/{name}.conf") for name in ("nginx", "routes")}
    (rate,) = re.findall(r"zone=rate:\S+ rate=(\d+)r/s", files["nginx"])
    (burst,) = set(re.findall(r"limit_req zone=rate burst=(\d+)", files["routes"]))
    (connections,) = set(re.findall(r"limit_conn connections (\d+)", files["routes"]))
    assert (
        f"each client to {rate} requests a second (429 beyond a burst of {burst}) and "
        f"{connections} connections"
    ) in said
    lost, lost_volume = re.findall(r"proxy_read_timeout (\d+)s", files["routes"])
    assert f"noticed after {lost} seconds only, under a volume after {lost_volume}" in said
    assert '"~^POST ([0-9]{1,6}|1[0-9]{6})$" @slice;' in files["nginx"]
    assert "announced with less than 2,000,000 bytes" in said


def test_the_manifests_figures_are_those_of_the_page() -> None:
    """Times of a stopping pod, and the autoscaler's share; both manifests have one limit."""
    said = " ".join(text_of("docs/deploying.md").split())
    pod = yaml.safe_load(text_of("docker/kubernetes/base/deployment.yaml"))["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    env = {item["name"]: item["value"] for item in container["env"]}
    linger = int(env["LUNGSEG_LINGER_S"])
    more = int(env["LUNGSEG_DRAIN_S"]) - linger
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert (
        f"lingers for {linger} s and then has up to {more} s more, within a grace period of {grace}"
    ) in said
    scaler = text_of("docker/kubernetes/base/autoscaler.yaml")
    (share,) = re.findall(r"averageUtilization: (\d+)", scaler)
    assert f"the {int(share) / 100:g} being the autoscaler's target" in said
    predictor = yaml.safe_load(text_of("docker/kubernetes/kserve/inference-service.yaml"))
    (other,) = predictor["spec"]["predictor"]["containers"]
    assert other["resources"] == container["resources"]


def test_what_a_large_body_is() -> None:
    """The bound that three pages name."""
    assert LARGE_BODY_BYTES == 4 * 2**20
    for page in ("docs/operating.md", "DESIGN.md"):
        assert re.search(r"[Bb]odies over 4 MiB", text_of(page)), page
