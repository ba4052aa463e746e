"""NIfTI, NRRD, MHA and NPY: values and places as other programs see them, and all traps."""

from __future__ import annotations

import gzip
import zlib

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.core import geometry
from lungseg.core.errors import (
    InvalidParameter,
    LungsegError,
    NotGrey,
    SeveralVolumes,
    UndecodableImage,
    VolumeTooLarge,
)
from lungseg.core.volume import Volume, VolumeLimits
from lungseg.core.volume_quality import NOTED
from lungseg.formats.grid import GridOptions
from lungseg.formats.grids import is_grid, read_grid
from lungseg.formats.volume import read_volume
from tests.properties.mutations import mutate
from tests.volume.grids import (
    DIRECTIONS,
    SIZE,
    SPACING_MM,
    affine_of,
    affine_of_nifti,
    by_itk,
    chest,
    nifti,
    npy,
    nrrd,
)

VALUES = chest()


def read(content: bytes, **options: object) -> Volume:
    return read_volume([content], **options)


ITK_FILES = {
    "nrrd": (".nrrd", False),
    "packed nrrd": (".nrrd", True),
    "mha": (".mha", False),
    "packed mha": (".mha", True),
    "nifti": (".nii", False),
    "packed nifti": (".nii.gz", True),
}


@pytest.mark.parametrize("place", DIRECTIONS)
@pytest.mark.parametrize("kind", ITK_FILES)
def test_values_lie_where_itk_wrote_them(kind: str, place: str) -> None:
    """Every value and the whole affine, in every form and orientation."""
    pytest.importorskip("SimpleITK", reason="SimpleITK, which writes the files, is not installed")
    suffix, packed = ITK_FILES[kind]
    affine = affine_of(place)
    content = by_itk(VALUES, affine, suffix, packed=packed)
    volume = read(content)
    assert is_grid(content)
    assert volume.scan.values.dtype == np.int16
    assert np.array_equal(volume.scan.values, VALUES)
    assert volume.scan.unit == "HU"
    assert volume.scan.notes == ()
    assert np.allclose(volume.affine, affine, atol=1e-4)
    assert np.allclose(volume.scan.affine, affine, atol=1e-4)
    assert np.allclose(geometry.weights_mm(volume.scan), SPACING_MM[0])


KINDS = ("i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">f4", "<f8", "<i8", "<u4")


@settings(max_examples=60, deadline=None)
@given(
    place=st.sampled_from(list(DIRECTIONS)),
    kind=st.sampled_from(KINDS),
    line=st.sampled_from([(1, 0), (0, 7), (np.nan, 3), (1, -1024), (0.5, -20), (2, np.nan)]),
    codes=st.sampled_from([(1, 1), (0, 1), (2, 0), (1, 4)]),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nifti_is_read_as_nibabel_reads_it(
    place: str, kind: str, line: tuple, codes: tuple, packed: bool, seed: int
) -> None:
    """Types, byte orders, slopes and both transforms."""
    stored = np.random.default_rng(seed).integers(0, 100, SIZE).astype(kind)
    big = kind.startswith(">")
    image = nibabel.Nifti1Image(
        stored.transpose(2, 1, 0),
        np.diag([-1, -1, 1, 1]) @ affine_of(place)[:, [2, 1, 0, 3]],
        nibabel.Nifti1Header(endianness=">" if big else "<"),
        dtype=stored.dtype,
    )
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), ">" if big else "<", check=False)
    header.structarr["scl_slope"], header.structarr["scl_inter"] = line
    header.structarr["qform_code"], header.structarr["sform_code"] = codes
    content[:348] = header.binaryblock
    content = bytes(content)
    unusable = bool(np.isnan(line[1])) and line[0] not in (0, 1)  # nibabel refuses it; ITK takes 0
    volume = read(gzip.compress(content) if packed else content, unit="grey level")
    expected = stored.astype(np.float64) * (line[0] if line[0] and line[0] == line[0] else 1)
    if line[0] and np.isfinite(line).all():
        expected += line[1]
    if not unusable:
        loaded = nibabel.Nifti1Image.from_bytes(content)
        assert np.allclose(volume.scan.values, np.asanyarray(loaded.dataobj).transpose(2, 1, 0))
        assert np.allclose(volume.affine, affine_of_nifti(content), atol=1e-5)
    assert np.allclose(volume.scan.values, expected)


