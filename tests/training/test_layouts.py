"""Folders and masks as other tools write them: read for what they are, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import PATIENT_PATTERN
from training.data.dataset import list_pairs, read_sample
from training.data.masks import lung_and_ignored
from training.data.patients import patient_of
from training.data.sources import list_sources, parse_source, read_table
from training.errors import DataError
from training.synthetic.phantom import make_phantom, write_dicom, write_png

SIZE = (40, 56)
PHANTOM = make_phantom(SIZE, seed=3)
HALVES = PHANTOM.right.astype(np.uint8) + 2 * PHANTOM.left.astype(np.uint8)


def save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("image", "mask", "name"),
    [
        ("img_001.png", "mask_001.png", "img_001"),
        ("images/img_7.png", "masks/mask_7.png", "img_7"),
        ("images/p1_ct.png", "labels/p1_seg.png", "p1_ct"),
        ("image/Slice-3.png", "mask/Label-3.png", "Slice-3"),
        ("imagesTr/case_12_0000.png", "labelsTr/case_12.png", "case_12"),
    ],
)
def test_partners_are_found_by_what_their_names_share(
    tmp_path: Path, image: str, mask: str, name: str
) -> None:
    """Words for slices and masks before or after it, and nnU-Net's channel."""
    (tmp_path / image).parent.mkdir(exist_ok=True)
    write_png(PHANTOM, tmp_path / image)
    save(PHANTOM.lungs * 255, tmp_path / mask)
    listing = list_pairs(tmp_path)
    assert [pair.name for pair in listing.pairs] == [name]
    assert listing.unmatched == ()
    np.testing.assert_array_equal(read_sample(listing.pairs[0]).mask, PHANTOM.lungs)


def test_a_name_that_two_slices_share_is_paired_with_neither(tmp_path: Path) -> None:
    """``img_1`` and ``ct_1`` beside ``mask_1``: a guess would train on a wrong mask."""
    for name in ("img_1", "ct_1", "img_2"):
        write_png(PHANTOM, tmp_path / f"{name}.png")
    for name in ("mask_1", "mask_2"):
        save(PHANTOM.lungs * 255, tmp_path / f"{name}.png")
    listing = list_pairs(tmp_path)
    assert [pair.name for pair in listing.pairs] == ["img_2"]
    assert set(listing.unmatched) == {"ct_1.png", "img_1.png", "mask_1.png"}


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ({"background": 0, "right lung": 1, "left lung": 2}, ""),
        ({"0": "background", "1": "lung"}, ""),
        ({"background": 0, "lung": 1, "heart": 2}, "found heart"),
        ({"background": 0, "lung": 1, "ignore": 2}, "found ignore"),
    ],
)
def test_labels_of_nnunet_are_lungs_or_refused_by_name(
    tmp_path: Path, labels: dict[str, object], refused: str
) -> None:
    """``dataset.json`` says what the numbers mean; both of its forms."""
    write_png(PHANTOM, tmp_path / "a.png")
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a.png").rename(tmp_path / "imagesTr" / "case_1_0000.png")
    save(HALVES, tmp_path / "labelsTr" / "case_1.png")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    if refused:
        with pytest.raises(DataError, match=refused):
            list_pairs(tmp_path)
        return
    np.testing.assert_array_equal(read_sample(list_pairs(tmp_path).pairs[0]).mask, PHANTOM.lungs)
    write_png(PHANTOM, tmp_path / "imagesTr" / "case_1_0001.png")
    with pytest.raises(DataError, match=r"case_1_0001\.png: .* another channel"):
        list_pairs(tmp_path)


def red(values: np.ndarray) -> np.ndarray:
    return np.stack([values, values * 0, values * 0], axis=-1)


LUNG = PHANTOM.lungs * np.uint8(255)
TWO_COLOURS = np.stack([PHANTOM.right, PHANTOM.left, PHANTOM.lungs & False], axis=-1) * 255
SOFT = np.asarray(Image.fromarray(LUNG).resize((28, 20), 2).resize((56, 40), 2))


