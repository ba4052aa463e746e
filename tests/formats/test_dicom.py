"""DICOM slices as scanners, archives and viewers write them."""

from __future__ import annotations

import io
import itertools
import struct

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from lungseg.core.errors import (
    ImageTooLarge,
    MultiFrame,
    NotCT,
    NotGrey,
    UndecodableImage,
)
from lungseg.core.types import Scan
from lungseg.formats.read import read_scan
from tests.formats import jpeg_lossless
from tests.formats.dicoms import (
    HTJ2K_24_BY_16,
    compressed,
    encapsulated,
    enhanced,
    parse,
    save,
    uncompressed,
)
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom

PET_CLASS = "1.2.840.10008.5.1.4.1.1.128"
RT_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"


def read(content: bytes, **options: object) -> Scan:
    return read_scan(content, **options)


def stored(small: Phantom) -> np.ndarray:
    return (small.hu + 1024).astype(np.uint16)


# --- transfer syntaxes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian],
)
def test_uncompressed_syntaxes(small: Phantom, plain: bytes, syntax: str) -> None:
    scan = read(uncompressed(plain, syntax))
    assert scan.unit == "HU"
    assert np.array_equal(scan.values[0], small.hu)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_syntaxes(small: Phantom, syntax: str, signed: bool) -> None:
    changes = {}
    if signed:
        pixels = small.hu.astype("<i2").tobytes()
        changes = {"PixelRepresentation": 1, "PixelData": pixels, "RescaleIntercept": "0"}
        changes |= {"BitsStored": 16, "HighBit": 15}
    content = compressed(dicom_bytes(small, **changes), syntax)
    assert np.array_equal(read(content).values[0], small.hu)


@pytest.mark.parametrize(("syntax", "predictor"), [(uid.JPEGLossless, 2), (uid.JPEGLosslessSV1, 1)])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_lossless(
    small: Phantom, plain: bytes, syntax: str, predictor: int, signed: bool
) -> None:
    if signed:
        frame = jpeg_lossless.encode(small.hu.astype(np.int16).view(np.uint16), 16, predictor)
        bits = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}
        content = encapsulated(plain, frame, syntax, RescaleIntercept="0", **bits)
    else:
        frame = jpeg_lossless.encode(stored(small), 12, predictor)
        content = encapsulated(plain, frame, syntax)
    assert np.array_equal(read(content).values[0], small.hu)


