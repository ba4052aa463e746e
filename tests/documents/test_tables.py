"""Tables and rules in ``docs/``: each is compared with the code that it describes."""

from __future__ import annotations

import re
import tomllib

from tests.documents.test_pages import ROOT, named, text_of


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
