"""Every layout and format that a researcher may have, through the functions that a run calls."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.config import PATIENT_PATTERN, TrainConfig
from training.data.cache import cache_pieces
from training.data.dataset import Pair, data_hash, list_pairs, read_sample
from training.data.material import prepare
from training.data.sources import (
    Source,
    list_source,
    list_sources,
    parse_source,
    read_table,
)
from training.data.split import split_by_patient, split_fold, split_hash
from training.errors import DataError
from training.synthetic.phantom import make_phantom, write_dicom, write_png

SIZE = (40, 56)


def write_mask(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


@pytest.mark.parametrize(
    ("images", "masks", "suffix"),
    [
        ("images", "masks", ""),
        ("images", "masks", "_mask"),
        ("2d_images", "2d_masks", ""),
        ("", "", "_mask"),
    ],
)
def test_folder_layouts_are_understood(
    tmp_path: Path, images: str, masks: str, suffix: str
) -> None:
    """Two folders with equal names, Kaggle's two, and one folder with a suffix."""
    (tmp_path / images).mkdir(exist_ok=True)
    (tmp_path / masks).mkdir(exist_ok=True)
    phantom = make_phantom(SIZE, seed=3)
    write_png(phantom, tmp_path / images / "ID_0007_Z_0042.png")
    write_mask(phantom.lungs, tmp_path / masks / f"ID_0007_Z_0042{suffix}.png")
    write_png(phantom, tmp_path / images / "lonely.png")
    listing = list_pairs(tmp_path)
    assert [(pair.name, pair.patient) for pair in listing.pairs] == [("ID_0007_Z_0042", "ID_0007")]
    assert [Path(name).name for name in listing.unmatched] == ["lonely.png"]
    np.testing.assert_array_equal(read_sample(listing.pairs[0]).mask, phantom.lungs)


@pytest.mark.parametrize("kind", ["tif16", "tif32", "tiff_float", "npy", "dcm", "jpg"])
def test_formats_are_read(tmp_path: Path, kind: str) -> None:
    """TIFF of int16, int32 and float, NPY, DICOM and JPEG beside a PNG mask."""
    phantom = make_phantom(SIZE, seed=4)
    image = tmp_path / f"a.{kind[:3]}"
    if kind == "dcm":
        write_dicom(phantom, image)
    elif kind == "npy":
        np.save(image, phantom.hu.astype(np.int16))
    elif kind == "jpg":
        shown = np.clip((phantom.hu + 1000) / 5.5, 0, 255).astype(np.uint8)
        Image.fromarray(shown).save(image, quality=90)
    else:
        dtype = {"tif16": np.uint16, "tif32": np.int32, "tiff_float": np.float32}[kind]
        Image.fromarray((phantom.hu + 1024).astype(dtype)).save(image, format="TIFF")
    write_mask(phantom.lungs, tmp_path / "a_mask.png")
    sample = read_sample(list_pairs(tmp_path).pairs[0])
    assert sample.scan.size == SIZE
    assert sample.scan.unit == ("HU" if kind == "dcm" else "grey level")
    likeness = np.corrcoef(sample.scan.values[0].ravel(), phantom.hu.ravel())[0, 1]
    assert likeness > 0.97


def test_dicom_needs_no_suffix(tmp_path: Path) -> None:
    """As scanners and archives name it, by number or UID; other files beside it are no slices."""
    phantom = make_phantom(SIZE, seed=4)
    for name in ("IM0001", "1.2.840.1", "1.2.840.2"):
        write_dicom(phantom, tmp_path / name)
        write_mask(phantom.lungs, tmp_path / f"{name}_mask.png")
    (tmp_path / "README").write_text("no slice")
    listing = list_pairs(tmp_path)
    assert [pair.name for pair in listing.pairs] == ["1.2.840.1", "1.2.840.2", "IM0001"]
    assert listing.unmatched == ()
    assert read_sample(listing.pairs[0]).scan.unit == "HU"