@pytest.mark.parametrize(
    ("bits", "allocated"), [(8, 8), (8, 16), (12, 16), (13, 16), (16, 16), (16, 32)]
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_numbers_keep_their_sign_in_every_width(
    small: Phantom, syntax: str, signed: bool, bits: int, allocated: int
) -> None:
    """And the value that pads them is found among them, below zero or above."""
    lowest = -(1 << bits - 1) if signed else 0
    numbers = small.hu.astype(np.int64) % (1 << bits) + lowest
    padding = -9 if signed else (1 << bits) - 9
    numbers[3:] = np.where(numbers[3:] == padding, padding + 1, numbers[3:])
    numbers[:3] = padding
    header = {"BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1}
    header |= {"PixelRepresentation": int(signed), "RescaleIntercept": "0"}
    header |= {"PixelPaddingValue": padding}
    samples = numbers & (1 << bits) - 1
    if syntax == uid.JPEGLosslessSV1:
        frames = [jpeg_lossless.encode(samples, bits, 1)]
    else:  # such streams may say nothing of signs, or what is wrong
        frames = [frame_of(samples, syntax, bits)]
        if syntax == uid.JPEG2000Lossless:
            half = 1 << bits - 1
            frames.append(
                frame_of((samples + half) % (1 << bits) - half, syntax, bits, signed=True)
            )
    for frame in frames:
        scan = read(encapsulated(dicom_bytes(small, **header), frame, syntax))
        assert (scan.values[0, :3] == -1000).all()
        assert np.array_equal(scan.values[0, 3:], numbers[3:])


def frame_of(numbers: np.ndarray, syntax: str, bits: int, *, signed: bool = False) -> bytes:
    """The numbers, compressed by pydicom's encoders."""
    size = 1 if bits <= 8 else 2
    packed = numbers.astype(f"<{'i' if signed else 'u'}{size}").tobytes()
    header = {"BitsAllocated": 8 * size, "BitsStored": bits, "HighBit": bits - 1}
    header |= {"PixelRepresentation": int(signed), "PixelData": packed + b"\0" * (len(packed) % 2)}
    plain = dicom_bytes(make_phantom(numbers.shape, seed=2), **header)
    return get_frame(parse(compressed(plain, syntax)).PixelData, 0, number_of_frames=1)


def test_near_lossless_and_lossy_syntaxes(small: Phantom, plain: bytes) -> None:
    for syntax, options in (
        (uid.JPEGLSNearLossless, {"jls_error": 2}),
        (uid.JPEG2000, {"j2k_cr": [3]}),
    ):
        dataset = parse(plain)
        dataset.compress(syntax, **options, generate_instance_uid=False)
        scan = read(save(dataset))
        assert np.abs(scan.values[0] - small.hu).mean() < 25


def test_jpeg_baseline_of_8_bits(small: Phantom, plain: bytes) -> None:
    grey = (stored(small) >> 4).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=95)
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleSlope": "16"}
    found = read(encapsulated(plain, stream.getvalue(), uid.JPEGBaseline8Bit, **bits))
    assert np.abs(found.values[0] - small.hu).mean() < 40


def test_jpeg_extended_of_12_bits() -> None:
    content = save(pydicom.dcmread(get_testdata_file("JPEG-lossy.dcm", download=False)))
    scan = read(content, allow_non_ct=True)
    assert scan.size == (1024, 256)
    # a whole-body scan of counts, compared once with DCMTK's dcmdjpeg: maximum 264
    assert (scan.values.min(), scan.values.max()) == (0, 264)


def test_htj2k(plain: bytes) -> None:
    bits = {"Rows": 16, "Columns": 24, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": "0"}
    content = encapsulated(plain, HTJ2K_24_BY_16, "1.2.840.10008.1.2.4.201", **bits)
    assert np.array_equal(read(content).values[0].ravel(), np.arange(384) * 7 % 4096)


def test_an_unknown_syntax_is_undecodable(plain: bytes) -> None:
    known = encapsulated(plain, b"\0" * 64, uid.JPEG2000Lossless)
    with pytest.raises(UndecodableImage):
        read(known.replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.99"))


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless]
)
def test_a_truncated_file_is_undecodable_wherever_it_ends(plain: bytes, syntax: str) -> None:
    """From its first attribute to the bytes that end its pixels."""
    whole = plain if syntax == uid.ExplicitVRLittleEndian else compressed(plain, syntax)
    for length in (*range(132, 400), *range(400, len(whole) - 8, 31)):
        with pytest.raises(UndecodableImage):
            read(whole[:length])


def test_a_lost_preamble_does_no_harm(small: Phantom, plain: bytes) -> None:
    assert np.array_equal(read(plain[132:]).values[0], small.hu)
    implicit = uncompressed(plain, uid.ImplicitVRLittleEndian)
    meta = 132 + 12 + int.from_bytes(implicit[140:144], "little")
    assert np.array_equal(read(implicit[meta:]).values[0], small.hu)
    big = uncompressed(plain, uid.ExplicitVRBigEndian)
    meta = 132 + 12 + int.from_bytes(big[140:144], "little")
    assert np.array_equal(read(big[meta:]).values[0], small.hu)


# --- from stored values to HU -------------------------------------------------------------------


def test_bits_beside_the_stored_ones_are_dropped(small: Phantom) -> None:
    overlay = np.random.default_rng(0).integers(0, 16, small.hu.shape).astype(np.uint16)
    dirty = stored(small) | (overlay << 12)
    assert np.array_equal(read(dicom_bytes(small, PixelData=dirty.tobytes())).values[0], small.hu)
    shifted = (stored(small) << 4) | overlay
    content = dicom_bytes(small, PixelData=shifted.tobytes(), HighBit=15)
    assert np.array_equal(read(content).values[0], small.hu)


def test_signed_values_of_13_bits(small: Phantom) -> None:
    thirteen = (small.hu.astype(np.int16).view(np.uint16)) & 0x1FFF
    bits = {"BitsStored": 13, "HighBit": 12, "PixelRepresentation": 1, "RescaleIntercept": "0"}
    content = dicom_bytes(small, PixelData=thirteen.tobytes(), **bits)
    assert np.array_equal(read(content).values[0], small.hu)


def test_modality_lut_sequence(small: Phantom) -> None:
    item = Dataset()
    table = np.arange(4096, dtype=np.uint16)[::-1] * 2
    item.LUTDescriptor = [4096, 0, 16]
    item.ModalityLUTType = "HU"
    item.LUTData = table.astype("<u2").tobytes()
    content = dicom_bytes(
        small,
        ModalityLUTSequence=[item],
        RescaleSlope=None,
        RescaleIntercept=None,
        RescaleType=None,
    )
    scan = read(content)
    assert scan.unit == "HU"
    assert np.array_equal(scan.values[0], table[stored(small)])


def test_a_slope_that_is_not_one(small: Phantom) -> None:
    content = dicom_bytes(small, RescaleSlope="0.5", RescaleIntercept="-100")
    assert np.array_equal(read(content).values[0], stored(small) * 0.5 - 100)


def test_without_calibration_values_are_grey_levels(small: Phantom) -> None:
    for change in (
        {"RescaleSlope": None},
        {"RescaleIntercept": None},
        {"RescaleType": "OD"},
        {"RescaleSlope": "0"},
    ):
        assert read(dicom_bytes(small, **change)).unit == "grey level"


@pytest.mark.parametrize(
    ("said", "unit"),
    [("HU", "HU"), ("US", "HU"), (" hu_mod", "HU"), (None, "HU"), ("OD", "grey level")],
)
def test_rescale_types_of_hounsfield_units(small: Phantom, said: str, unit: str) -> None:
    """Unspecified is what many scanners write for them."""
    assert read(dicom_bytes(small, RescaleType=said)).unit == unit


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, (-1024, 3071, 1)),
        ({"RescaleSlope": "-2", "RescaleIntercept": "100"}, (100 - 2 * 4095, 100, 2)),
        (
            {"PixelRepresentation": 1, "RescaleSlope": "0.5", "RescaleIntercept": "-100"},
            (-1124, 923.5, 0.5),
        ),
        ({"BitsStored": 16, "HighBit": 15}, (-1024, 64511, 1)),
        ({"RescaleSlope": None}, None),
    ],
)
def test_the_reach_of_the_stored_bits(
    small: Phantom, header: dict, expected: tuple[float, float, float] | None
) -> None:
    """Their lowest and highest value in HU, and the distance between two; of HU alone."""
    reach = read(dicom_bytes(small, **header)).reach
    assert (None if reach is None else (reach.low, reach.high, reach.step)) == expected


