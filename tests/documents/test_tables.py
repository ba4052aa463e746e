"""Tables and rules in ``docs/``: each is compared with the code that it describes."""

from __future__ import annotations

import csv
import io
import pydoc
import re
import tomllib
import zipfile
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import httpx
from httpx import TransportError

import lungseg
from lungseg.cli.errors import EXITS
from lungseg.core import figures, measured
from lungseg.core.measures import Region, Statistics
from lungseg.core.postprocess import UNCERTAIN_PROBABILITY
from lungseg.core.types import AIR_HU, Confidence
from lungseg.inference.session import PACKAGES
from lungseg.web.surfaces import segment
from tests.documents.test_pages import ROOT, named, table, text_of
from training.synthetic.phantom import Phantom, dicom_bytes

USING = "docs/using.md"


def members(of: type) -> dict[str, bool]:
    """Members of a part of the answer, under names with dots, and whether each can be null."""
    hints = get_type_hints(of)
    found: dict[str, bool] = {}
    for name in (item.name for item in fields(of)):
        kinds = get_args(hints[name]) or (hints[name],)
        can_be_null = type(None) in kinds
        inner = next(filter(is_dataclass, kinds), None)
        if inner in (None, Region):  # a lung has the same members as the whole mask
            found[name] = can_be_null
        else:
            below = members(inner)
            found |= {f"{name}.{part}": can_be_null or below[part] for part in below}
    return found


def defined(rows: list[list[str]]) -> dict[str, bool]:
    """The names of a table of definitions, and whether it says when they are null."""
    return {name: row[3] != "never" for row in rows for name in named([row[0]])}


def test_every_statistic_is_defined() -> None:
    """Name by name those of the answer, and null where the answer's type allows it."""
    assert defined(table(USING, "Statistics")) == members(Statistics)


def test_every_figure_of_confidence_is_defined() -> None:
    """As the statistics are."""
    assert defined(table(USING, "Confidence")) == members(Confidence)


def test_the_figures_of_the_statistics_are_the_codes() -> None:
    """Levels and tolerances that the page names, each in the sentence that says what it does."""
    said = text_of(USING).replace("−", "-")
    (first, second, last), (low, high) = figures.LAA_HU, UNCERTAIN_PROBABILITY
    for sentence in (
        f"strictly below -{first}, -{second} or -{last} HU",
        "strictly above -{}, -{} or -{} HU".format(*figures.HAA_HU),
        f"values below {measured.FILL_HU:g} HU",
        f"a darkest value, at most {AIR_HU:g} HU, that fills the slice",
        f"levels more than {measured.COARSE_HU:g} HU apart",
        f"An end at or below {measured.LUNG_REACH_HU[0]:g} HU\nlimits nothing",
        f"moved the mean by over {measured.MEAN_ERROR_HU:g} HU",
        f"a probability from {low:g} to {high:g}",
    ):
        assert sentence in said


def test_the_way_of_a_request_passes_every_module() -> None:
    """A module that no step names is one that a reader will not find."""
    page = named(re.findall(r"^(?!```).*", text_of("docs/a-request.md"), re.M))
    files = [file for file in (ROOT / "service/lungseg").rglob("*.py") if file.stem != "__init__"]
    assert len(files) >= 50
    assert not [file for file in files if not {str(file.relative_to(ROOT)), file.name} & page]


def test_the_direction_of_imports_is_the_one_that_is_checked() -> None:
    """The line of the page is the list of layers in ``pyproject.toml``."""
    rules = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(rule for rule in rules if "lungseg" in rule.get("containers", ()))
    (shown,) = re.findall(r"^__main__ → .*$", text_of("docs/a-request.md"), re.M)
    assert [layer.strip("()") for layer in shown.split(" → ")] == layers["layers"]


def test_the_parts_of_the_times_are_those_of_an_answer(
    client: httpx.Client, grey_png: bytes
) -> None:
    """Part by part its stages, in the body and in the header, in this order."""
    rows = table(USING, "Times")
    assert [(part.strip("`"), tuple(re.findall(r"\w+", stages))) for part, stages in rows] == list(
        segment._PARTS.items()
    )
    answer = client.post("/segment", content=grey_png)
    header = re.findall(r"(\w+);dur=", answer.headers["Server-Timing"])
    assert list(answer.json()["timings_ms"]) == header == list(segment._PARTS)
    metrics = {row[0]: row[2] for row in table("docs/operating.md", "Metrics")}
    stages = named([metrics["`lungseg_stage_seconds`"]])
    assert stages == {stage for part in segment._PARTS.values() for stage in part}


def test_the_exceptions_named_are_there() -> None:
    """Every name with dots is an exception, and of ours each is the base's kind."""
    rows = table(USING, "From Python")
    assert len(rows) >= 5
    names = [name for name in named([cell for row in rows for cell in row[1:]]) if "." in name]
    kinds = [pydoc.locate(name) for name in names if not name.endswith(("load()", "Client"))]
    assert lungseg.LungsegError in kinds
    for kind in kinds:
        assert isinstance(kind, type)
        assert issubclass(kind, lungseg.LungsegError) or kind is TransportError


def test_a_mask_of_a_batch_is_named_as_the_page_says(client: httpx.Client, grey_png: bytes) -> None:
    """The page's own example, sent."""
    (sent, mask) = re.findall(r"sent as `(.+?)` becomes `(.+?)`", text_of(USING))[0]
    files = [("files", (sent, grey_png)), ("files", ("", grey_png)), ("files", (sent, b"no slice"))]
    answer = client.post("/segment/batch?format=zip", files=files)
    packed = zipfile.ZipFile(io.BytesIO(answer.content))
    assert packed.namelist() == [mask, "0001_mask.png", "statistics.csv"]
    rows = list(csv.DictReader(io.StringIO(packed.read("statistics.csv").decode())))
    assert [row["filename"] for row in rows] == [sent, "", sent]


def test_every_exit_status_is_in_the_table() -> None:
    """With the words of the command line's own help."""
    rows = {int(code): meaning for code, meaning in table(USING, "From a shell")}
    assert rows == EXITS


def test_dicom_ignores_what_its_header_says(phantom: Phantom) -> None:
    """Unit, window and a second spacing change nothing, as the page says."""
    segmenter = lungseg.load(models=ROOT / "models")
    content = dicom_bytes(phantom)
    told = segmenter.segment(content, unit="hu", window_hu=(-700, 300), spacing_mm=(2, 3))
    assert told.statistics == segmenter.segment(content).statistics
    assert told.image["spacing_mm"] is not None


def test_the_packages_of_providers_are_those_that_a_refusal_names() -> None:
    """Provider by provider, package by package."""
    rows = table("docs/gpu.md", "What to install")
    shown = {name: package.strip("`") for names, package in rows for name in named([names])}
    assert shown == PACKAGES
