"""Pictures and arrays: every depth and colour type gives the slice that grey gives."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from lungseg.core.errors import (
    ImageTooLarge,
    InvalidParameter,
    LungsegError,
    MalformedRequest,
    MultiFrame,
    NotGrey,
    UndecodableImage,
    UnsupportedMediaType,
)
from lungseg.core.types import Scan
from lungseg.formats.read import read_scan
from tests.conftest import encode
from training.synthetic.phantom import make_phantom, picture

GREY = picture(make_phantom((61, 83), seed=2))


def read(content: bytes, **options: object) -> Scan:
    return read_scan(content, **options)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def variants() -> dict[str, bytes]:
    image = Image.fromarray(GREY)
    palette = image.convert("P")
    return {
        "png": encode(GREY, "PNG"),
        "bmp": encode(GREY, "BMP"),
        "tiff": encode(GREY, "TIFF"),
        "tiff lzw": encode(GREY, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encode(GREY, "TIFF", compression="tiff_adobe_deflate"),
        "palette": saved(palette, "PNG"),
        "palette bmp": saved(palette, "BMP"),
        "rgb": saved(image.convert("RGB"), "PNG"),
        "rgba": saved(image.convert("RGBA"), "PNG"),
        "grey and alpha": saved(image.convert("LA"), "PNG"),
        "rgb tiff": saved(image.convert("RGB"), "TIFF"),
        "npy": npy(GREY),
        "npy int64": npy(GREY.astype(np.int64)),
        "npy float64": npy(GREY.astype(np.float64)),
        "npy big endian": npy(GREY.astype(">u2")),
        "npy fortran": npy(np.asfortranarray(GREY)),
        "tiff int32": encode(GREY.astype(np.int32), "TIFF"),
        "tiff float32": encode(GREY.astype(np.float32), "TIFF"),
    }


@pytest.mark.parametrize("name", variants())
def test_every_variant_gives_the_grey_levels(name: str) -> None:
    scan = read(variants()[name])
    assert scan.unit == "grey level"
    assert scan.values.dtype == np.float32
    assert np.array_equal(scan.values[0], GREY)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_keep_their_depth(form: str) -> None:
    deep = GREY.astype(np.uint16) * 257
    scan = read(encode(deep, form))
    assert np.array_equal(scan.values[0], deep)
    assert scan.white == 65535


def test_jpeg_and_one_bit() -> None:
    assert np.abs(read(encode(GREY, "JPEG", quality=95)).values[0] - GREY).mean() < 3
    dark = Image.fromarray(GREY > 90)
    for form in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(read(saved(dark, form)).values[0], (GREY > 90) * 255)


@pytest.mark.parametrize("deep", [False, True])
def test_white_is_zero_tiff(deep: bool) -> None:
    levels = GREY.astype(np.uint16) * 257 if deep else GREY
    inverted = levels.max() * 0 + (65535 if deep else 255) - levels
    content = encode(inverted.astype(levels.dtype), "TIFF", tiffinfo={262: 0})
    assert TiffImagePlugin.TiffImageFile(io.BytesIO(content)).tag_v2[262] == 0
    stored = Image.open(io.BytesIO(content))
    expected = levels if deep else np.asarray(stored)
    assert np.array_equal(read(content).values[0], expected)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn clockwise to look at
    found = read(encode(GREY, "JPEG", quality=95, exif=exif.tobytes())).values[0]
    assert found.shape == (83, 61)
    assert np.abs(found - np.rot90(GREY, -1)).mean() < 3


@pytest.mark.parametrize(
    ("dpi", "expected"),
    [
        ((25.4 / 0.6, 25.4 / 0.8), (0.8, 0.6)),
        ((72, 72), None),
        ((96, 96), None),
        ((100, 100), None),
        ((100.4, 40), None),
        ((100.6, 40), (25.4 / 40, 25.4 / 100.6)),
        ((40, 95.4), (25.4 / 95.4, 25.4 / 40)),
        ((40, 72.4), None),
        ((300, 300), None),
        ((2, 2), None),
        # from 0.2 to 3 mm
        ((126.9, 40), (25.4 / 40, 25.4 / 126.9)),
        ((127.2, 40), None),
        ((40, 127.2), None),
        ((8.5, 40), (25.4 / 40, 25.4 / 8.5)),
        ((8.4, 40), None),
        ((40, 8.4), None),
    ],
)
def test_tiff_resolution_is_spacing_when_plausible(
    dpi: tuple[float, float], expected: tuple[float, float] | None
) -> None:
    found = read(encode(GREY, "TIFF", dpi=dpi)).spacing_mm
    assert found == (pytest.approx(expected, rel=1e-3) if expected else None)


@pytest.mark.parametrize(
    ("unit", "expected"), [(1, None), (2, (2.54, 1.27)), (3, (1.0, 0.5)), (9, None)]
)
def test_tiff_resolution_is_in_inches_or_centimetres(unit: int, expected: tuple | None) -> None:
    """Without a unit it says nothing of length, and without a number neither."""
    content = encode(GREY, "TIFF", tiffinfo={282: 20.0, 283: 10.0, 296: unit})
    assert read(content).spacing_mm == (pytest.approx(expected) if expected else None)
    assert read(encode(GREY, "TIFF", tiffinfo={282: 0.0, 283: 10.0, 296: unit})).spacing_mm is None
    assert read(encode(GREY, "TIFF")).spacing_mm is None


@pytest.mark.parametrize("size", [(61, 83), (61, 61)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_spacing_turns_with_the_picture(size: tuple[int, int], orientation: int) -> None:
    dpi = (25.4 / 0.6, 25.4 / 0.8)
    tags = {"dpi": dpi, "tiffinfo": {274: orientation}}
    scan = read(encode(GREY[: size[0], : size[1]], "TIFF", **tags))
    on_its_side = orientation >= 5
    assert scan.size == (size[::-1] if on_its_side else size)
    assert scan.spacing_mm == pytest.approx((0.6, 0.8) if on_its_side else (0.8, 0.6), rel=1e-3)


def test_callers_spacing_and_window() -> None:
    scan = read(encode(GREY, "PNG"), spacing_mm=(0.8, 0.5), window_hu=(-1000.0, 400.0))
    assert (scan.unit, scan.spacing_mm) == ("HU", (0.8, 0.5))
    assert np.allclose(scan.values[0], -1000 + GREY * (1400 / 255), atol=1e-3)
    own = encode(GREY, "TIFF", dpi=(25.4 / 0.6, 25.4 / 0.8))
    assert read(own, spacing_mm=(2.0, 2.0)).spacing_mm == pytest.approx((0.8, 0.6), rel=1e-3)
    assert scan.reach is not None
    assert (scan.reach.low, scan.reach.high) == (-1000, 400)
    assert scan.reach.step == pytest.approx(1400 / 255)
    deep = GREY.astype(np.uint16) * 200 + 7
    scan = read(encode(deep, "PNG"), window_hu=(-1000.0, 400.0))
    assert np.allclose(scan.values[0], -1000 + deep * (1400 / 65535), atol=1e-3)
    assert scan.reach is not None
    assert scan.reach.step == pytest.approx(1400 / 65535)
    with pytest.raises(InvalidParameter):
        read(npy(GREY.astype(np.float32)), window_hu=(-1000.0, 400.0))


@pytest.mark.parametrize(
    ("kind", "highest"), [("u1", 255), ("u2", 65535), ("i2", None), ("u4", None), ("f4", None)]
)
def test_declared_arrays_reach_as_far_as_their_type(kind: str, highest: int | None) -> None:
    """Small unsigned ones hold nothing below 0 HU; the values of others show where they end."""
    scan = read(npy(GREY.astype(kind)), unit="HU")
    assert (scan.unit, scan.white) == ("HU", None)
    found = scan.reach and (scan.reach.low, scan.reach.high, scan.reach.step)
    assert found == (highest and (0, highest, 1))
    assert read(npy(GREY.astype(kind))).white == highest


# --- nearly grey --------------------------------------------------------------------------------


def pixels(*levels: tuple[tuple[int, ...], int], mode: str = "RGB") -> bytes:
    """A PNG of 100 x 100 pixels: so many of each colour."""
    colours = np.concatenate([np.tile(np.uint8(one), (count, 1)) for one, count in levels])
    return saved(Image.fromarray(colours.reshape(100, 100, -1), mode), "PNG")


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_channels_may_differ_as_jpegs_do(channel: int, sign: int) -> None:
    """By 24 of 255 levels anywhere, and by more in a thousandth of the pixels."""
    weight = (0.299, 0.587, 0.114)[channel]

    def tinted(by: int) -> tuple[int, ...]:
        return tuple(100 + sign * by * (place == channel) for place in range(3))

    near = read(pixels((tinted(24), 10_000))).values
    assert np.allclose(near, 100 + sign * 24 * weight)
    marked = read(pixels((tinted(90), 10), (tinted(0), 9990))).values[0]
    assert np.allclose(marked.flat[:11], [100 + sign * 90 * weight] * 10 + [100])
    with pytest.raises(NotGrey):
        read(pixels((tinted(25), 11), (tinted(0), 9989)))


@pytest.mark.parametrize(
    ("grey", "opacity", "shown"), [(201, 128, 101), (200, 255, 200), (9, 0, 0)]
)
def test_transparency_lies_on_black(grey: int, opacity: int, shown: int) -> None:
    """Rounded to the nearest level, of pictures with and without colour."""
    for mode, colour in (("LA", (grey, opacity)), ("RGBA", (grey, grey, grey, opacity))):
        content = pixels((colour, 5000), ((*colour[:-1], 255), 5000), mode=mode)
        values = read(content).values[0]
        assert (values[0, 0], values[-1, -1]) == (shown, grey)


def test_only_lossy_pictures_say_so() -> None:
    """JPEG by itself and within a TIFF."""
    lossless = [encode(GREY, form) for form in ("PNG", "BMP", "TIFF")]
    assert [read(content).notes for content in lossless] == [()] * 3
    for content in (encode(GREY, "JPEG"), encode(GREY, "TIFF", compression="jpeg")):
        assert read(content).notes == ("lossy_compression",)


# --- refusals -----------------------------------------------------------------------------------


def colour() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(ihdr))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + crc


def two_pages() -> bytes:
    page = Image.fromarray(GREY)
    return saved(page, "TIFF", save_all=True, append_images=[page])


REFUSALS: dict[str, tuple[bytes, type[LungsegError]]] = {
    "empty": (b"", MalformedRequest),
    "text": (b"not a picture", UnsupportedMediaType),
    "gif": (encode(GREY, "GIF"), UnsupportedMediaType),
    "colour": (encode(colour(), "PNG"), NotGrey),
    "truncated png": (encode(GREY, "PNG")[:-200], UndecodableImage),
    "truncated tiff": (encode(GREY, "TIFF")[:-200], UndecodableImage),
    "truncated bmp": (encode(GREY, "BMP")[:-200], UndecodableImage),
    "png of 30000 x 30000": (png_header(30000, 30000), ImageTooLarge),
    "png of 5000 x 5000": (png_header(5000, 5000), ImageTooLarge),
    "png of 1 x 70000": (png_header(1, 70000), ImageTooLarge),
    "png header alone": (png_header(50, 50), UndecodableImage),
    "two pages": (two_pages(), MultiFrame),
    "npy of three dimensions": (npy(np.zeros((3, 4, 5))), MultiFrame),
    "npy of one": (npy(np.zeros(9)), UndecodableImage),
    "npy without pixels": (npy(np.zeros((0, 9))), UndecodableImage),
    "npy of objects": (npy(np.array([[None]], dtype=object)), UndecodableImage),
    "npy of complex numbers": (npy(np.zeros((4, 4), complex)), UndecodableImage),
    "npy with nan": (npy(np.array([[1.0, np.nan]])), UndecodableImage),
    "npy with infinity": (npy(np.array([[1.0, np.inf]])), UndecodableImage),
    "npy of 16 bit with infinity": (npy(np.array([[1.0, np.inf]], np.float16)), UndecodableImage),
    "npy beyond float32": (npy(np.array([[1.0, 1e200]])), UndecodableImage),
    "npy truncated": (npy(GREY)[:-1], UndecodableImage),
    "npy too large": (npy(GREY)[:128].replace(b"(61, 83)", b"(9999, 9999)"), ImageTooLarge),
    "npy header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': [[[[((", UndecodableImage),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    content, error = REFUSALS[name]
    with pytest.raises(error) as raised:
        read(content)
    assert raised.type is error
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "NPY"])
def test_exactly_as_many_pixels_as_are_allowed_are_read(form: str) -> None:
    """Of every format; one more is refused."""
    content = npy(GREY) if form == "NPY" else encode(GREY, form)
    assert read(content, max_pixels=61 * 83).size == (61, 83)
    with pytest.raises(ImageTooLarge):
        read(content, max_pixels=61 * 83 - 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_side_has_at_most_65535_pixels(axis: int) -> None:
    """As many as DICOM can count, in either direction."""
    for side, allowed in ((65_535, True), (65_536, False)):
        content = npy(np.zeros((side, 1) if axis == 0 else (1, side), np.uint8))
        if allowed:
            assert max(read(content).size) == side
        else:
            with pytest.raises(ImageTooLarge, match="65535"):
                read(content)


@pytest.mark.parametrize("value", [1e9, -1e9])
def test_intensities_are_at_most_a_thousand_million(value: float) -> None:
    """Beyond that they are no measurements."""
    assert read(npy(np.array([[0, value]]))).values[0, 0, 1] == value
    with pytest.raises(UndecodableImage, match="finite"):
        read(npy(np.array([[0, value * 1.001]])))