@pytest.mark.parametrize("beyond", [False, True])
def test_padding_is_air(small: Phantom, beyond: bool) -> None:
    pixels = stored(small)
    padded = pixels.copy()
    padding = 0xF830 if beyond else 4000  # −2000 in 16 bits: beyond the 12 that are stored
    padded[:5] = padding
    scan = read(dicom_bytes(small, PixelData=padded.tobytes(), PixelPaddingValue=padding))
    assert (scan.values[0, :5] == -1000).all()
    assert np.array_equal(scan.values[0, 5:], small.hu[5:])


def test_a_padding_range_is_air(small: Phantom) -> None:
    """Both ends are within, in either order, and their neighbours are not."""
    padded = stored(small)
    padded[:, :3], padded[:, 3:6], padded[:, 6], padded[:, 7] = 3980, 4010, 3979, 4011
    for value, limit in ((4010, 3980), (3980, 4010)):
        content = dicom_bytes(
            small, PixelData=padded.tobytes(), PixelPaddingValue=value, PixelPaddingRangeLimit=limit
        )
        scan = read(content)
        assert (scan.values[0, :, :6] == -1000).all()
        assert np.array_equal(scan.values[0, :, 6:], padded[:, 6:].astype(float) - 1024)
        assert scan.padding is not None
        assert np.argwhere(scan.padding[0].all(axis=0)).ravel().tolist() == [*range(6)]


