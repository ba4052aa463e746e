"""The pages of ``docs/`` and their neighbours: what they name is there, what they show runs."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from lungseg.core import geometry, quality, volume_quality
from lungseg.core.body import SOLID_HU
from lungseg.core.postprocess import UNCERTAIN_PROBABILITY
from lungseg.core.surroundings import GAS_HU
from lungseg.settings import Settings
from lungseg.volume_forms import VOLUME_FORMS
from tests.examples import ADDRESS, ROOT, blocks, commands, prepare, run, run_line
from tests.serving import Running, running, wait_until

PAGES = [page.name for page in sorted(ROOT.glob("*.md"))] + [
    f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))
]
OPENAPI = json.loads((ROOT / "tests" / "golden" / "openapi.json").read_text(encoding="utf-8"))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, as cells."""
    section = text_of(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def slugs(text: str) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}


def named(cells: list[str]) -> set[str]:
    """What stands in code in some cells."""
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


@pytest.fixture(scope="module")
def shipped() -> Iterator[Running]:
    """The service with the models that the repository ships."""
    with running(ROOT / "models", model="lung-unet", batching="waiting") as started:
        yield started


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """Files that a page links to exist, and so do the headings in them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        headings = (
            re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M) if anchor else []
        )
        slugs = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}
        assert not anchor or anchor in slugs, target


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in ("CHANGELOG.md", "DESIGN.md")]
)
def test_every_path_that_is_named_exists(page: str) -> None:
    """A file that was moved is moved in the documents too."""
    roots = "service|training|tests|docker|docs|requirements|models/lung|bench"
    paths = set(re.findall(rf"`((?:{roots})[\w-]*/[\w./-]*)`", text_of(page)))
    paths -= {"models/lung-unet/.next"}  # a name that a reader gives for a moment
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_and_make_target_that_is_named_exists(page: str) -> None:
    """A misspelt variable or target, or one without its prefix, would mislead in silence."""
    known = {f"LUNGSEG_{name.upper()}" for name in Settings.model_fields}
    # The client's key, the composition's tag, and one that only tests read.
    known |= {"LUNGSEG_API_KEY", "LUNGSEG_TAG", "LUNGSEG_FUZZ_INPUTS"}
    used = set(re.findall(r"LUNGSEG_[A-Z_]*[A-Z]", text_of(page)))
    assert used <= known
    bare = "|".join(name.removeprefix("LUNGSEG_") for name in known if "_" in name[8:])
    assert not re.findall(rf"(?<![A-Z_])(?:{bare})(?![A-Z_])", text_of(page))
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text_of(page), re.M)) <= targets


def test_the_pages_flags_are_the_services() -> None:
    """Every flag that can be raised is explained with its thresholds, in their order, no other."""
    rows = table("docs/operating.md", "Quality flags")
    assert named([row[0] for row in rows]) == set(quality._MESSAGES)
    constants = {
        name: np.ravel(value)
        for name, value in vars(quality).items()
        if re.fullmatch(
            "MAX_[A-Z_0-9]+|[A-Z]+_RANGE[A-Z_0-9]*|[A-Z_]+_FRACTION|TISSUE_HU|FAT_HU|LEAST_SHARE",
            name,
        )
    }
    assert named([row[2] for row in rows]) == constants.keys()
    for row in rows:
        shown = iter(float(n) for n in re.findall(r"-?\d+\.?\d*", row[1].replace("−", "-")))
        for name in re.findall(r"`([^`]+)`", row[2]):
            for value in constants[name].tolist():
                assert value in shown, name  # and what stands before it is passed over
    said = text_of("docs/operating.md").replace("−", "-")
    low, high = UNCERTAIN_PROBABILITY
    for sentence in (
        f"the uncertain pixels ({low:g} to {high:g})",
        f"air of lung density ({GAS_HU:g} to {SOLID_HU:g} HU)",
        f"those in a field of {quality.FIELD_MM2**0.5:g} mm",
    ):
        assert sentence in said


def test_the_pages_flags_of_volumes_are_the_services() -> None:
    """Every flag of a volume is explained, with the thresholds that stand beside it."""
    rows = table("docs/operating.md", "Quality flags of volumes")
    shown = [code for row in rows for code in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(shown) == sorted(volume_quality.VOLUME_CODES)
    said = {code: row[1] for row in rows for code in named([row[0]])}
    low, high = volume_quality.VOLUME_RANGE_ML
    for code, words in (
        ("missing_slices", f"over {volume_quality.MAX_GAP:g} steps"),
        ("gantry_tilt", f"over {geometry.MAX_TILT_DEGREES:g}°"),
        ("non_axial", f"more than {quality.MAX_TILT_DEGREES:g}°"),
        ("incomplete_base", f"over {volume_quality.LEAST_CUT_MM2:g} mm²"),
        ("volume_out_of_range", f"under {low:g} or over {high:g} ml"),
        ("air_unlabelled", f"over {volume_quality.LEAST_UNLABELLED_ML:g} ml"),
        ("outside_body", f"over {volume_quality.LEAST_OUTSIDE_ML:g} ml"),
    ):
        assert words in said[code]


def test_the_pages_forms_of_volumes_are_the_interfaces() -> None:
    """Form by form, in their order, with the media type that ``Accept`` may name."""
    rows = [row for row in table("docs/using.md", "Volumes") if named([row[0]]) & set(VOLUME_FORMS)]
    assert [row[0].strip("`") for row in rows] == list(VOLUME_FORMS)
    types = re.findall(r"`(\w+/[\w.-]+)`", " ".join(row[1] for row in rows))
    assert types == list(dict.fromkeys(form.media_type for form in VOLUME_FORMS.values()))


def test_the_pages_errors_are_the_interfaces() -> None:
    """Status by status, the codes of the page are those of the OpenAPI document."""
    shown = {
        (row[0], code) for row in table("docs/operating.md", "Errors") for code in named([row[1]])
    }
    operations = [op for path in OPENAPI["paths"].values() for op in path.values()]
    promised = {
        (status, code)
        for operation in operations
        for status, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for code in content.get("examples", {})
        if status >= "400"
    }
    assert len(promised) >= 10
    assert promised <= shown


def test_the_pages_encodings_and_forms_are_the_interfaces() -> None:
    """Every encoding has a row that says how to read it, every form is named."""
    parameters = {
        item["name"]: item["schema"] for item in OPENAPI["paths"]["/segment"]["post"]["parameters"]
    }
    encodings = set(parameters["encoding"]["enum"])
    using = text_of("docs/using.md")
    shown = using.partition("| encoding | read it with |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", shown, re.M)) == encodings
    forms = next(kind["enum"] for kind in parameters["format"]["anyOf"] if "enum" in kind)
    assert all(f"`{form}`" in using for form in forms)


def test_the_pages_metrics_are_the_services(shipped: Running) -> None:
    """Every metric of a service with batching is explained, and no other."""
    exposed = re.findall(r"^# TYPE (lungseg_\w+) ", shipped.client.get("/metrics").text, re.M)
    found = named([row[0] for row in table("docs/operating.md", "Metrics")])
    assert found == {name for name in exposed if not name.endswith("_created")}


def test_the_log_line_shown_has_the_members_of_a_real_one(
    shipped: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the page shows of a request is what is logged of one."""
    (line,) = blocks("docs/operating.md", "json")
    content = (prepare(tmp_path) / "slice.dcm").read_bytes()
    with caplog.at_level("INFO", logger="lungseg.access"):
        assert shipped.client.post("/segment", content=content).status_code == 200
        # The line is written after the answer's last byte.
        wait_until(lambda: any(record.name == "lungseg.access" for record in caplog.records))
    logged = next(record for record in caplog.records if record.name == "lungseg.access")
    shown = json.loads(line)
    assert {"time", "level", "logger", "message"} | set(logged.fields) == set(shown)
    assert set(logged.fields["stages_ms"]) == set(shown["stages_ms"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", ["docs/using.md", "docs/operating.md", "docs/cohorts.md"])
def test_the_commands_of_a_page_succeed(page: str, shipped: Running, tmp_path: Path) -> None:
    """In order, by a shell, in a folder with the files that they name."""
    lines = commands(page)
    assert len(lines) >= 2
    for line in lines:
        run_line(line, shipped.port, prepare(tmp_path) if line is lines[0] else tmp_path)


@pytest.mark.parametrize(
    "program",
    blocks("docs/using.md", "python"),
    ids=["library", "volumes", "client", "errors", "triton"],
)
def test_a_program_of_the_page_on_use_runs(program: str, shipped: Running, tmp_path: Path) -> None:
    """The client's and Triton's, at the address of this service."""
    script = program.replace(ADDRESS, f"127.0.0.1:{shipped.port}")
    run([sys.executable, "-c", script], prepare(tmp_path))


def test_the_models_figures_are_those_of_the_card() -> None:
    """Each row's figures of version 3 are a row of its card, rounded."""
    card = text_of("models/lung-unet/3/CARD.md")
    measured = [
        tuple(float(figure) for figure in row)
        for row in re.findall(
            r"^\| .+? \| \d+(?: / \d+)? \| ([\d.]+)(?: \([^)]*\))? \| ([\d.]+) \| ([\d.]+) \|",
            card,
            re.M,
        )
    ]
    rows = table("docs/model.md", "Figures")
    assert len(rows) >= 8
    for name, *cells in rows:
        shown = [float(cell.partition(" ")[0]) for cell in cells]
        assert any(row == pytest.approx(shown, abs=6e-4) for row in measured), name


def test_the_changelog_begins_with_what_is_not_released() -> None:
    """Once; every heading below is a version."""
    first, *others = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.M)
    assert first == "Unreleased"
    assert others
    assert all(re.match(r"\d+\.\d+\.\d+\b", heading) for heading in others)


def test_one_licence_does_not_stand_for_all() -> None:
    """Package and image name those of code, weights, samples and what the page has of others."""
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    inside = project["license"].split(" AND ")
    others = ["CC-BY-3.0", "BSD-2-Clause", "MIT", "ISC"]
    assert inside == ["Apache-2.0", "LicenseRef-lungseg-models", *others]
    assert f'image.licenses="{project["license"]}"' in text_of("Dockerfile")
    vendored = "service/lungseg/page/vendor/LICENSE"
    assert set(project["license-files"]) == {"LICENSE", "models/LICENSE", vendored}
    assert "under models/LICENSE" in text_of("LICENSE")
    assert "Research use only" in text_of("models/LICENSE")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["license"] == inside[0]


def test_the_citation_names_this_version() -> None:
    """Whoever cites cites what is released."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert cited["version"] == project["version"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
