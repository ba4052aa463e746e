"""TIFF: every kind of number is read as what it is, or refused by name."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lungseg.core.errors import (
    ImageTooLarge,
    LungsegError,
    MultiFrame,
    NotGrey,
    UndecodableImage,
)
from lungseg.formats.read import read_scan
from tests.formats.tiffs import COMPRESSIONS, page, tiff, tiff_pages
from training.synthetic.phantom import Phantom, make_phantom, picture

SIZE = (37, 45)
KINDS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
NUMBERS = np.random.default_rng(3).integers(0, 1 << 16, SIZE)
WHITES = {"u1": 255.0, "u2": 65535.0}


def numbers(kind: str) -> np.ndarray:
    """Values that fill small types, with signs where there are any."""
    array = (NUMBERS % (1 << min(16, 8 * int(kind[1])))).astype(np.int64)
    if kind[0] != "u":
        array = array - array.max() // 2 - 1
    return (array / 16).astype(kind) if kind[0] == "f" else array.astype(kind)


def read(content: bytes, **options: object) -> np.ndarray:
    return read_scan(content, **options).values[0]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_in_every_form(kind: str, compression: str) -> None:
    """Both byte orders, strips and tiles, predictors, classic and big files, both polarities."""
    array = numbers(kind)
    white = WHITES.get(kind)
    predicted = compression not in ("none", "packbits")
    predictors = (1, 2, 3) if kind[0] == "f" else (1, 2)
    forms = ({"rows": 8}, {"tile": (16, 32)}, {"rows": 100, "big": True})
    for order, form, photometric in itertools.product("<>", forms, (0, 1)):
        for predictor in predictors if predicted else (1,):
            options = form | {"predictor": predictor, "photometric": photometric}
            content = tiff(array, order=order, compression=compression, **options)
            scan = read_scan(content)
            shown = array.astype(np.float64)
            if photometric == 0:
                shown = -shown if white is None else white - shown
            assert np.array_equal(scan.values[0], shown.astype(np.float32)), options
            assert scan.white == white


@pytest.mark.parametrize("bits", range(1, 16))
def test_odd_bits(bits: int) -> None:
    """Cameras and detectors write 10 to 14 bits packed, also with a predictor."""
    array = (NUMBERS % (1 << bits)).astype(np.uint16)
    white = float((1 << bits) - 1)
    scale, top = (255 / white, 255.0) if bits < 8 else (1.0, white)
    for compression, predictor in (("none", 1), ("lzw", 1), ("lzw", 2), ("deflate", 2)):
        content = tiff(array, bits=bits, compression=compression, predictor=predictor, order=">")
        scan = read_scan(content)
        assert np.allclose(scan.values[0], array * scale, rtol=1e-6)
        assert scan.white == top
    assert np.allclose(read(tiff(array, bits=bits, photometric=0)), (white - array) * scale)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_tags_that_are_left_out_have_their_defaults(kind: str) -> None:
    """A size, bits and one strip are enough: grey without a sign, as it lies there."""
    array = numbers(kind)
    told = {tag: value for tag, value in page(array).items() if tag in (256, 257, 258, 273)}
    scan = read_scan(tiff_pages([told]))
    assert np.array_equal(scan.values[0], array)
    assert (scan.white, scan.spacing_mm) == (WHITES[kind], None)


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
def test_bits_may_be_filled_from_the_lowest(kind: str) -> None:
    """Each byte is read from its other end, where a tag says so."""
    array = numbers(kind)
    bits = np.unpackbits(array.view(np.uint8).reshape(-1, 1), axis=1)
    turned = np.packbits(bits[:, ::-1]).view(array.dtype).reshape(array.shape)
    assert np.array_equal(read(tiff(turned, tags={266: 2})), array)
    assert np.array_equal(read(tiff(array, tags={266: 1})), array)


def test_a_predictor_means_nothing_where_there_is_no_compression() -> None:
    """Tools that unpack files leave the tag behind; the specification ties it to LZW."""
    array = numbers("u2")
    for compression in ("none", "packbits"):
        assert np.array_equal(read(tiff(array, compression=compression, tags={317: 2})), array)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
def test_equal_channels_and_alpha_of_any_depth(kind: str, separate: bool) -> None:
    array = numbers(kind)
    white = WHITES.get(kind, 7)
    opaque = np.full_like(array, white)
    for channels, photometric, extra in ((1, 1, 1), (3, 2, 0), (3, 2, 1)):
        samples = np.stack([array] * channels + [opaque] * extra, axis=-1)
        tags = {338: 2} if extra else {}
        content = tiff(samples, photometric=photometric, separate=separate, tags=tags)
        assert np.array_equal(read(content), array)
    colours = np.stack([array, array[::-1], array], axis=-1)
    with pytest.raises(NotGrey):
        read(tiff(colours, photometric=2, separate=separate))


@pytest.mark.parametrize(("meaning", "shown"), [(0, False), (1, False), (2, True)])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_transparency_lies_on_black(kind: str, meaning: int, shown: bool) -> None:
    """Where it is not counted in yet: grey beside it is that of opaque pixels."""
    array, white = numbers(kind), WHITES[kind]
    alpha = array[::-1]
    content = tiff(np.stack([array, alpha], axis=-1), tags={338: meaning})
    expected = np.rint(array * (alpha / np.float32(white))) if shown else array
    assert np.array_equal(read(content), expected)
    unknown = np.stack([array, alpha], axis=-1).astype("i4")
    if meaning:
        with pytest.raises(UndecodableImage, match="unknown opacity"):
            read(tiff(unknown, tags={338: meaning}))
    else:
        assert np.array_equal(read(tiff(unknown, tags={338: meaning})), array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation: int) -> None:
    """Files of bytes, which Pillow reads right, tell how it is to be turned."""
    content = tiff(numbers("u1"), tags={274: orientation})
    with Image.open(io.BytesIO(content)) as reference:
        reference.load()
        assert np.array_equal(read(content), np.asarray(reference))


def test_declared_hu_are_taken_as_they_are_stored(client: httpx.Client) -> None:
    """Measured values are no matter of display; by HTTP, one by one and in a batch."""
    chest = make_phantom((61, 83), seed=2)
    for kind, photometric in itertools.product(("i2", "f4", "f8"), (0, 1)):
        content = tiff(chest.hu.astype(kind), photometric=photometric)
        assert np.array_equal(read(content, unit="HU"), chest.hu)
        answer = client.post("/segment?unit=hu", content=content).json()
        batch = client.post("/segment/batch?unit=hu", files=[("files", ("a", content))]).json()
        for image in (answer["image"], batch["items"][0]["image"]):
            assert image["intensity_unit"] == "HU"


# --- pages --------------------------------------------------------------------------------------

LARGE, SMALL = numbers("u2"), numbers("u2")[::2, ::2]


@pytest.mark.parametrize("mark", [{254: 1}, {254: 4}, {254: 5}, {255: 2}])
@pytest.mark.parametrize("first", [False, True])
def test_reduced_copies_and_masks_beside_the_picture_are_passed_over(
    mark: dict[int, int], first: bool
) -> None:
    pages = [page(LARGE), page(SMALL) | mark]
    assert np.array_equal(read(tiff_pages(pages[::-1] if first else pages)), LARGE)


@pytest.mark.parametrize(
    "tags",
    [
        {270: b"ImageJ=1.54\nimages=7\nslices=7\n\0"},
        {270: b'{"shape": [9, 4], "truncated": true}\0'},
    ],
)
def test_stacks_behind_one_page_are_several_pictures(tags: dict[int, bytes]) -> None:
    """ImageJ and tifffile write large stacks with the tags of their first slice alone."""
    with pytest.raises(MultiFrame):
        read(tiff(LARGE, tags=tags))
    with pytest.raises(MultiFrame):
        read(tiff_pages([page(LARGE), page(LARGE)]))
    with pytest.raises(MultiFrame):
        read(tiff(LARGE, tags={32997: 2}))  # its depth
    for single in ({270: b"ImageJ=1.54\nimages=1\n\0"}, {32997: 1}):
        assert np.array_equal(read(tiff(LARGE, tags=single)), LARGE)


# --- what is refused ----------------------------------------------------------------------------

REFUSED = {
    "complex": (tiff(LARGE, tags={339: 6}), "complex"),
    "24 bits": (tiff(LARGE, tags={258: 24}), "24 bits"),
    "signed 12 bits": (tiff(LARGE, tags={258: 12, 339: 2}), "signed ones of 12 bits"),
    "float of 8 bits": (tiff(LARGE, tags={258: 8, 339: 3}), "floating-point ones of 8 bits"),
    "JPEG 2000": (tiff(LARGE, tags={259: 34712}), "JPEG 2000"),
    "old JPEG": (tiff(LARGE, tags={259: 6}), "old-style JPEG"),
    "unknown compression": (tiff(LARGE, tags={259: 4711}), "4711"),
    "colour filter": (tiff(LARGE, tags={262: 32803}), "32803"),
    "JPEG of 16 bits": (tiff(LARGE, tags={259: 7}), "at most 8 bits"),
    "palette of 16 bits": (tiff(LARGE, tags={262: 3}), "at most 8 bits"),
    "mixed samples": (tiff(LARGE, tags={258: [8, 16], 277: 2}), "one kind"),
    "predictor": (tiff(LARGE, compression="lzw", tags={317: 9}), "received 9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(UndecodableImage, match=reason):
        read(content)


def hostile() -> dict[str, bytes]:
    """Loops, counts beyond the file, tiles far larger than the picture, shared segments."""
    plain = tiff(LARGE)
    loop = bytearray(plain)
    loop[-4:] = plain[4:8]
    tiny = np.zeros((1, 1), np.uint8)
    wide = np.zeros((16, 40000), np.uint8)
    shared = tiff(wide, compression="deflate", rows=1, tags={279: [1 << 31] * 16})
    return {
        "endless": tiff_pages([page(SMALL) | {254: 1}] * 300),
        "count": plain.replace(
            struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 1 << 31)
        ),
        "tile": tiff(tiny, tags={322: 65535, 323: 65535, 324: 8, 325: 1}),
        "flat tiles": tiff(wide, tags={322: 16, 323: 65535, 324: 8, 325: 1}),
        "no tile": tiff(tiny, tags={322: 0, 323: 16, 324: 8, 325: 1}),
        "no segments": tiff(LARGE, rows=1, tags={273: [8], 279: [9]}),
        "shared": shared,
        "outside": tiff(LARGE, tags={273: [1 << 31]}),
        "bits": tiff(LARGE, tags={258: 0}),
        "channels": tiff(LARGE, tags={277: 60000, 258: [16]}),
        "cut off": plain[:-9],
        "short": tiff(LARGE)[:30],
        "header": b"II*\0",
        "big header": b"MM\0+\0\x10\0\0" + bytes(9),
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_tags_are_refused_before_they_cost_anything(name: str) -> None:
    with pytest.raises((UndecodableImage, ImageTooLarge, MultiFrame)):
        read(hostile()[name])


def test_a_chain_that_bites_its_tail_ends() -> None:
    plain = tiff(LARGE)
    assert np.array_equal(read(plain[:-4] + plain[4:8]), LARGE)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_a_refusal_or_a_picture(data: st.DataObject) -> None:
    """Whatever bytes change: no other error, and never more pixels than allowed."""
    compression = data.draw(st.sampled_from([*COMPRESSIONS]))
    content = bytearray(tiff(SMALL, compression=compression, rows=4, big=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(LungsegError):
        assert read_scan(bytes(content), max_pixels=4096).values.size <= 4096


def test_kinds_that_differ_in_type_alone_get_one_mask(client: httpx.Client) -> None:
    """From the slice to the mask: a signed, a floating and a shown-inverted export agree."""
    chest: Phantom = make_phantom((200, 240), seed=2)
    grey = picture(chest).astype(np.int32)
    masks = [
        client.post("/segment?format=npy", content=tiff(values, photometric=photometric)).content
        for values, photometric in (
            (grey.astype(np.int16), 1),
            ((grey - 128).astype(np.int8), 1),
            (grey.astype(np.float32), 1),
            (-grey.astype(np.float64), 0),
            ((65535 - grey).astype(np.uint16), 0),
            ((100 - grey).astype(np.int16), 0),
        )
    ]
    first = np.load(io.BytesIO(masks[0]))
    assert first.any()
    for mask in masks[1:]:
        assert np.count_nonzero(np.load(io.BytesIO(mask)) != first) <= 2