def test_padding_of_grey_levels_is_the_darkest_that_was_measured(small: Phantom) -> None:
    """Nothing else is known of air there; a slice of padding alone is 0."""
    padded = np.maximum(stored(small), 30)
    padded[0] = 4000
    unknown = {"RescaleSlope": None, "PixelPaddingValue": 4000}
    scan = read(dicom_bytes(small, PixelData=padded.tobytes(), **unknown))
    assert (scan.values[0, 0] == 30).all()
    padded[:] = 4000
    assert not read(dicom_bytes(small, PixelData=padded.tobytes(), **unknown)).values.any()
    assert read(dicom_bytes(small)).padding is None
    assert read(dicom_bytes(small, PixelPaddingValue=4001)).padding is None


PADDINGS = {"none": None, "below": -3024, "black": -1025, "water": 0, "white": 3071}


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("reach", [0.3, 1.2])
def test_monochrome1_whether_or_not_the_values_were_inverted(
    small: Phantom, padding: str, signed: bool, marked: bool, reach: float
) -> None:
    """Nor does padding decide, whatever it is and how much, and whether it is named or not."""
    value = PADDINGS[padding]
    squares = (np.linspace(-1, 1, side)[axis] ** 2 for side, axis in _axes(small))
    corners = np.add(*squares) > reach
    hu = small.hu.astype(np.int64)
    if value is not None:
        hu[corners] = value
    shown = {"PhotometricInterpretation": "MONOCHROME1"}
    intercept, extremes = (0, -1) if signed else (-4096, (1 << 13) - 1)
    shown |= {"PixelRepresentation": int(signed), "RescaleIntercept": str(intercept)}
    shown |= {"BitsStored": 13, "HighBit": 12}
    for stored_values in (hu - intercept, extremes - (hu - intercept)):
        pixels = stored_values.astype("<i2")
        if marked and value is not None:
            shown["PixelPaddingValue"] = int(pixels[0, 0])
        scan = read(dicom_bytes(small, PixelData=pixels.tobytes(), **shown))
        assert scan.unit == "HU"
        kept = np.ones(hu.shape, bool) if value is None else ~corners
        assert np.array_equal(scan.values[0][kept], small.hu[kept])


def inverted(small: Phantom, levels: list[tuple[int, int]], **header: object) -> Scan:
    """A MONOCHROME1 slice of 10 x 10 pixels: so many of each HU, in rows from the top."""
    hu = np.concatenate([np.full(count, level) for level, count in levels])
    changes = {"PhotometricInterpretation": "MONOCHROME1", "Rows": 10, "Columns": 10}
    changes |= {"BitsStored": 13, "HighBit": 12, "RescaleIntercept": "-4096"}
    pixels = (hu + 4096).astype("<u2").tobytes()
    return read(dicom_bytes(small, PixelData=pixels, **(changes | header)))


AS_IS, TURNED = ("HU", False), ("HU", True)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        # -1000 HU are of a body as they are, 1000 HU (then -1001) turned, 0 either way, 2000 never
        ([(-1000, 40), (1000, 60)], AS_IS),
        ([(-1000, 39), (1000, 61)], TURNED),
        ([(-1000, 30), (2000, 70)], AS_IS),
        ([(-1000, 29), (2000, 71)], ("grey level", True)),
        ([(1000, 30), (2000, 70)], TURNED),
        ([(1000, 29), (2000, 71)], ("grey level", True)),
        ([(-1000, 70), (1000, 1), (0, 29)], AS_IS),
        # where air and soft tissue begin and end
        ([(-1100, 30), (2000, 70)], AS_IS),
        ([(-1101, 30), (2000, 70)], ("grey level", True)),
        ([(300, 31), (2000, 69)], AS_IS),
        ([(301, 30), (-2000, 70)], TURNED),
    ],
)
def test_monochrome1_is_turned_where_a_body_comes_out(
    small: Phantom, levels: list, expected: tuple
) -> None:
    """By more than a fifth of the slice; what has less than 0.3 of a body is in no HU at all."""
    scan = inverted(small, levels)
    hu = np.concatenate([np.full(count, level) for level, count in levels]).reshape(10, 10)
    unit, turned = expected
    assert scan.unit == unit
    assert np.array_equal(scan.values[0], -1 - hu if turned else hu)


def test_padding_within_a_slice_says_nothing_of_inversion(small: Phantom) -> None:
    """Half of the slice, which would leave less than 0.3 of a body."""
    levels = [(-1000, 26), (2000, 50), (1000, 24)]
    scan = inverted(small, levels, PixelPaddingValue=2000 + 4096)
    assert scan.unit == "HU"
    assert scan.values[0].ravel().tolist() == [-1000.0] * 76 + [1000.0] * 24


