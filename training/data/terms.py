"""Under which terms data sets may be used and whom to cite, as their sources say it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.data.dataset import Pair
from training.errors import DataError

BESIDE = "SOURCE.toml"
"""What a data set says of itself, in the folder of its slices or in one of the two above it."""
MEMBERS = {"title": str, "licence": str, "read": bool, "citations": list}
_OURS = Path(__file__).with_name("terms.toml")


def known_terms(source: str) -> dict[str, Any]:
    """What this project knows of a source by its name; empty where it knows none."""
    ours = tomllib.loads(_OURS.read_text(encoding="utf-8"))
    terms = ours["sources"].get(source, {})
    cited = [ours["citations"].get(name, name) for name in terms.get("citations", ())]
    return terms | {"citations": cited} if cited else terms


def terms_of(source: str, pairs: Iterable[Pair]) -> dict[str, Any]:
    """Title, licence and citations of a source, as far as they are stated.

    Args:
        source: its name.
        pairs: slices, of it and of others; the file beside the first of its own counts.

    Raises:
        DataError: the file beside its slices is no TOML, or has other members.
    """
    image = next((pair.image for pair in pairs if pair.source == source), None)
    places = [folder / BESIDE for folder in image.resolve().parents[:3]] if image else []
    file = next((place for place in places if place.is_file()), None)
    return known_terms(source) if file is None else _read(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: expected TOML ({error})") from error
    wrong = sorted(name for name, value in found.items() if type(value) is not MEMBERS.get(name))
    if wrong or not all(isinstance(text, str) for text in found.get("citations", ())):
        raise DataError(
            f"{file}: expected title and licence as texts, read as true or false, citations as a "
            f"list of texts, received another {' and '.join(wrong) or 'list'}"
        )
    return found