def test_volumes_are_sliced_as_radiologists_look_at_them(tmp_path: Path) -> None:
    """A NIfTI stored left to right and feet to head, in slices that show the phantom upright."""
    nibabel = pytest.importorskip("nibabel")
    slices = [make_phantom(SIZE, seed=5, level=level) for level in (0.3, 0.5, 0.7)]
    for name, planes in (
        ("case", [phantom.hu for phantom in slices]),
        ("case_mask", [np.int16(1) * phantom.left + 2 * phantom.right for phantom in slices]),
    ):
        stack = np.stack(planes).astype(
            np.int16
        )  # (Z, Y, X): from the feet, front, patient's right
        stored = stack.transpose(2, 1, 0)[::-1, ::-1]  # RAS+, the orientation that NIfTI means
        affine = np.diag([0.7, 0.9, 5.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / f"{name}.nii.gz")
    pairs = list_pairs(tmp_path).pairs
    assert [pair.name for pair in pairs] == ["case_z0000", "case_z0001", "case_z0002"]
    assert {pair.patient for pair in pairs} == {"case"}
    for pair, phantom in zip(pairs, slices, strict=True):
        sample = read_sample(pair)
        np.testing.assert_array_equal(sample.scan.values[0], phantom.hu)
        np.testing.assert_array_equal(sample.mask, phantom.lungs)  # both labels are lung
        assert sample.scan.unit == "HU"
        assert sample.scan.spacing_mm == pytest.approx((0.9, 0.7))


@pytest.mark.parametrize("count", [2, 4])
def test_volume_and_mask_must_have_the_same_slices(tmp_path: Path, count: int) -> None:
    """A mask with fewer or more slices is named, with the remedy, whichever slice is asked for."""
    write_volume(tmp_path / "a.nii", (8, 9, 3))
    write_volume(tmp_path / "a_mask.nii", (8, 9, count))
    for pair in list_pairs(tmp_path).pairs:
        with pytest.raises(DataError, match=rf"a_mask\.nii: expected 3 slices .* found {count}"):
            read_sample(pair)


def write_volume(path: Path, shape: tuple[int, ...]) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), path)


def test_a_volume_may_have_a_fourth_dimension_of_one(tmp_path: Path) -> None:
    """As many converters write it; several volumes in a file are refused."""
    for name in ("a", "a_mask"):
        write_volume(tmp_path / f"{name}.nii", (8, 9, 3, 1))
    pairs = list_pairs(tmp_path).pairs
    assert [read_sample(pair).scan.size for pair in pairs] == [(9, 8)] * 3
    write_volume(tmp_path / "a.nii", (8, 9, 3, 2))
    with pytest.raises(DataError, match=r"a\.nii: expected one volume .* found 8 x 9 x 3 x 2"):
        read_sample(list_pairs(tmp_path).pairs[0])