def test_monochrome1_without_calibration_is_turned(small: Phantom) -> None:
    """Dark is air then, whatever the numbers are."""
    scan = inverted(small, [(-1000, 50), (1000, 50)], RescaleSlope=None)
    assert scan.unit == "grey level"
    assert np.unique(scan.values).tolist() == [8191 - 5096, 8191 - 3096]
    scan = inverted(small, [(-4000, 50), (-3900, 50)], RescaleSlope=None)
    assert np.unique(scan.values).tolist() == [8191 - 196, 8191 - 96]  # though 96 could be HU


def _axes(phantom: Phantom) -> tuple[tuple[int, tuple], tuple[int, tuple]]:
    return (phantom.hu.shape[0], np.s_[:, None]), (phantom.hu.shape[1], np.s_[None, :])


# --- geometry and kind --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "spacing"),
    [
        (b"0.9 \\0.65", (0.9, 0.65)),
        (b"0.9\\0.6\0\0", (0.9, 0.6)),
        (b"0.9\0\\0.60", (0.9, 0.6)),
        (b"\0000.9\\0.6", None),
        (b"0.9\\\0000.6", None),
        (b"0.9\\\0\0\0\0", None),
    ],
)
def test_decimal_strings_are_padded_at_the_end_of_each(
    small: Phantom, written: bytes, spacing: tuple[float, float] | None
) -> None:
    """With blanks, or with NUL as some writers do; NUL before a number makes it none."""
    marked = b"1.111\\2.22"
    given = dicom_bytes(small, PixelSpacing=[1.111, 2.22])
    assert given.count(marked) == 1
    assert read(given.replace(marked, written.ljust(len(marked)))).spacing_mm == spacing


def test_spacing_and_orientation_where_they_are_sound(small: Phantom) -> None:
    scan = read(dicom_bytes(small, PixelSpacing=[0.9, 0.6]))
    assert scan.spacing_mm == (0.9, 0.6)
    assert scan.orientation is not None
    for spoilt in ([0, 0], [-1, 1], [1e9, 1], [0.7]):
        assert read(dicom_bytes(small, PixelSpacing=spoilt)).spacing_mm is None
    for spoilt in ([1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [0] * 6, [1, 0, 0]):
        assert read(dicom_bytes(small, ImageOrientationPatient=spoilt)).orientation is None


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("mm", "sound"), [(0.01, True), (0.0099, False), (20.0, True), (20.1, False)]
)
def test_plausible_spacings(small: Phantom, mm: float, sound: bool, axis: int) -> None:
    """From 0.01 to 20 mm, between rows as between columns."""
    spacing = [mm, 0.7] if axis == 0 else [0.7, mm]
    found = read(dicom_bytes(small, PixelSpacing=spacing)).spacing_mm
    assert found == (pytest.approx(spacing) if sound else None)


@pytest.mark.parametrize(("error", "sound"), [(0.009, True), (0.011, False)])
def test_directions_are_unit_vectors_at_a_right_angle_to_a_hundredth(
    small: Phantom, error: float, sound: bool
) -> None:
    """Each may be too long or too short by that, and their cosine as large, either way."""
    for spoilt in (
        [1 + error, 0, 0, 0, 1, 0],
        [1 - error, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 1 + error, 0],
        [1, 0, 0, 0, 1 - error, 0],
        [1, 0, 0, error, 1, 0],
        [1, 0, 0, -error, 1, 0],
    ):
        scan = read(dicom_bytes(small, ImageOrientationPatient=spoilt))
        assert (scan.orientation is not None) is sound, spoilt


def test_directions_and_position_are_the_headers(small: Phantom) -> None:
    """First the direction of rows, then that of columns, and where the first pixel lies."""
    header = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [-7, 8.5, 90]}
    scan = read(dicom_bytes(small, **header))
    assert scan.orientation is not None
    assert scan.orientation.row_direction == (0, 1, 0)
    assert scan.orientation.column_direction == (0, 0, -1)
    assert scan.positions_mm is not None
    assert scan.positions_mm.tolist() == [[-7, 8.5, 90]]
    for spoilt in ([1, 2], None):
        assert read(dicom_bytes(small, ImagePositionPatient=spoilt)).positions_mm is None