def test_whole_values_are_int16_whatever_they_were_stored_as() -> None:
    """So that a volume of reals needs no more memory than one of integers."""
    for dtype in (np.int16, np.int32, np.float32, np.float64):
        found = read(nifti(VALUES.astype(dtype), affine_of())).scan.values
        assert found.dtype == np.int16
        assert np.array_equal(found, VALUES)
    broken = VALUES.astype(np.float32)
    broken[-1, 0, 0] += 0.25
    found = read(nifti(broken, affine_of())).scan.values
    assert found.dtype == np.float32
    assert np.array_equal(found, broken)


def test_a_header_without_transforms_leaves_the_orientation_unknown() -> None:
    """Distances are known all the same, and volumes with them."""
    volume = read(nifti(VALUES, affine_of(), sform_code=0, qform_code=0))
    assert volume.affine is None
    assert volume.scan.orientation is None
    assert volume.scan.notes == ("orientation_unknown",)
    assert volume.scan.spacing_mm == pytest.approx(SPACING_MM[1:])
    assert np.allclose(geometry.weights_mm(volume.scan), SPACING_MM[0])


def test_units_of_length_are_brought_to_mm() -> None:
    """Metres and micrometres are what a header says they are."""
    for code, mm in ((1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)):
        matrix = affine_of()
        matrix[:3] /= mm
        volume = read(nifti(VALUES, matrix, xyzt_units=code + 8))
        assert np.allclose(volume.affine, affine_of(), rtol=1e-5)
        assert volume.scan.spacing_mm == pytest.approx(SPACING_MM[1:])


def test_transforms_that_differ_are_noted_and_the_sform_is_taken() -> None:
    shifted = {"qoffset_x": 95.0, "qform_code": 1}
    volume = read(nifti(VALUES, affine_of(), **shifted))
    assert volume.scan.notes == ("transforms_differ",)
    assert "transforms_differ" in NOTED
    assert np.allclose(volume.affine, affine_of(), atol=1e-4)
    volume = read(nifti(VALUES, affine_of(), **shifted, srow_x=0))  # an sform that is none
    assert volume.affine[0, 3] == pytest.approx(-95.0)