@pytest.mark.parametrize("damage", ["type", "stream", "end", "gone"])
def test_a_damaged_volume_is_one_unreadable_pair(tmp_path: Path, damage: str) -> None:
    """Whatever is wrong with it, it is named, and the others are found."""
    for name in ("a", "a_mask", "b", "b_mask"):
        write_volume(tmp_path / f"{name}.nii{'' if damage == 'type' else '.gz'}", (8, 9, 2))
    file = next(tmp_path.glob("a.nii*"))
    content = bytearray(file.read_bytes())
    if damage == "type":
        content[70] = 99  # the header's datatype
    elif damage == "stream":
        content[40:60] = b"\xff" * 20
    else:
        del content[len(content) // 2 :]
    if damage == "gone":
        pairs = list_pairs(tmp_path).pairs
        file.unlink()
    else:
        file.write_bytes(content)
        pairs = list_pairs(tmp_path).pairs
    for pair in pairs:
        if pair.image == file:
            with pytest.raises(DataError, match=r"a\.nii"):
                read_sample(pair)
        else:
            read_sample(pair)
    assert {pair.image for pair in pairs} == {file, file.with_name(file.name.replace("a", "b", 1))}


def test_a_table_names_patients_and_sources(phantoms: Path, tmp_path: Path) -> None:
    """Paths relative to the table; an empty patient follows from the name."""
    shutil.copytree(phantoms, tmp_path / "set")
    stems = [pair.name for pair in list_pairs(phantoms).pairs[:3]]
    rows = [f"set/images/{stem}.png,set/masks/{stem}.png" for stem in stems]
    table = tmp_path / "pairs.csv"
    table.write_text(
        f"image,mask,patient,source\n{rows[0]},Anna,clinic\n{rows[1]},,clinic\n{rows[2]},Bo,\n"
    )
    listing = list_source(parse_source(f"mine={table}:2.5"))
    found = {(pair.name, pair.patient, pair.source) for pair in listing.pairs}
    assert found == {
        (stems[0], "Anna", "clinic"),
        (stems[1], "patient-0000", "clinic"),
        (stems[2], "Bo", "mine"),
    }
    with table.open("a") as stream:
        stream.write(f"{rows[0]},Anna,clinic\n")
    with pytest.raises(DataError, match=r"listed in lines 2 and 5; take one out"):
        list_source(parse_source(str(table)))


def test_slices_of_one_name_in_folders_of_patients(phantoms: Path, tmp_path: Path) -> None:
    """Told apart by their folders, in all rows alike, so that the pattern finds every patient."""
    rows = ["image,mask"]
    for patient, pair in zip(("p1", "p2", "p2"), list_pairs(phantoms).pairs, strict=False):
        (tmp_path / patient).mkdir(exist_ok=True)
        name = "s2" if f"{patient}/s1.png,m1.png" in rows else "s1"
        shutil.copy(pair.image, tmp_path / patient / f"{name}.png")
        shutil.copy(pair.mask, tmp_path / f"m{name[1]}.png")
        rows.append(f"{patient}/{name}.png,m{name[1]}.png")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    listing = list_source(parse_source(str(tmp_path / "pairs.csv")), patient_pattern=r"^p\d+")
    found = [(pair.name, pair.patient) for pair in listing.pairs]
    assert found == [("p1/s1", "p1"), ("p2/s1", "p2"), ("p2/s2", "p2")]


def test_a_table_lists_volumes(tmp_path: Path) -> None:
    """Each row of them becomes its axial slices, of the row's patient."""
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.nii", (8, 9, 3))
    table = tmp_path / "pairs.csv"
    table.write_text("image,mask,patient\na.nii,b.nii,Anna\n")
    pairs = list_source(parse_source(str(table))).pairs
    assert [(pair.name, pair.patient) for pair in pairs] == [
        (f"a_z000{number}", "Anna") for number in range(3)
    ]
    assert read_sample(pairs[2]).scan.size == (9, 8)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("image,mask\na.png,b.png,c\n", r", line 2: more cells than columns"),
        ("image,patient\na.png,b\n", "found no mask"),
        ("image,mask\nnone.png,none.png\n", r"line 2: no file 'none\.png'"),
        ("image,mask\n", "expected rows of image and mask"),
        ("", "found no image and no mask"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path: Path, content: str, sentence: str) -> None:
    """Missing columns, missing files and no rows."""
    table = tmp_path / "pairs.csv"
    table.write_text(content)
    with pytest.raises(DataError, match=rf"pairs\.csv.*{sentence}"):
        list_source(parse_source(str(table)))


def test_sources_have_names_and_weights(phantoms: Path) -> None:
    """The syntax of --data, and names that must differ."""
    assert parse_source(str(phantoms)) == Source(name="phantoms", path=phantoms)
    assert parse_source(f"a={phantoms}:0.5") == Source(name="a", path=phantoms, weight=0.5)
    with pytest.raises(DataError, match="weight above 0"):
        parse_source(f"{phantoms}:0")
    with pytest.raises(DataError, match="two sources are called phantoms"):
        list_sources([parse_source(str(phantoms))] * 2, patient_pattern=PATIENT_PATTERN)


def test_the_same_slice_from_two_sources_is_used_once(phantoms: Path, cache: Path) -> None:
    """Else it could stand on both sides of the split."""
    sources = [Source(name=name, path=phantoms) for name in ("a", "b")]
    material = prepare(sources, TrainConfig(), cache=cache)
    assert len(material.training) + len(material.validation) == 20
    assert {reason for _, reason in material.dropped} == {
        f"duplicate: the same slice as a/{pair.name}" for pair, _ in material.dropped
    }


def test_a_known_slope_makes_hu_of_a_picture(tmp_path: Path, cache: Path) -> None:
    """The table knows what the file doesn't, and the cache tells both apart."""
    phantom = make_phantom(SIZE, seed=4)
    np.save(tmp_path / "a.npy", (phantom.hu / 2).astype(np.float32))
    write_mask(phantom.lungs, tmp_path / "m.png")
    (tmp_path / "t.csv").write_text("image,mask,hu_slope,weight\na.npy,m.png,2,0.5\n")
    (tmp_path / "u.csv").write_text("image,mask,hu_slope\na.npy,m.png,\n")
    (tmp_path / "bad.csv").write_text("image,mask,hu_slope\na.npy,m.png,-1\n")
    known, unknown = (
        read_table(tmp_path / name, source="t").pairs[0] for name in ("t.csv", "u.csv")
    )
    assert (known.weight, unknown.weight) == (0.5, 1.0)
    sample = read_sample(known)
    assert sample.scan.unit == "HU"
    np.testing.assert_allclose(sample.scan.values[0], phantom.hu)
    assert read_sample(unknown).scan.unit == "grey level"
    assert len(set(cache_pieces([known, unknown], 32, cache))) == 2
    with pytest.raises(DataError, match="line 2: expected a number above 0 for hu_slope"):
        read_table(tmp_path / "bad.csv", source="t")


def test_a_list_says_who_is_held_out(phantoms: Path, cache: Path, tmp_path: Path) -> None:
    """Those patients and nobody else; a list that names nobody is an error."""
    table = tmp_path / "held-out.csv"
    table.write_text("source,patient,why\nphantoms,patient-0003,x\nother,patient-0001,y\n")
    material = prepare([phantoms], TrainConfig(held_out=str(table)), cache=cache)
    assert {pair.patient for pair in material.validation} == {"patient-0003"}
    assert len(material.training) + len(material.validation) == 20
    table.write_text("source,patient\nphantoms,patient-77\n")
    with pytest.raises(DataError, match="found 0 and 20"):
        prepare([phantoms], TrainConfig(held_out=str(table)), cache=cache)
    everybody = "".join(f"phantoms,patient-{number:04d}\n" for number in range(10))
    table.write_text(f"source,patient\n{everybody}")
    with pytest.raises(DataError, match="found 20 and 0"):
        prepare([phantoms], TrainConfig(held_out=str(table)), cache=cache)
    table.write_text("name\nx\n")
    with pytest.raises(DataError, match="columns source and patient"):
        prepare([phantoms], TrainConfig(held_out=str(table)), cache=cache)


def test_every_drop_says_how_to_keep_the_pair(phantoms: Path, tmp_path: Path) -> None:
    """A name or a pattern overrules the cleaner, not what can't be read."""
    copy = tmp_path / "copy"
    shutil.copytree(phantoms, copy)
    masks = sorted((copy / "masks").iterdir())[:2]
    for mask in masks:
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask)
    dropped = prepare([copy], TrainConfig()).dropped
    assert [pair.name for pair, _ in dropped] == [mask.stem for mask in masks]
    name = f"copy/{masks[0].stem}"
    assert dropped[0][1].endswith(f"if the mask is right, --keep {name}")
    assert len(prepare([copy], TrainConfig(keep=f"x, {name}")).dropped) == 1
    assert not prepare([copy], TrainConfig(keep="copy/*")).dropped