def test_a_frames_own_groups_come_before_shared_ones(small: Phantom) -> None:
    """And what the image says itself before either, attribute by attribute."""
    dataset = parse(enhanced(small, shared=True))
    own, shared = Dataset(), dataset.SharedFunctionalGroupsSequence[0]
    for macro, values in (
        ("PixelMeasuresSequence", {"PixelSpacing": [0.9, 0.6]}),
        ("PlaneOrientationSequence", {"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}),
        ("PlanePositionSequence", {"ImagePositionPatient": [1, 2, 3]}),
        ("PixelValueTransformationSequence", {"RescaleSlope": "2", "RescaleIntercept": "-1000"}),
    ):
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(own, macro, [item])
    dataset.PerFrameFunctionalGroupsSequence = [own]
    scan = read(save(dataset))
    assert scan.spacing_mm == (0.9, 0.6)
    assert scan.orientation is not None
    assert scan.orientation.row_direction == (-1, 0, 0)
    assert scan.positions_mm is not None
    assert scan.positions_mm.tolist() == [[1, 2, 3]]
    assert np.array_equal(scan.values[0], stored(small) * 2.0 - 1000)
    del own.PixelMeasuresSequence
    assert read(save(dataset)).spacing_mm == pytest.approx(small.spacing_mm)
    dataset.PixelSpacing = [0.5, 0.4]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.3, 0.3]
    assert read(save(dataset)).spacing_mm == (0.5, 0.4)


@pytest.mark.parametrize(
    ("header", "lossy"),
    [
        ({}, False),
        ({"LossyImageCompression": "01"}, True),
        ({"LossyImageCompression": "00"}, False),
    ],
)
def test_a_note_says_that_values_were_changed(small: Phantom, header: dict, lossy: bool) -> None:
    """By the header, or by a syntax that cannot keep every value; others may or may not."""
    content = dicom_bytes(small, **header)
    assert (read(content).notes == ("lossy_compression",)) is lossy
    near = parse(content)
    near.compress(uid.JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    assert read(save(near)).notes == ("lossy_compression",)
    assert (read(compressed(content, uid.JPEGLSLossless)).notes != ()) is lossy


@pytest.mark.parametrize("shared", [False, True])
def test_enhanced_ct_of_one_frame(small: Phantom, shared: bool) -> None:
    scan = read(enhanced(small, shared=shared))
    assert np.array_equal(scan.values[0], small.hu)
    assert scan.unit == "HU"
    assert scan.spacing_mm == pytest.approx(small.spacing_mm)
    assert scan.orientation is not None
    assert scan.notes == ()


def test_several_frames_are_refused_with_a_pointer(small: Phantom) -> None:
    with pytest.raises(MultiFrame, match=r"received 3.*volumes"):
        read(enhanced(small, 3))
    contradicting = parse(enhanced(small, 3))
    contradicting.NumberOfFrames = 1
    with pytest.raises(MultiFrame, match="received 3"):
        read(save(contradicting))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MR"}, "Modality MR"),
        ({"Modality": "JOHN DOE"}, "another kind"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "no Modality"),
        ({"Modality": None, "SOPClassUID": PET_CLASS}, "no Modality"),
        ({"SOPClassUID": PET_CLASS}, "storage class of another kind"),
    ],
)
def test_what_is_no_ct_slice_is_refused_unless_allowed(
    small: Phantom, changes: dict, reason: str
) -> None:
    content = dicom_bytes(small, **changes)
    with pytest.raises(NotCT, match=reason):
        read(content)
    scan = read(content, allow_non_ct=True)
    assert (scan.size, scan.notes) == (small.hu.shape, ("not_ct",))


def test_a_missing_modality_with_a_ct_class_is_accepted_with_a_note(small: Phantom) -> None:
    scan = read(dicom_bytes(small, Modality=None))
    assert (scan.notes, scan.unit) == (("not_ct",), "HU")


@pytest.mark.parametrize("modality", ["MR", "PX", "JOHN DOE"])
def test_values_of_other_modalities_are_never_called_hu(small: Phantom, modality: str) -> None:
    assert read(dicom_bytes(small, Modality=modality), allow_non_ct=True).unit == "grey level"


