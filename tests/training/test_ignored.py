"""Masks of three values: what nobody can tell neither trains nor counts, anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import TrainConfig
from training.data.cache import cache_pieces, load_piece
from training.data.dataset import Pair, read_airway, read_sample
from training.data.material import Material, read_material, write_material
from training.data.pieces import AIRWAY_TARGET, Piece
from training.data.sheet import IGNORED, TRUTH
from training.data.sources import Source, read_table
from training.data.survey import survey
from training.evaluation.metrics import calibration, compare_masks
from training.synthetic import anatomy
from training.synthetic.augment import augment
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom

SIZE = (96, 112)


def write_pair(
    folder: Path, phantom: Phantom, mask: np.ndarray, name: str = "a", **header: object
) -> Pair:
    image, file = folder / f"{name}.dcm", folder / f"{name}_mask.png"
    image.write_bytes(dicom_bytes(phantom, **header))
    Image.fromarray(mask.astype(np.uint8)).save(file)
    return Pair(name=name, image=image, mask=file, patient=name, source="s")


def three_values(phantom: Phantom) -> np.ndarray:
    """The lungs, of which the left one's lower half and some wall beside it can't be told."""
    mask = phantom.lungs.astype(np.uint8) * 255
    mask[SIZE[0] // 2 :, SIZE[1] // 2 + 8 :] = 128
    return mask


@pytest.mark.parametrize("with_lung", [True, False])
def test_128_is_ignored_beside_0_and_255(tmp_path: Path, with_lung: bool) -> None:
    """Also in a mask that holds no lung at all."""
    phantom = make_phantom(SIZE, seed=1)
    mask = three_values(phantom)
    if not with_lung:
        mask[mask == 255] = 0
    sample = read_sample(write_pair(tmp_path, phantom, mask))
    assert np.array_equal(sample.mask, mask == 255)
    assert np.array_equal(sample.ignored, mask == 128)


@pytest.mark.parametrize("values", [(0, 100, 128, 255), (0, 1), (0, 1, 2), (0, 255), (0, 200)])
def test_other_masks_ignore_nothing(tmp_path: Path, values: tuple[int, ...]) -> None:
    """Grey edges, labels and two values are read as they were."""
    mask = np.random.default_rng(0).choice(values, SIZE)
    sample = read_sample(write_pair(tmp_path, make_phantom(SIZE), mask))
    assert not sample.ignored.any()
    assert np.array_equal(sample.mask, mask > (0 if max(values) < 32 else max(values) / 2))


@pytest.mark.parametrize("grid", [32, 64, 160])
def test_what_is_ignored_never_leaks_into_the_target(tmp_path: Path, grid: int) -> None:
    """Were it all lung or all none, each known cell of the target would be the same."""
    phantom = make_phantom(SIZE, seed=1)
    mask = three_values(phantom)
    pairs = [
        write_pair(tmp_path, phantom, np.where(mask == 128, value, mask), f"as{value}")
        for value in (128, 0, 255)
    ]
    pieces = [load_piece(path) for path in cache_pieces(pairs, grid, tmp_path / "cache")]
    known = pieces[0].target >= 0
    assert 0.5 < known.mean() < 0.95
    for other in pieces[1:]:
        assert np.array_equal(pieces[0].target[known], other.target[known])
    for seed in range(30):
        config = TrainConfig(zoom=2.5, rotation_degrees=40, circle=0.6, padding_probability=0.5)
        targets = [varied(piece, config, seed) for piece in pieces]
        known = targets[0] >= 0
        assert np.allclose(targets[0][known], targets[1][known], atol=2e-3)


def varied(piece: Piece, config: TrainConfig, seed: int) -> np.ndarray:
    # Painting depends on where the lungs are; moving, which is meant here, does not.
    kinds = ("opacity", "effusion", "no_lung", "base", "apex", "gas")
    config = replace(config, **{f"{kind}_probability": 0.0 for kind in kinds})
    return augment(piece, config, config.intensity, np.random.default_rng(seed))[1]


def test_painting_moves_what_is_ignored_with_the_lungs(piece: Piece) -> None:
    """A shrunken chest takes the ignored part of it along."""
    half = piece.lung * (np.indices(piece.lung.shape)[1] < piece.lung.shape[1] // 2)
    shrunk = anatomy.shrunken(replace(piece, ignored=half), np.random.default_rng(3), (0.4, 0.4001))
    assert 0 < shrunk.ignored.sum() < 0.6 * half.sum()
    assert (shrunk.ignored <= shrunk.lung + 1e-6).all()


def test_airways_become_a_code_of_the_target(tmp_path: Path) -> None:
    """Where nothing of a cell is lung; where nobody drew them, what may be one gets the code."""
    phantom = make_phantom(SIZE, seed=1)
    airway = (phantom.hu < -900) & ~phantom.lungs
    airway[:, :40] = airway[:, 70:] = False
    airway[:40] = airway[70:] = False
    Image.fromarray(airway.astype(np.uint8) * 255).save(tmp_path / "airway.png")
    pair = replace(
        write_pair(tmp_path, phantom, phantom.lungs * 255), airway=tmp_path / "airway.png"
    )
    paths = cache_pieces([pair, replace(pair, airway=None)], 96, tmp_path / "cache")
    drawn, none = (load_piece(path) for path in paths)
    code = drawn.target == AIRWAY_TARGET
    assert code.sum() == pytest.approx(airway.sum() * (96 / SIZE[1]) ** 2, rel=0.4)
    assert (drawn.lung[code] <= 1e-3).all()
    guess = none.target == AIRWAY_TARGET
    assert guess.any()
    assert (none.body[guess] > 0.5).all()
    assert (none.lung[guess] == 0).all()
    assert np.array_equal(drawn.target[~(code | guess)], none.target[~(code | guess)])


def test_a_prone_slice_is_cached_as_serving_sees_it(tmp_path: Path) -> None:
    """Axes by the header, shape in mm: the network must not learn another view than it is shown."""
    phantom = make_phantom(SIZE, seed=1)
    turned = Phantom(
        hu=phantom.hu[::-1, ::-1],
        right=phantom.right[::-1, ::-1],
        left=phantom.left[::-1, ::-1],
        spacing_mm=phantom.spacing_mm,
    )
    pairs = [
        write_pair(tmp_path, phantom, phantom.lungs * 255, "supine"),
        write_pair(
            tmp_path,
            turned,
            turned.lungs * 255,
            "prone",
            ImageOrientationPatient=[-1, 0, 0, 0, -1, 0],
        ),
    ]
    supine, prone = (load_piece(path) for path in cache_pieces(pairs, 64, tmp_path / "cache"))
    assert np.array_equal(supine.hu, prone.hu)
    assert np.array_equal(supine.lung, prone.lung)


def test_rows_that_lie_wider_apart_are_cached_in_their_shape(tmp_path: Path) -> None:
    """Half as many rows of twice the spacing fill the same cells."""
    whole = make_phantom((96, 96), seed=1, spacing_mm=(3.7, 3.7))
    flat = make_phantom((48, 96), seed=1, spacing_mm=(7.4, 3.7))
    pairs = [
        write_pair(tmp_path, phantom, phantom.lungs * 255, f"p{n}")
        for n, phantom in enumerate((whole, flat))
    ]
    one, other = (load_piece(path) for path in cache_pieces(pairs, 64, tmp_path / "cache"))
    both = 2 * np.minimum(one.lung, other.lung).sum() / (one.lung.sum() + other.lung.sum())
    assert both > 0.93


def test_the_cache_tells_grids_and_boxes_apart(tmp_path: Path) -> None:
    """Of one slice: each grid, whole and body, and what lies around it is its least value."""
    wide = make_phantom((48, 96), seed=1, spacing_mm=(4.0, 4.0))
    pair = write_pair(tmp_path, wide, np.zeros((48, 96)))
    views = [(64, "whole"), (32, "whole"), (64, "body")]
    paths = [cache_pieces([pair], grid, tmp_path / "cache", covers)[0] for grid, covers in views]
    assert len(set(paths)) == 3
    whole, small, body = (load_piece(path) for path in paths)
    assert (whole.hu.shape, small.hu.shape, body.hu.shape) == ((64, 64), (32, 32), (64, 64))
    assert not np.array_equal(body.hu, whole.hu)
    assert np.array_equal(np.unique(whole.hu[[0, -1]]), [whole.hu.min()])
    assert cache_pieces([pair], 64, tmp_path / "cache") == paths[:1]


def test_metrics_count_known_pixels_only() -> None:
    """Whatever a mask and a truth hold where nobody can tell makes no difference."""
    random = np.random.default_rng(0)
    ignored = np.zeros((40, 40), bool)
    ignored[:, 30:] = True
    truth = np.zeros((40, 40), bool)
    truth[10:30, 8:35] = True
    mask = np.roll(truth, 2, axis=0)
    probability = random.random((40, 40)).astype(np.float32)
    noise = random.random((40, 40)) < 0.5
    one = compare_masks(mask, truth, ignored=ignored)
    other = compare_masks(mask ^ (noise & ignored), truth ^ (noise & ignored), ignored=ignored)
    assert one == other
    assert one.accuracy == pytest.approx(1 - 2 * 2 * 22 / 1200)
    assert one.truth_fraction == pytest.approx(20 * 22 / 1200)
    reliability = calibration(probability, truth, ignored=ignored)
    assert reliability.pixels.sum() == 1200


def test_a_table_brings_airways_that_a_runs_record_keeps(tmp_path: Path) -> None:
    """An empty cell means that nobody drew them."""
    phantom = make_phantom(SIZE, seed=1)
    for name in "ab":
        write_pair(tmp_path, phantom, phantom.lungs * 255, name)
    airway = np.zeros(SIZE, np.uint8)
    airway[40:44, 50:54] = 1  # whatever is not 0
    Image.fromarray(airway).save(tmp_path / "airway.png")
    table = tmp_path / "pairs.csv"
    table.write_text(
        "image,mask,airway,patient\na.dcm,a_mask.png,airway.png,p\nb.dcm,b_mask.png,,q\n"
    )
    drawn, none = read_table(table, source="t").pairs
    assert np.array_equal(read_airway(drawn), airway > 0)
    assert read_airway(none) is None
    material = Material(training=(drawn,), validation=(none,), dropped=(), unmatched=())
    write_material(material, tmp_path, {})
    assert read_material(tmp_path) == material


def test_sheets_outline_what_is_ignored(tmp_path: Path) -> None:
    """In its own colour, so that whoever looks at them sees what does not count."""
    phantom = make_phantom(SIZE, seed=1)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "a.dcm").write_bytes(dicom_bytes(phantom))
    Image.fromarray(three_values(phantom)).save(tmp_path / "masks" / "a.png")
    sheet = tmp_path / "sheet.png"
    report = survey([Source(name="s", path=tmp_path)], patient_pattern="a", sheet=sheet)
    assert report.usable == 1
    pixels = np.asarray(Image.open(sheet)).reshape(-1, 3)
    assert (pixels == IGNORED).all(axis=1).sum() > 100
    assert (pixels == TRUTH).all(axis=1).sum() > 100