@pytest.mark.parametrize(
    "drawn",
    [
        LUNG,
        PHANTOM.lungs,
        HALVES,
        SOFT,
        red(LUNG),
        red(LUNG // 2 + LUNG // 255),
        PHANTOM.lungs[..., None] * np.array([220, 20, 60]),
    ],
    ids=["grey", "one", "right and left", "soft", "red", "maroon", "crimson"],
)
def test_masks_of_one_meaning_are_read(tmp_path: Path, drawn: np.ndarray) -> None:
    """Whatever value, label or colour the lungs have."""
    write_png(PHANTOM, tmp_path / "a.png")
    save(drawn, tmp_path / "a_mask.png")
    sample = read_sample(list_pairs(tmp_path).pairs[0])
    wrong = (sample.mask != PHANTOM.lungs).sum()
    assert wrong <= (0.15 * PHANTOM.lungs.sum() if drawn is SOFT else 0)
    assert not sample.ignored.any()


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        (np.where(PHANTOM.right, 1, LUNG), r"areas of the values 1, 255"),
        (
            np.where(PHANTOM.right, 100, np.where(PHANTOM.left, 200, 0)),
            "areas of the values 100, 2",
        ),
        (TWO_COLOURS, "2 colours"),
        (HALVES * np.uint8(40), "areas of the values 40, 80"),
    ],
    ids=["0, 1, 255", "halves by grey", "two colours", "scaled labels"],
)
def test_masks_of_several_meanings_are_refused_by_name(
    tmp_path: Path, drawn: np.ndarray, sentence: str
) -> None:
    """A label that vanished without a word would be learnt as no lung."""
    write_png(PHANTOM, tmp_path / "a.png")
    save(drawn, tmp_path / "a_mask.png")
    with pytest.raises(DataError, match=rf"a_mask\.png: expected .*{sentence}"):
        read_sample(list_pairs(tmp_path).pairs[0])


@pytest.mark.parametrize(
    ("values", "lung", "ignored"),
    [
        ([0, 60, 100, 101, 200], [0, 0, 0, 1, 1], [0] * 5),
        ([0, 0.3, 0.5, 0.6, 1], [0, 0, 0, 1, 1], [0] * 5),
        ([0, 1, 2, 31, 0], [0, 1, 1, 1, 0], [0] * 5),
        ([0, 1, 16, 17, 32], [0, 0, 0, 1, 1], [0] * 5),
        ([0, 127, 129, 255, 0], [0, 0, 1, 1, 0], [0] * 5),
        ([0, 128, 255, 128, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0]),
        ([0, 128, 130, 255, 0], [0, 1, 1, 1, 0], [0] * 5),
        ([0, 0, 0, 0, 0], [0] * 5, [0] * 5),
    ],
)
def test_a_mask_is_cut_above_the_middle_of_its_range(
    values: list[float], lung: list[int], ignored: list[int]
) -> None:
    """Grey edges above it are lung; of labels all are; 128 is ignored beside 0 and 255 alone."""
    found = lung_and_ignored(np.array([values]))
    assert [plane[0].astype(int).tolist() for plane in found] == [lung, ignored]
    with pytest.raises(DataError, match="expected a mask of values from 0, found -1"):
        lung_and_ignored(np.array([[-1.0, *values]]))


def test_what_jpeg_does_to_a_mask_is_no_label(tmp_path: Path) -> None:
    """Its blocks have greys of their own where it is coarse; the middle still tells lung."""
    write_png(PHANTOM, tmp_path / "a.png")
    Image.fromarray(LUNG).save(tmp_path / "a_mask.jpg", quality=1)
    with Image.open(tmp_path / "a_mask.jpg") as stored:
        coarse = np.asarray(stored)
    sample = read_sample(list_pairs(tmp_path).pairs[0])
    np.testing.assert_array_equal(sample.mask, coarse > coarse.max() / 2)