@pytest.mark.parametrize("modality", [None, "", "CT"])
@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"])
def test_values_of_other_storage_classes_are_never_called_hu(
    small: Phantom, modality: str | None, sop_class: str
) -> None:
    """MR and PET have rescaling of their own: a missing or wrong Modality makes them no CT."""
    content = dicom_bytes(small, Modality=modality, SOPClassUID=sop_class)
    assert read(content, allow_non_ct=True).unit == "grey level"


def test_a_localizer_is_known_by_the_type_of_its_frame(small: Phantom) -> None:
    """Enhanced objects say it there."""
    dataset, item = parse(enhanced(small)), Dataset()
    item.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    dataset.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [item]
    with pytest.raises(NotCT, match="localizer"):
        read(save(dataset))


PREAMBLES = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"BM",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"PK\x03\x04",
)


@pytest.mark.parametrize("begin", [*PREAMBLES, b"\x93NUMPY"])
def test_dicom_is_dicom_whatever_its_preamble(
    client: httpx.Client, small: Phantom, plain: bytes, begin: bytes
) -> None:
    """The preamble is anybody's: one by one, in a form, and as the only file of a batch."""
    content = begin.ljust(128, b"\0") + plain[128:]
    assert np.array_equal(read(content).values[0], small.hu)
    for answer in (
        client.post("/segment", content=content, headers={"Content-Type": "image/tiff"}),
        client.post("/segment", files={"file": ("a.tif", content, "image/tiff")}),
    ):
        assert answer.json()["image"]["media_type"] == "application/dicom"
    items = client.post("/segment/batch", files=[("files", ("a.tif", content))]).json()["items"]
    assert items[0]["image"]["intensity_unit"] == "HU"


def test_a_tiff_in_the_preamble_is_not_read(small: Phantom, plain: bytes) -> None:
    """Dual-personality files hold a whole picture as well: HU, spacing and sides are DICOM's."""
    entries = ((256, 3, 83), (257, 3, 61), (258, 3, 16), (273, 4, len(plain) - 2 * 61 * 83))
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    header = (b"II*\0" + struct.pack("<I", len(plain))).ljust(128, b"\0")
    content = header + plain[128:] + struct.pack("<H", len(entries)) + packed + b"\0" * 4
    scan = read(content)
    assert (scan.media_type, scan.unit) == ("application/dicom", "HU")
    assert scan.spacing_mm == pytest.approx(small.spacing_mm)


def test_colour_and_objects_without_pixels(small: Phantom, plain: bytes) -> None:
    colour = dicom_bytes(small, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    palette = dicom_bytes(small, PhotometricInterpretation="PALETTE COLOR")
    for content in (colour, palette):
        with pytest.raises(NotGrey):
            read(content)
    with pytest.raises(NotCT, match="without pixels"):
        read(dicom_bytes(small, PixelData=None, Rows=None, SOPClassUID=RT_STRUCTURES))


def test_contradicting_bits_are_undecodable(small: Phantom) -> None:
    """Bits Stored fill up to High Bit, and these fit into 8, 16 or 32."""
    for stored_bits, high in [*itertools.product((13, 12, 17), (3, 40)), (12, 10), (12, 16)]:
        with pytest.raises(UndecodableImage, match="8, 16 or 32 bits"):
            read(dicom_bytes(small, BitsStored=stored_bits, HighBit=high))
    for allocated in (1, 12, 24, 64):
        with pytest.raises(UndecodableImage, match="8, 16 or 32 bits"):
            read(dicom_bytes(small, BitsAllocated=allocated, BitsStored=1, HighBit=0))
    assert np.array_equal(read(dicom_bytes(small, HighBit=None)).values[0], small.hu)


def test_sizes_are_checked_before_and_inside_the_compressed_pixels(plain: bytes) -> None:
    with pytest.raises(ImageTooLarge):
        read(plain, max_pixels=61 * 83 - 1)
    assert read(plain, max_pixels=61 * 83).size == (61, 83)
    dataset = parse(compressed(plain, uid.JPEG2000Lossless))
    dataset.Rows = 62
    with pytest.raises(UndecodableImage, match="Rows x Columns"):
        read(save(dataset))