def pairs_of(patients: list[int]) -> list[Pair]:
    return [
        Pair(name=f"s{n}", image=Path(), mask=Path(), patient=f"p{patient}", source="x")
        for n, patient in enumerate(patients)
    ]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.integers(0, 5))
def test_no_patient_is_on_both_sides(patients: list[int], seed: int) -> None:
    """For any number of slices a patient, and every slice is on one side."""
    pairs = pairs_of(patients)
    if len(set(patients)) < 2:
        with pytest.raises(DataError, match="at least 2 patients"):
            split_by_patient(pairs, fraction=0.2, seed=seed)
        return
    training, validation = split_by_patient(pairs, fraction=0.2, seed=seed)
    assert training
    assert validation
    assert not {p.patient for p in training} & {p.patient for p in validation}
    assert {p.name for p in training} | {p.name for p in validation} == {p.name for p in pairs}


@given(st.lists(st.integers(0, 30), min_size=8, max_size=60), st.integers(2, 5))
def test_folds_hold_out_each_slice_once(patients: list[int], folds: int) -> None:
    """Cross-validation measures every slice, and on no network that saw its patient."""
    pairs = pairs_of(patients)
    if len(set(patients)) < folds:
        return
    held_out = []
    for fold in range(1, folds + 1):
        training, validation = split_fold(pairs, folds=folds, fold=fold, seed=1)
        assert not {p.patient for p in training} & {p.patient for p in validation}
        held_out += [pair.name for pair in validation]
    assert sorted(held_out) == sorted(pair.name for pair in pairs)


