"""Lungs as masks in CVAT: a function for ``cvat-cli task auto-annotate`` that asks a server.

cvat-cli task auto-annotate TASK --function-file integrations/cvat_lungs.py \
    -p url=str:http://127.0.0.1:8000

The task has a label ``lung``. The server's key, if it asks for one, is in LUNGSEG_API_KEY.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from typing import Any

import cvat_sdk.auto_annotation as cvataa
from PIL import Image

from lungseg import Client

LUNG = 0
HIGHEST_THRESHOLD = 0.999
"""A confidence of 1 would leave no lung at all."""


class Lungs:
    """What CVAT calls once for each frame; further parameters are those of ``/segment``."""

    spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("lung", LUNG, type="mask")])

    def __init__(self, url: str, **parameters: Any) -> None:
        self._url = url
        self._parameters = parameters

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[Any]:
        """One mask of both lungs, or polygons where CVAT asks for them; nothing without lung.

        Raises:
            LungsegError, httpx.TransportError: the frame is refused, or nobody can be reached.
        """
        asked = dict(self._parameters)
        if context.conf_threshold:
            asked["threshold"] = min(context.conf_threshold, HIGHEST_THRESHOLD)
        asked["encoding"] = "polygon" if context.conv_mask_to_poly else "cvat"
        picture = io.BytesIO()
        image.save(picture, "PNG")
        with Client(self._url, api_key=os.environ.get("LUNGSEG_API_KEY")) as client:
            answer = json.loads(client.fetch(picture.getvalue(), "json", **asked).content)
        if not answer["statistics"]["pixels"]:
            return []
        if context.conv_mask_to_poly:
            return [cvataa.polygon(LUNG, ring) for ring in _rings(answer["mask"]["coordinates"])]
        return [cvataa.mask(LUNG, answer["mask"]["points"])]


def _rings(polygons: list[Any]) -> Iterator[list[float]]:
    """The outer border of each region, without the repeated first point; CVAT has no holes."""
    for outer, *_ in polygons:
        yield [number for point in outer[:-1] for number in point]


create = Lungs
