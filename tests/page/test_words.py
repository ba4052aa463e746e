"""Whatever the service may say, the page knows what helps."""

from __future__ import annotations

import re

from lungseg.core.quality import CODES
from lungseg.core.volume_quality import VOLUME_CODES
from lungseg.packaged import page_folder
from lungseg.web.errors import PROBLEMS

GATEWAYS = {"rate_limited"}
"""What only a gateway before the service says."""
OWN = {"unreachable", "cancelled", "no_problem", "broken_off"}
"""What the page itself finds wrong."""


def words(table: str) -> dict[str, str]:
    """The sentences of a table of ``words.js`` by code."""
    text = (page_folder() / "words.js").read_text(encoding="utf-8")
    (block,) = re.findall(rf"const {table} = {{\n(.*?)\n}};", text, re.DOTALL)
    return dict(re.findall(r'^  (\w+):\s+"(.*)",$', block, re.MULTILINE))


def test_each_flag_and_error_has_its_advice() -> None:
    """A new code without a sentence fails here, and so does a sentence without a code."""
    assert set(words("FLAGS")) == {*CODES, *VOLUME_CODES}
    assert set(words("PROBLEMS")) == {*PROBLEMS, *GATEWAYS, *OWN}
