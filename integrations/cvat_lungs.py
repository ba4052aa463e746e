"""Lungs as masks in CVAT: a function for ``cvat-cli task auto-annotate`` that asks a server.

cvat-cli task auto-annotate TASK --function-file cvat_lungs.py -p url=str:http://127.0.0.1:8000

The task has a label ``lung``. The server's key, if it asks for one, is in LUNGSEG_API_KEY.
"""

from __future__ import annotations

import io
import json
import os
from typing import Any

import cvat_sdk.auto_annotation as cvataa
from PIL import Image

from lungseg import Client

LUNG = 0


class Lungs:
    """What CVAT calls once for each frame; further parameters are those of ``/segment``."""

    spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("lung", LUNG, type="mask")])

    def __init__(self, url: str, **parameters: Any) -> None:
        self._url, self._parameters = url, parameters

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[Any]:
        """One mask of both lungs; nothing without lung. Raises what the client does."""
        threshold = context.conf_threshold or self._parameters.get("threshold")
        asked = {**self._parameters, "threshold": threshold, "encoding": "cvat"}
        image.save(picture := io.BytesIO(), "TIFF", compression="tiff_adobe_deflate")
        with Client(self._url, api_key=os.environ.get("LUNGSEG_API_KEY")) as client:
            answer = json.loads(client.fetch(picture.getvalue(), "json", **asked).content)
        points = answer["mask"]["points"] if answer["statistics"]["pixels"] else None
        return [cvataa.mask(LUNG, points)] if points else []


create = Lungs
