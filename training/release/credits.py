"""What a card owes others: the data's licences and citations, and from which tree it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.data.learnt import PROVENANCE
from training.data.terms import known_terms
from training.errors import DataError
from training.evaluation.evaluate import markdown_table

CARD = "CARD.md"
HEADING = "## Data, licences and citations"
UNKNOWN = "unknown: not stated by its source"
_SECTION = re.compile(r"^## Data.*\n\n(?P<counts>(?:[- ] .+\n)+)(?:.*\n)*?(?=## )", re.MULTILINE)
_CLOSING = re.compile(r"^All settings stand in .+\Z", re.MULTILINE | re.DOTALL)


def describe_terms(record: Mapping[str, Any]) -> str:
    """A table of all sources with their licences, and whom to cite.

    Args:
        record: a model's provenance.
    """
    rows: list[tuple[str, ...]] = []
    cited: list[str] = []
    for name, use, entry in _uses(record):
        terms = entry if "title" in entry or "licence" in entry else known_terms(name)
        licence = terms.get("licence") or UNKNOWN
        if not terms.get("read", True):
            licence += " (as remembered, not read)"
        rows.append((f"`{name}`", terms.get("title") or "not described", use, licence))
        cited += terms.get("citations", ())
    text = (
        "Neither slices nor masks are part of the bundle. The weights are for research only, "
        "whatever single licences would allow; those that lungseg ships are under "
        "`models/LICENSE`.\n\n"
    ) + markdown_table(("source", "what it is", "slices", "licence"), rows)
    if cited:
        text += "\n\nTo be cited:\n\n" + "\n".join(f"- {item}" for item in dict.fromkeys(cited))
    return text + "".join(f"\n\n{sentence}" for sentence in _gaps(record))


def describe_tree(record: Mapping[str, Any]) -> str:
    """By which commit and which packages a model was trained, in sentences."""
    git, versions = record.get("git") or {}, record.get("versions") or {}
    tree = "The commit that it was trained on is not known."
    if "commit" in git:
        state = (
            "with changes that were not committed, so that the commit alone does not make it again"
            if git.get("modified", True)
            else "without changes to it"
        )
        tree = f"It was trained on commit `{git['commit']}`, {state}."
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"All settings stand in `{PROVENANCE}`. {tree} Package versions: {packages or 'unknown'}."
    )


def renew_card(folder: Path) -> None:
    """Writes those parts of a published model's card anew that follow from its record alone.

    Raises:
        DataError: record or card cannot be read, or the card has other sections.
    """
    card = folder / CARD
    try:
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        text = card.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: expected {CARD} and {PROVENANCE} ({error})") from error
    section = _SECTION.search(text)
    if section is None or not _CLOSING.search(text):
        raise DataError(f"{card}: expected the sections of a card that training wrote")
    data = f"{HEADING}\n\n{section['counts']}\n{describe_terms(record)}\n\n"
    text = text[: section.start()] + data + text[section.end() :]
    closing = describe_tree(record) + "\n"
    card.write_text(_CLOSING.sub(lambda _: closing, text), encoding="utf-8")


def _uses(record: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Each source once, with what its slices were used for."""
    own = record.get("sources") or []
    for entry in own:
        counts = f"{entry['training']} to learn from, {entry['validation']} held out"
        yield entry["name"], counts, entry
    names = {entry["name"] for entry in own}
    for entry in record.get("inherited") or []:
        if entry["name"] not in names:
            yield entry["name"], "learnt by the network that it started from", entry
    for entry in record.get("external") or []:
        yield entry["name"], "for measuring only", entry


def _gaps(record: Mapping[str, Any]) -> Iterable[str]:
    """What is known to be missing from the table."""
    config = record.get("config") or {}
    if config.get("init_from") and record.get("inherited") is None:
        yield f"Unknown: what `{config['init_from']}`, which it started from, had learnt from."
    if config.get("encoder_weights", "none") != "none":
        yield f"Unknown: the terms of its encoder's first weights, `{config['encoder_weights']}`."