def test_a_sheared_affine_gives_distances_along_the_normal() -> None:
    """Volumes are those of its determinant, not of its header's spacing."""
    matrix = affine_of()
    matrix[:3, 0] = 0.4, 0.9, 2.5
    matrix[:3, 1] = 0.2, 0.8, 0.0
    volume = read(nifti(VALUES, matrix))
    assert np.allclose(volume.affine, matrix, atol=1e-5)
    area, weights = geometry.pixel_area_mm2(volume.scan), geometry.weights_mm(volume.scan)
    assert area * weights == pytest.approx(abs(np.linalg.det(matrix[:3, :3])), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_number_was_not_measured(value: float) -> None:
    """It is air to the network, and padding to statistics."""
    values = VALUES.astype(np.float32)
    values[2, :3] = value
    volume = read(nifti(values, affine_of()))
    assert np.array_equal(volume.scan.padding, values != VALUES)
    assert (volume.scan.values[volume.scan.padding] == -1000).all()
    assert volume.scan.notes == ("values_missing",)
    grey = read(
        nifti(np.where(values == VALUES, values + 5000, values), affine_of()), unit="grey level"
    )
    assert grey.scan.values.min() == VALUES.min() + 5000
    assert "values_missing" in NOTED


def test_several_volumes_are_refused_unless_one_is_chosen() -> None:
    """In every form that has a fourth dimension, whichever axis it is."""
    both = np.stack([VALUES, VALUES + 1])
    image = nibabel.Nifti1Image(both.transpose(3, 2, 1, 0), np.eye(4))
    directions = "(1,0,0) (0,1,0) (0,0,1)"
    last = f"space: LPS\nspace directions: {directions} none\nkinds: domain domain domain list\n"
    first = f"space: LPS\nspace directions: none {directions}\nkinds: list domain domain domain\n"
    files = (image.to_bytes(), gzip.compress(image.to_bytes()), nrrd(both, last))
    for content in (*files, nrrd(both.transpose(1, 2, 3, 0).copy(), first)):
        with pytest.raises(SeveralVolumes, match="received 2"):
            read(content)
        for index in (0, 1):
            assert np.array_equal(read(content, volume=index).scan.values, both[index])
        with pytest.raises(InvalidParameter, match="below 2"):
            read(content, volume=2)
    single = nibabel.Nifti1Image(VALUES.transpose(2, 1, 0)[..., None], np.eye(4))
    assert np.array_equal(read(single.to_bytes()).scan.values, VALUES)


def test_time_may_be_an_axis_of_the_space_of_nrrd() -> None:
    """As ITK writes it, and by the spaces that the format's definition names for it."""
    both = np.stack([VALUES, VALUES + 1])
    axes = "(0.7,0,0,0) (0,0.8,0,0) (0,0,2.5,0) (0,0,0,1)"
    lines = f"space directions: {axes}\nkinds: domain domain domain domain\n"
    origin = "space origin: (1,2,3,0)\n"
    for space in ("space dimension: 4", "space: LPST", "space: left-posterior-superior-time"):
        content = nrrd(both, f"{space}\n{lines}{origin}")
        with pytest.raises(SeveralVolumes, match="received 2"):
            read(content)
        found = read(content, volume=1)
        assert np.array_equal(found.scan.values, both[1])
        assert np.allclose(geometry.weights_mm(found.scan), SPACING_MM[0])
        if "dimension" not in space:
            assert np.allclose(found.affine, affine_of(origin_mm=(1, 2, 3)))
        assert np.array_equal(
            read(nrrd(VALUES[None], f"{space}\n{lines}{origin}")).scan.values, VALUES
        )
    mixed = nrrd(both, f"space: LPST\n{lines}".replace("2.5,0", "2.5,1"))
    with pytest.raises(UndecodableImage):
        read(mixed, volume=0)


def test_pairs_of_keys_and_values_are_no_fields_of_nrrd() -> None:
    """They are anybody's, whatever their names."""
    place = "space: LPS\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)\n"
    pairs = "space:=RAS\ntype:=my type\nencoding:=gzip\ndata file:=elsewhere\n"
    assert np.allclose(read(nrrd(VALUES, place + pairs)).affine, read(nrrd(VALUES, place)).affine)


def test_colours_are_refused() -> None:
    """By their type, before anything is read."""
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    coloured = nibabel.Nifti1Image(np.zeros((4, 5, 6), kind), np.eye(4)).to_bytes()
    vectors = "space: LPS\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n"
    three = np.stack([VALUES] * 3, axis=-1)
    for content in (
        coloured,
        nrrd(three, vectors + "kinds: RGB-color domain domain domain\n"),
        mha(VALUES, ElementNumberOfChannels=3),
    ):
        with pytest.raises(NotGrey):
            read(content)


def mha(values: np.ndarray, **fields: object) -> bytes:
    header = {
        "ObjectType": "Image",
        "NDims": values.ndim,
        "BinaryData": True,
        "DimSize": " ".join(map(str, values.shape[::-1])),
        "ElementSpacing": "0.7 0.8 2.5",
        "ElementType": "MET_SHORT",
    }
    header |= fields
    lines = "".join(f"{name} = {value}\n" for name, value in header.items())
    content = zlib.compress(values.tobytes()) if fields.get("CompressedData") else values.tobytes()
    return lines.encode() + b"ElementDataFile = LOCAL\n" + content


def test_files_that_do_not_say_how_they_lie() -> None:
    """Their distances are taken, or those that the caller gives, but no directions."""
    for content in (
        nrrd(VALUES, "spacings: 0.7 0.8 2.5\n"),
        nrrd(VALUES, "space dimension: 3\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)\n"),
        mha(VALUES),
        mha(VALUES, CompressedData=True),
        npy(VALUES),
        npy(np.asfortranarray(VALUES)),
        nrrd(VALUES),
        nifti(VALUES, None, pixdim=0),
        nifti(VALUES, None),
    ):
        volume = read(content, spacing_mm=SPACING_MM)
        assert np.array_equal(volume.scan.values, VALUES)
        assert volume.scan.notes == ("orientation_unknown",)
        assert volume.scan.spacing_mm == pytest.approx(SPACING_MM[1:])
        assert np.allclose(geometry.weights_mm(volume.scan), SPACING_MM[0])
    for content in (npy(VALUES), nifti(VALUES, None)):
        volume = read(content)
        assert volume.scan.spacing_mm is None
        assert geometry.weights_mm(volume.scan) is None


@pytest.mark.parametrize("space", ["right-anterior-superior", "RAS", "LAS", "LPS"])
def test_the_space_of_nrrd_decides_on_signs(space: str) -> None:
    header = f"space: {space}\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)\n"
    volume = read(nrrd(VALUES, header + "space origin: (1,2,3)\n", "gzip"))
    x, y = (1 if "l" in space.lower()[:1] else -1), (1 if "P" in space else -1)
    expected = affine_of(origin_mm=(x, 2 * y, 3))
    expected[0, 2] *= x
    expected[1, 1] *= y
    assert np.allclose(volume.affine, expected)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((VALUES.astype(np.float32) + 1024) / 4096, "between 0 and 1"),
        (VALUES + np.int16(1100), r"HU \+ 1024"),
        (np.clip((VALUES + 1000) // 5, 0, 255).astype(np.uint8), "grey levels"),
        (np.full_like(VALUES, -1000), "soft tissue"),
        ((VALUES - VALUES.mean()) / VALUES.std(), "as low as air"),
    ],
)
def test_values_that_do_not_look_like_hu_need_a_word(values: np.ndarray, reason: str) -> None:
    """Nothing is guessed; the refusal says what was seen."""
    content = npy(values)
    with pytest.raises(InvalidParameter, match=reason):
        read(content)
    assert read(content, unit="grey level").scan.unit == "grey level"
    said = read(content, unit="HU").scan
    assert said.unit == "HU"
    assert ("intensity_offset_suspect" in said.notes) == ("soft tissue" not in reason)


UNSOUND = {
    "no finite place": {"srow_x": [np.inf, 0, 0, 0], "qform_code": 0},
    "no extent": {"srow_x": 0, "qform_code": 0},
    "giant": {"srow_x": [1e30, 0, 0, 0], "qform_code": 0},
    "far away": {"srow_x": [-0.7, 0, 0, 1e20], "qform_code": 0},
    "in a plane": {"srow_x": [1, 1, 0, 0], "srow_y": [1, 1, 0, 0], "qform_code": 0},
}


@pytest.mark.parametrize("name", UNSOUND)
def test_places_that_cannot_be_are_none(name: str) -> None:
    volume = read(nifti(VALUES, affine_of(), **UNSOUND[name]))
    assert volume.scan.orientation is None
    assert volume.affine is None


def test_headers_that_announce_too_much_are_refused_at_once() -> None:
    """By the limits, else by what the file can hold, before room is made for it."""
    huge = nifti(VALUES, affine_of(), dim=[3, 30000, 30000, 3000, 1, 1, 1, 1])
    many = nifti(VALUES, affine_of(), dim=[3, 26, 22, 3000, 1, 1, 1, 1])
    with_frames = nifti(VALUES, affine_of(), dim=[5, 26, 22, 6, 30000, 30000, 1, 1])
    for content in (huge, gzip.compress(huge), many, with_frames):
        with pytest.raises(VolumeTooLarge):
            read(content)
    wide = VolumeLimits(max_slices=10_000, max_bytes=1 << 50, max_pixels=1 << 40)
    for content in (huge, gzip.compress(huge), many, gzip.compress(many)):
        with pytest.raises(UndecodableImage, match="truncated"):
            read(content, limits=wide)
    packed = gzip.compress(npy(VALUES))
    with pytest.raises(VolumeTooLarge):
        read(nrrd(VALUES), limits=VolumeLimits(max_slices=5))
    with pytest.raises(VolumeTooLarge):
        read(mha(VALUES), limits=VolumeLimits(max_pixels=571))
    with pytest.raises(VolumeTooLarge):
        read(packed, limits=VolumeLimits(max_bytes=VALUES.nbytes - 1))
    read(packed, limits=VolumeLimits(max_bytes=VALUES.nbytes, max_pixels=572, max_slices=6))


def test_values_that_become_reals_count_as_reals() -> None:
    """Before anything is read: a slope makes four bytes of two."""
    limits = VolumeLimits(max_bytes=4 * VALUES.size - 1)
    packed = gzip.compress(nifti(VALUES, affine_of(), scl_slope=0.5))
    with pytest.raises(VolumeTooLarge):
        read(packed, limits=limits, unit="HU")
    read(gzip.compress(nifti(VALUES, affine_of())), limits=limits)


def seeds() -> dict[str, bytes]:
    place = "space: LPS\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)\n"
    return {
        "nifti": nifti(VALUES, affine_of()),
        "gzip": gzip.compress(nifti(VALUES, affine_of())),
        "nrrd": nrrd(VALUES, place),
        "packed nrrd": nrrd(VALUES, place, "gzip"),
        "mha": mha(VALUES, TransformMatrix="1 0 0 0 1 0 0 0 1"),
        "packed mha": mha(VALUES, CompressedData=True),
        "npy": npy(VALUES),
    }


@pytest.mark.parametrize("name", seeds())
def test_truncated_files_are_refused_wherever_they_end(name: str) -> None:
    """The checksum of a packed file counts, too."""
    content = seeds()[name]
    for end in (len(content) - 1, len(content) - 5, len(content) // 2, 400, 90):
        with pytest.raises(UndecodableImage):
            read_grid(content[:end], GridOptions())


@pytest.mark.parametrize("name", seeds())
def test_chance_changes_give_a_volume_or_an_error_of_ours(name: str) -> None:
    content, random = seeds()[name], np.random.default_rng(len(name))
    limits = VolumeLimits(max_slices=100, max_bytes=1 << 24, max_pixels=1 << 16)
    for _ in range(150):
        changed = mutate(content, random)
        try:
            read(changed, limits=limits, unit=random.choice(["HU", "grey level"]))
        except LungsegError as error:
            assert error.code != "internal_error"  # noqa: PT017 - some changes are none


def test_packed_files_of_many_streams_and_damaged_ones() -> None:
    content = nifti(VALUES, affine_of())
    pieces = [gzip.compress(content[at : at + 999]) for at in range(0, len(content), 999)]
    assert np.array_equal(read(b"".join(pieces)).scan.values, VALUES)
    damaged = bytearray(gzip.compress(content))
    damaged[-6] ^= 1  # in its checksum
    with pytest.raises(UndecodableImage, match="damaged"):
        read(bytes(damaged))
    followed = gzip.compress(content + bytes(1 << 27))  # which is not unpacked
    assert np.array_equal(read(followed).scan.values, VALUES)
    twice = nrrd(VALUES, encoding="gzip")
    with pytest.raises(UndecodableImage, match="twice"):
        read(gzip.compress(twice))


@pytest.mark.parametrize(
    "content",
    [
        nrrd(VALUES, "data file: other.raw\n"),
        nrrd(VALUES, encoding="gzip").replace(b"encoding: gzip", b"encoding: bzip2"),
        nrrd(VALUES).replace(b"sizes: 26", b"sizes: 2x"),
        nrrd(VALUES).replace(b"type: short", b"type: block"),
        mha(VALUES).replace(b"LOCAL", b"other.raw"),
        mha(VALUES, ElementType="MET_STRING"),
        mha(VALUES, NDims=2),
        mha(VALUES, BinaryData=False),
        nifti(VALUES, None, datatype=32),
        nifti(VALUES, None, vox_offset=1e9),
        nifti(VALUES, None, dim=0),
        nifti(VALUES, None, dim=[3, 26, 0, 6, 1, 1, 1, 1]),
        npy(VALUES[0]),
        npy(VALUES).replace(b"(6, 22, 26)", b"(True,22,6)"),
        npy(VALUES.astype("S4")),
        b"none of these" * 99,
    ],
)
def test_what_cannot_be_read_is_undecodable(content: bytes) -> None:
    """With a sentence, and no part of the header in it."""
    with pytest.raises(UndecodableImage, match="expected"):
        read_grid(content, GridOptions())


def test_slices_are_told_as_they_are_read() -> None:
    heard: list[tuple[str, int, int]] = []
    read(npy(VALUES), progress=lambda *event: heard.append(event))
    assert heard == [("decode", done, 6) for done in range(1, 7)]
