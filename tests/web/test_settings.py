"""Settings: what the README says, what the environment gives, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lungseg.settings import Settings

README = Path(__file__).parents[2] / "README.md"
UNITS = {
    "_s": "s", "_ms": "ms", "_bytes": "bytes", "_pixels": "pixels", "_items": "slices",
    "queue_size": "requests", "max_size": "slices", "workers": "threads", "_threads": "threads",
    "_versions": "versions",
}  # fmt: skip


def row(name: str) -> str:
    field = Settings.model_fields[name]
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, float):
        default = f"{default:g}"
    shown = f"`{default}`" if default not in (None, "") else "none"
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return f"| `{name.upper()}` | {shown} | {unit} | {field.description} |"


def test_the_readme_lists_every_setting_with_unit_and_default() -> None:
    """On failure, copy the table from the message."""
    rows = [row(name) for name in Settings.model_fields]
    text = README.read_text(encoding="utf-8")
    missing = [line for line in rows if line not in text]
    assert not missing, "\n".join(rows)


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
