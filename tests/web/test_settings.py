"""Settings: what the environment gives, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lungseg.settings import Settings


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGSEG_PROVIDERS", "A, B")
    monkeypatch.setenv("LUNGSEG_API_KEYS", "first-key,other-key")
    made = Settings(_env_file=None)
    assert made.providers == ("A", "B")
    assert len(set(made.key_hashes())) == 2
    assert "first-key" not in repr(made)


def test_keys_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# readers\nfirst\n\nsecond\n")
    assert len(Settings(_env_file=None, api_keys_file=file).key_hashes()) == 2


def test_settings_are_frozen_and_bounded() -> None:
    made = Settings(_env_file=None)
    with pytest.raises(ValidationError):
        setattr(made, "port", 1)  # noqa: B010
    for name, value in {"port": 70000, "deadline_s": 0, "batching": "on"}.items():
        with pytest.raises(ValidationError):
            Settings(_env_file=None, **{name: value})
