"""``integrations/cvat_lungs.py`` as CVAT's own SDK loads, drives and checks it."""

from __future__ import annotations

import logging
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cvat_sdk import auto_annotation as cvataa
from cvat_sdk import masks, models
from cvat_sdk.auto_annotation import driver
from PIL import Image

import lungseg
from tests.serving import Running
from training.synthetic.phantom import Phantom, picture

FILE = Path(__file__).parents[2] / "integrations" / "cvat_lungs.py"
WINDOW = "-1000,400"
TASK_LABEL = 77
"""What the task calls the label; the SDK translates."""


def function_of(url: str, **parameters: Any) -> Any:
    """As the SDK's command line makes it of ``--function-file`` and ``-p``."""
    spec = util.spec_from_file_location("cvat_lungs", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.create(url=url, **parameters)


def annotated(
    function: Any, image: Image.Image, *, confidence: float | None = None, polygons: bool = False
) -> list[models.LabeledShapeRequest]:
    """What the SDK's driver would send to CVAT for one frame."""
    context = driver._DetectionFunctionContextImpl(
        frame_name="a.png", conf_threshold=confidence, conv_mask_to_poly=polygons
    )
    label = models.Label(id=TASK_LABEL, name="lung", type="any", attributes=[], sublabels=[])
    mapper = driver._AnnotationMapper(
        logging.getLogger(),
        function.spec.labels,
        [label],
        allow_unmatched_labels=False,
        conv_mask_to_poly=polygons,
    )
    shapes = function.detect(context, image)
    mapper.validate_and_remap(shapes, 5)
    assert {(shape.label_id, shape.frame) for shape in shapes} <= {(TASK_LABEL, 5)}
    return shapes


@pytest.fixture
def frame(phantom: Phantom) -> Image.Image:
    return Image.fromarray(picture(phantom))


def mask_of(shape: models.LabeledShapeRequest, image: Image.Image) -> np.ndarray:
    return masks.decode_mask(shape.points, image_width=image.width, image_height=image.height)


def test_the_mask_is_the_services(service: Running, frame: Image.Image, grey_png: bytes) -> None:
    """Pixel by pixel; the confidence that CVAT asks for is the threshold."""
    function = function_of(service.url, window_hu=WINDOW)
    with lungseg.Client(service.url) as client:
        for confidence in (None, 0.9):
            (shape,) = annotated(function, frame, confidence=confidence)
            expected = client.segment(grey_png, threshold=confidence, window_hu=WINDOW).mask
            assert (mask_of(shape, frame) == expected).all()


@pytest.mark.parametrize("mode", ["CMYK", "LA", "I", "F"])
def test_frames_of_every_mode(service: Running, phantom: Phantom, mode: str) -> None:
    """Pictures with inks or shades of glass, and the HU of a scientific TIFF."""
    if measured := mode in ("I", "F"):
        frame = Image.fromarray(np.asarray(phantom.hu)).convert(mode)
    else:
        frame = Image.fromarray(picture(phantom)).convert(mode)
    window = {} if measured else {"window_hu": WINDOW}
    (shape,) = annotated(function_of(service.url, **window), frame)
    with lungseg.Client(service.url) as client:
        expected = client.segment(np.asarray(frame if measured else frame.convert("L")), **window)
    assert (mask_of(shape, frame) == expected.mask).all()


def test_a_frame_without_lung_has_no_shape(service: Running) -> None:
    """CVAT's own encoder would make a pixel of it."""
    frame = Image.new("RGB", (64, 48), (255, 255, 255))
    assert annotated(function_of(service.url, window_hu=WINDOW), frame) == []


def test_polygons_are_refused_by_cvat_itself(service: Running, frame: Image.Image) -> None:
    """Masks are what there is: CVAT converts them where people ask it to."""
    with pytest.raises(cvataa.BadFunctionError, match="expected 'polygon'"):
        annotated(function_of(service.url), frame, polygons=True)


def test_what_the_service_refuses_is_said(service: Running, frame: Image.Image) -> None:
    """CVAT's command ends with its reason."""
    function = function_of(service.url, window_hu="low")
    with pytest.raises(lungseg.ServiceError, match="window_hu: expected two finite numbers"):
        annotated(function, frame)
