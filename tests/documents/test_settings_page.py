"""``docs/settings.md`` is what ``make docs`` prints, and each sentence in it stands alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.settings_page import THEMES, render, sentences
from lungseg.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
FEWEST_WORDS = 6
"""Fewer make no sentence that says what a setting does."""


def test_the_page_is_freshly_generated() -> None:
    """Whoever changes a setting runs ``make docs``."""
    assert PAGE.read_text(encoding="utf-8") == render()


def test_every_setting_is_in_one_theme() -> None:
    """Each setting has one row, and each theme begins with a setting that there is."""
    rows = re.findall(r"^\| `LUNGSEG_(\w+)` \|", render(), re.MULTILINE)
    assert rows == [name.upper() for name in Settings.model_fields]
    assert THEMES.keys() <= Settings.model_fields.keys()
    assert next(iter(Settings.model_fields)) in THEMES


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_settings_sentence_stands_alone(name: str) -> None:
    """It is a whole sentence, not a keyword that only its neighbours explain."""
    sentence = sentences()[name]
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert len(sentence.split()) >= FEWEST_WORDS
