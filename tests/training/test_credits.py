"""Licences, citations and origin in cards: from the sources and the record, never from nowhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from training.__main__ import main
from training.data.dataset import Pair
from training.data.terms import known_terms, terms_of
from training.errors import DataError
from training.fitting.start import inherited
from training.release.credits import describe_terms, describe_tree

ROOT = Path(__file__).parents[2]
CARDS = sorted(ROOT.glob("models/*/[0-9]*"))
UNSTATED = "unknown: not stated by its source"


def source(name: str, training: int = 1, **terms: object) -> dict[str, object]:
    return {"name": name, "training": training, "validation": 2, **terms}


@pytest.mark.parametrize("bundle", CARDS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_shipped_cards_are_what_their_records_give(bundle: Path, tmp_path: Path) -> None:
    """`python -m training card` changes no shipped card: terms and origin are those of the code."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("CARD.md", "provenance.json"):
        shutil.copy(bundle / name, copy)
    assert main(["card", str(copy)]) == 0
    card = (copy / "CARD.md").read_text()
    assert card == (bundle / "CARD.md").read_text()
    record = json.loads((bundle / "provenance.json").read_text())
    assert all(f"| `{entry['name']}` |" in card for entry in record["sources"])
    assert f"commit `{record['git']['commit']}`, with changes that were not committed" in card
    assert "| `lungsegdb-mini` |" in card


def test_a_licence_is_stated_remembered_or_unknown() -> None:
    """Of our own sources, of one that states its terms, and of one that states none."""
    record = {
        "sources": [
            source("tcia_lidc0001"),
            source("tcia_siim100"),
            source("kaggle-lungs"),
            source("clinic", title="Ours", licence="CC0", citations=["Doe 2026."]),
            source("other"),
        ],
        "inherited": [source("tcia_acrin001"), source("clinic")],
        "external": [{"name": "lungsegdb-mini"}],
    }
    text = describe_terms(record)
    assert "| `tcia_lidc0001` | LIDC-IDRI | 1 to learn from, 2 held out | CC BY 3.0 |" in text
    assert "CC BY 3.0 (as remembered, not read) |" in text
    assert "| `clinic` | Ours | 1 to learn from, 2 held out | CC0 |" in text
    assert f"| `other` | not described | 1 to learn from, 2 held out | {UNSTATED} |" in text
    assert "| learnt by the network that it started from | CC BY 3.0 |" in text
    assert f"| for measuring only | {UNSTATED} |" in text
    assert text.count("- Doe 2026.") == text.count("J Digit Imaging 26:1045") == 1
    assert text.count("`clinic`") == 1
    assert "Unknown: " not in text


def test_what_is_behind_first_weights_is_told_or_called_unknown() -> None:
    """Neither another network's data nor an encoder's may go without a word."""
    text = describe_terms(
        {"config": {"init_from": "a.keras", "encoder_weights": "b.h5"}, "inherited": None}
    )
    assert "Unknown: what `a.keras`, which it started from, had learnt from." in text
    assert "Unknown: the terms of its encoder's first weights, `b.h5`." in text
    known = {"config": {"init_from": "a.keras", "encoder_weights": "none"}, "inherited": []}
    assert "Unknown: " not in describe_terms(known)


def test_what_a_network_started_from_is_handed_on(tmp_path: Path) -> None:
    """Over generations; what only validated was not learnt, and no record is no answer."""
    assert inherited("") == []
    record = {"config": {"init_from": ""}, "sources": [source("a"), source("b", training=0)]}
    file = tmp_path / "provenance.json"
    file.write_text(json.dumps(record))
    (tmp_path / "model.keras").touch()
    for start in (tmp_path, tmp_path / "model.keras"):
        assert inherited(str(start)) == [source("a")]
    record["config"] = {"init_from": "elsewhere"}
    file.write_text(json.dumps(record))
    assert inherited(str(tmp_path)) is None
    file.write_text(json.dumps(record | {"inherited": [source("c")]}))
    assert inherited(str(tmp_path)) == [source("a"), source("c")]
    file.write_text(json.dumps(record | {"inherited": None}))
    assert inherited(str(tmp_path)) is None
    assert inherited(str(tmp_path / "none" / "model.keras")) is None


def test_a_data_set_says_its_own_terms(tmp_path: Path) -> None:
    """In the folder of its slices or in one of two above, before what we know of its name."""
    image = tmp_path / "set" / "images" / "ct" / "x.png"
    mine = Pair(name="x", image=image, mask=image, patient="x", source="kaggle-lungs")
    assert terms_of("kaggle-lungs", [mine]) == known_terms("kaggle-lungs")
    assert terms_of("another", [mine]) == {}
    (tmp_path / "SOURCE.toml").write_text("licence = 'of other things'")  # three folders above
    assert terms_of("kaggle-lungs", [mine]) == known_terms("kaggle-lungs")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "SOURCE.toml").write_text("title = 'T'\nlicence = 'L'\nread = false\n")
    assert terms_of("kaggle-lungs", [mine]) == {"title": "T", "licence": "L", "read": False}
    assert terms_of("another", [mine]) == {}


@pytest.mark.parametrize(
    "text", ["license = 'CC0'", "licence = 1", "citations = [1]", "no TOML", "read = 'no'"]
)
def test_terms_that_cannot_be_read_are_refused(text: str, tmp_path: Path) -> None:
    """A misspelt licence must not become an unknown one."""
    image = tmp_path / "x.png"
    (tmp_path / "SOURCE.toml").write_text(text)
    with pytest.raises(DataError, match=r"SOURCE\.toml: expected "):
        terms_of("s", [Pair(name="x", image=image, mask=image, patient="x", source="s")])


def test_a_tree_is_clean_changed_or_unknown() -> None:
    """The card says whether its commit makes the model again."""
    clean = describe_tree(
        {"git": {"commit": "abc", "modified": False}, "versions": {"b": "2", "a": "1"}}
    )
    assert (
        "It was trained on commit `abc`, without changes to it. Package versions: a 1, b 2."
        in clean
    )
    assert "commit `abc`, with changes that" in describe_tree({"git": {"commit": "abc"}})
    assert "The commit that it was trained on is not known. Package versions: unknown." in (
        describe_tree({})
    )


def test_a_card_of_other_hands_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What training did not write has no sections to write anew."""
    assert main(["card", str(tmp_path)]) == 2
    (tmp_path / "provenance.json").write_text("{}")
    (tmp_path / "CARD.md").write_text("# Mine\n")
    assert main(["card", str(tmp_path)]) == 2
    assert "expected the sections of a card that training wrote" in capsys.readouterr().err
    assert (tmp_path / "CARD.md").read_text() == "# Mine\n"