def test_a_slice_in_the_masks_place_is_refused(tmp_path: Path) -> None:
    """HU below 0 are no mask; many labels of organs are none of lungs alone."""
    write_png(PHANTOM, tmp_path / "a.png")
    np.save(tmp_path / "a_mask.npy", PHANTOM.hu)
    with pytest.raises(DataError, match=r"a_mask\.npy: expected a mask of values from 0, found -"):
        read_sample(list_pairs(tmp_path).pairs[0])
    organs = np.arange(40).repeat(56).reshape(SIZE) // 4 * 9 + np.arange(56) // 8 * 2
    np.save(tmp_path / "a_mask.npy", organs.repeat(2, 0).repeat(2, 1)[:40, :56])
    with pytest.raises(DataError, match="expected lung of one value"):
        read_sample(list_pairs(tmp_path).pairs[0])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_other_spreadsheets_are_read(tmp_path: Path, delimiter: str) -> None:
    """Semicolons, and the decimal commas that come with them; tabs."""
    write_png(PHANTOM, tmp_path / "a.png")
    save(LUNG, tmp_path / "m.png")
    rows = (("image", "mask", "patient", "hu_slope"), ("a.png", "m.png", "Anna", "1,25"))
    (tmp_path / "t.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    pair = read_table(tmp_path / "t.csv", source="t").pairs[0]
    assert (pair.patient, pair.hu_slope) == ("Anna", 1.25)


def as_picture(path: Path) -> None:
    write_png(PHANTOM, path.with_name(f"{path.name}.png"))


def as_dicom(path: Path, **attributes: str) -> None:
    write_dicom(PHANTOM, path.with_name(f"{path.name}.dcm"), **attributes)


@pytest.mark.parametrize(
    ("stem", "write", "pattern", "patient"),
    [
        ("LIDC-IDRI-0001_0004", as_picture, PATIENT_PATTERN, "LIDC-IDRI-0001"),
        ("case_001_0004", as_picture, PATIENT_PATTERN, "case_001"),
        ("P7 slice12", as_picture, PATIENT_PATTERN, "P7"),
        ("ID_0007_Z_0042", as_picture, PATIENT_PATTERN, "ID_0007"),
        ("case_001_0004", as_picture, r"^case", "case"),
        ("ID_0007_Z_0042", as_picture, r"^case", "ID_0007"),
        ("1.2.840.1.7", as_picture, PATIENT_PATTERN, None),
        ("slice_0004", as_picture, PATIENT_PATTERN, None),
        ("114", as_picture, PATIENT_PATTERN, None),
        ("ID_0007_Z_0042", lambda p: as_dicom(p, PatientID="Anna"), PATIENT_PATTERN, "Anna"),
        (
            "1.2.840.1.7",
            lambda p: as_dicom(p, PatientID="", StudyInstanceUID="1.2.9"),
            PATIENT_PATTERN,
            "1.2.9",
        ),
        ("x_0004", lambda p: as_dicom(p, PatientID="Anna"), r"^x", "x"),
    ],
)
def test_whose_slice_it_is(
    tmp_path: Path, stem: str, write: Callable[[Path], None], pattern: str, patient: str | None
) -> None:
    """A pattern of the user's, then the header, then the name; else it is said."""
    write(tmp_path / stem)
    save(LUNG, tmp_path / f"{stem}_mask.png")
    listing = list_pairs(tmp_path, patient_pattern=pattern, source="t")
    assert [pair.patient for pair in listing.pairs] == [patient or stem]
    assert listing.unknown == (() if patient else (f"t/{stem}",))
    row = f"{listing.pairs[0].image.name},{stem}_mask.png"
    (tmp_path / "t.csv").write_text(f"image,mask\n{row}\n")
    table = read_table(tmp_path / "t.csv", source="t", patient_pattern=pattern)
    assert (table.pairs[0].patient, table.unknown) == (listing.pairs[0].patient, listing.unknown)


def test_a_pattern_that_matches_nothing_is_an_error(phantoms: Path) -> None:
    """Of the user's; the built-in one may well find nobody."""
    with pytest.raises(DataError, match=r"'\^case' matches none of the 20 names"):
        list_sources([parse_source(str(phantoms))], patient_pattern="^case")


def test_a_volume_is_a_patient(tmp_path: Path) -> None:
    """Numbers at its name's end count patients, not slices."""
    image = tmp_path / "2021_0001.nii"
    assert patient_of("2021_0001", image, PATIENT_PATTERN, volume=True) == "2021_0001"
    assert patient_of("2021_0001", image, PATIENT_PATTERN, volume=False) == "2021"
