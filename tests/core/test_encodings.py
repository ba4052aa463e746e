"""Every mask encoding, read by the very libraries that it is meant for."""

from __future__ import annotations

import base64
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco

from lungseg.core.contours import polygons
from lungseg.core.rle import coco_string, from_runs, runs
from lungseg.formats.write import ENCODINGS, array_npy, encode_mask, mask_png
from tests.masks import masks

MASKS = masks()
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
planes = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@pytest.fixture(params=MASKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def encoded(name: str, encoding: str) -> tuple[np.ndarray, dict]:
    """The mask and its encoding after a trip through JSON."""
    mask = MASKS[name]
    document = json.loads(json.dumps(encode_mask(mask, encoding)))
    assert document.pop("encoding") == encoding
    assert document["size"] == list(mask.shape)
    return mask, document


def test_pycocotools_decodes_the_compressed_form_as_it_is(name: str) -> None:
    mask, document = encoded(name, "coco_rle")
    assert np.array_equal(coco.decode(document), mask)
    reference = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert document["counts"] == reference


def test_pycocotools_decodes_the_uncompressed_form(name: str) -> None:
    mask, document = encoded(name, "coco_rle_uncompressed")
    assert np.array_equal(coco.decode(coco.frPyObjects(document, *mask.shape)), mask)


def test_supervision_decodes_both_coco_forms(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # supervision's own, at import
        from supervision.detection.utils.converters import rle_to_mask
    for encoding in ("coco_rle", "coco_rle_uncompressed"):
        mask, document = encoded(name, encoding)
        height, width = mask.shape
        read = rle_to_mask(document["counts"], resolution_wh=(width, height))
        assert np.array_equal(read, mask)


def test_kaggles_reader_gives_the_mask(name: str) -> None:
    mask, document = encoded(name, "kaggle_rle")
    numbers = np.array(document["counts"].split(), int)  # as competition scripts do
    flat = np.zeros(mask.size, bool)
    for start, length in numbers.reshape(-1, 2):
        flat[start - 1 : start - 1 + length] = True
    assert np.array_equal(flat.reshape(mask.shape, order="F"), mask)


def test_cvats_sdk_decodes_the_points(name: str) -> None:
    from cvat_sdk.masks import decode_mask
    from cvat_sdk.masks import encode_mask as reference

    mask, document = encoded(name, "cvat")
    height, width = mask.shape
    read = decode_mask(document["points"], image_width=width, image_height=height)
    assert np.array_equal(read, mask)
    assert document["points"] == reference(mask)


def test_label_studios_converter_decodes_the_brush(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own, at import
        from label_studio_converter.brush import decode_rle
    mask, document = encoded(name, "label_studio")
    assert document["format"] == "rle"
    shape = (document["original_height"], document["original_width"], 4)
    picture = decode_rle(document["rle"]).reshape(shape)
    assert np.array_equal(picture, np.repeat(mask[..., None], 4, axis=2) * 255)


def test_shapely_reads_valid_polygons_of_exactly_these_pixels(name: str) -> None:
    import shapely

    mask, document = encoded(name, "polygon")
    shape = shapely.from_geojson(json.dumps(document))
    assert shape.is_valid or shape.is_empty
    assert shape.area == mask.sum()
    rows, columns = np.indices(mask.shape)
    assert np.array_equal(shapely.contains_xy(shape, columns + 0.5, rows + 0.5), mask)
    for polygon in getattr(shape, "geoms", ()):
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)


def test_png_and_npy_carry_the_mask(name: str) -> None:
    mask, document = encoded(name, "png_base64")
    content = base64.b64decode(document["data"])
    assert content == mask_png(mask)
    picture = Image.open(io.BytesIO(content))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), mask * np.uint8(255))
    assert np.array_equal(np.load(io.BytesIO(array_npy(mask)), allow_pickle=False), mask)


def test_none_says_the_size_only(name: str) -> None:
    _, document = encoded(name, "none")
    assert list(document) == ["size"]
    assert len(ENCODINGS) == 8


@given(plane=planes)
def test_any_mask_survives_runs_and_coco(plane: np.ndarray) -> None:
    assert np.array_equal(from_runs(runs(plane.ravel())).reshape(plane.shape), plane)
    reference = coco.encode(np.asfortranarray(plane.astype(np.uint8)))["counts"].decode()
    assert coco_string(plane) == reference


@given(plane=planes)
def test_any_masks_polygons_are_valid_and_exact(plane: np.ndarray) -> None:
    import shapely

    shape = shapely.MultiPolygon([(rings[0], rings[1:]) for rings in polygons(plane)])
    assert shape.is_valid
    assert shape.area == plane.sum()