def test_a_split_follows_from_seed_and_names_alone() -> None:
    """Across versions of this code: a published model's card names its split by this hash."""
    split = split_by_patient(pairs_of(list(range(30))), fraction=0.2, seed=7)
    assert [pair.name for pair in split[1]] == ["s2", "s4", "s8", "s12", "s21", "s29"]
    assert split_hash(*split)[:16] == "c96c2bfaf50f4e3a"


@pytest.mark.parametrize(
    ("patients", "fraction", "held_out"),
    [(10, 0.2, 2), (9, 0.2, 2), (5, 0.1, 1), (2, 0.2, 1), (2, 0.9, 1), (4, 0.9, 3), (20, 0.2, 4)],
)
def test_a_share_of_the_patients_validates(patients: int, fraction: float, held_out: int) -> None:
    """Rounded, at least one, and never all of them, however many slices each has."""
    pairs = pairs_of([number for number in range(patients) for _ in range(1 + number % 3)])
    _, validation = split_by_patient(pairs, fraction=fraction, seed=3)
    assert len({pair.patient for pair in validation}) == held_out
    assert TrainConfig().validation_fraction == 0.2


def test_a_split_does_not_follow_from_the_order_of_the_files() -> None:
    """The same patients are held out of the same slices in any order, others by another seed."""
    pairs = pairs_of(list(range(30)))
    splits = [
        {pair.name for pair in split_by_patient(given, fraction=0.2, seed=seed)[1]}
        for given, seed in ((pairs, 7), (pairs[::-1], 7), (pairs, 8))
    ]
    assert splits[0] == splits[1] != splits[2]


def test_patients_of_one_name_in_two_sources_are_two() -> None:
    """Either may validate without the other; of one source they would always go together."""
    pairs = [replace(pair, source=source) for pair in pairs_of([0]) for source in "ab"]
    held_out = {split_by_patient(pairs, fraction=0.5, seed=seed)[1][0].source for seed in range(12)}
    assert held_out == {"a", "b"}


def test_there_are_no_more_folds_than_patients() -> None:
    with pytest.raises(DataError, match="at least 3 patients, found 2"):
        split_fold(pairs_of([0, 1, 1]), folds=3, fold=1, seed=0)


def test_the_datas_hash_follows_from_every_byte(phantoms: Path, tmp_path: Path) -> None:
    """Of slices and of masks, from their names and their order; not from where they lie."""
    copies = [Path(shutil.copytree(phantoms, tmp_path / name / "set")) for name in "ab"]
    first, second = ([*list_pairs(copy).pairs[:3]] for copy in copies)
    found = data_hash(first)
    assert data_hash(second) == found
    assert data_hash(first[::-1]) != found
    assert data_hash(first[:2]) != found
    assert data_hash([replace(pair, source="other") for pair in first]) != found
    for path in (second[1].image, second[1].mask):
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert data_hash(second) != found
        path.write_bytes(before)
        assert data_hash(second) == found
