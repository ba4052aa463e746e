"""Which slices are learnt from and which validate, where chance may not decide alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from training.config import TrainConfig
from training.data.dataset import list_pairs
from training.data.learnt import LEARNT, Learnt, learnt_record, read_learnt
from training.data.material import Material, prepare
from training.data.sources import Source
from training.data.split import kin_of, patient_key
from training.errors import DataError
from training.synthetic.phantom_set import write_phantom_set


@pytest.fixture
def copies(phantoms: Path, tmp_path: Path) -> Path:
    """Of the slices of patient 3, under the name of another patient, as JPEGs."""
    data = Path(shutil.copytree(phantoms, tmp_path / "copies"))
    for number, image in enumerate(sorted((data / "images").glob("patient-0003*"))):
        name = f"patient-0077_slice-{number}"
        Image.open(image).save(data / "images" / f"{name}.jpg", quality=80)
        shutil.copy(data / "masks" / image.name, data / "masks" / f"{name}.png")
    return data


@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_land_on_one_side(copies: Path, cache: Path, seed: int) -> None:
    """Two names of one patient validate together or not at all; nothing is lost by it."""
    material = prepare([copies], TrainConfig(seed=seed), cache=cache)
    sides = [{pair.patient for pair in side} for side in (material.training, material.validation)]
    assert any({"patient-0003", "patient-0077"} <= side for side in sides)
    assert len(material.training) + len(material.validation) == 22


def test_a_copy_of_a_held_out_slice_is_not_learnt(
    copies: Path, cache: Path, tmp_path: Path
) -> None:
    """A list says who validates; a copy under another name is dropped with the reason."""
    table = tmp_path / "held-out.csv"
    table.write_text("source,patient\ncopies,patient-0003\n")
    material = prepare([copies], TrainConfig(held_out=str(table)), cache=cache)
    assert {pair.patient for pair in material.validation} == {"patient-0003"}
    assert {pair.patient for pair, _ in material.dropped} == {"patient-0077"}
    assert "near_duplicate: looks like copies/patient-0003" in material.dropped[0][1]


def seen_in(material: Material, tmp_path: Path) -> Learnt:
    record = learnt_record(material.training, material.validation, None)
    (tmp_path / "provenance.json").write_text(json.dumps({LEARNT: record}))
    learnt = read_learnt(tmp_path)
    assert learnt is not None
    return learnt


def test_what_the_first_network_saw_keeps_its_side(
    phantoms: Path, cache: Path, tmp_path: Path
) -> None:
    """In a folder of another name too; only new patients are split by chance."""
    before = prepare([phantoms], TrainConfig(seed=1), cache=cache)
    seen = seen_in(before, tmp_path)
    write_phantom_set(tmp_path / "new", count=10, patients=5, side=64, seed=9)
    sources = [Source(name="old", path=phantoms), Source(name="new", path=tmp_path / "new")]
    after = prepare(sources, TrainConfig(seed=2), cache=cache, seen=seen)
    for side in ("training", "validation"):
        now = {pair.name for pair in getattr(after, side) if pair.source == "old"}
        assert now == {pair.name for pair in getattr(before, side)}
    fresh = [pair for pair in after.validation if pair.source == "new"]
    assert len({pair.patient for pair in fresh}) == 1
    assert not any(seen.holds(pair) for pair in after.validation)
    passed_on = learnt_record((), (), seen)  # to a network that learns from others
    assert Learnt(**{name: frozenset(digests) for name, digests in passed_on.items()}) == seen
    chained = learnt_record(after.training, after.validation, seen)
    assert set(chained["slices"]) > seen.slices


def test_another_slice_of_a_learnt_patient_is_learnt(
    phantoms: Path, cache: Path, tmp_path: Path
) -> None:
    """By source and patient; a record that is damaged is named, a missing one is none."""
    material = prepare([phantoms], TrainConfig(), cache=cache)
    half = Material(
        training=material.training[:1], validation=material.validation, dropped=(), unmatched=()
    )
    seen = seen_in(half, tmp_path)
    patient = material.training[0].patient
    held = [pair for pair in material.training if seen.holds(pair)]
    assert {pair.patient for pair in held} == {patient}
    assert len(held) == 2
    both = learnt_record(material.training[:1], material.training[:2], None)
    seen = Learnt(**{name: frozenset(digests) for name, digests in both.items()})
    assert not any(seen.validated(pair) for pair in held)
    (tmp_path / "provenance.json").write_text('{"learnt": {"x": 1}}')
    with pytest.raises(DataError, match=r"provenance\.json: the record is damaged"):
        read_learnt(tmp_path)
    (tmp_path / "provenance.json").write_text("{}")
    assert read_learnt(tmp_path) is None


@pytest.mark.parametrize(
    ("side", "refusal"),
    [
        ("training", r"has learnt from every patient in the data: .* to validate with"),
        ("validation", r"has been validated with every patient in the data: .* to learn from"),
    ],
)
def test_nobody_new_in_the_data(
    phantoms: Path, cache: Path, tmp_path: Path, side: str, refusal: str
) -> None:
    """Who is learnt from can't judge, and of those who judge nothing may be learnt."""
    material = prepare([phantoms], TrainConfig(), cache=cache)
    nothing = Material(training=(), validation=(), dropped=(), unmatched=())
    everybody = (*material.training, *material.validation)
    seen = seen_in(replace(nothing, **{side: everybody}), tmp_path)
    with pytest.raises(DataError, match=refusal):
        prepare([phantoms], TrainConfig(), cache=cache, seen=seen)


def test_kin_is_named_by_its_first(phantoms: Path) -> None:
    """Also over a third, in whatever order they are found: a split follows from names."""
    pairs = list_pairs(phantoms).pairs[::2]
    named = [patient_key(pair) for pair in pairs]
    assert kin_of([(pairs[3], pairs[2]), (pairs[1], pairs[3])]) == {
        named[2]: named[1],
        named[3]: named[1],
    }
