"""An ML backend of Label Studio: images of its tasks in, brush strokes with its own labels out.

Requests name Label Studio's address and a token; those of the settings are used instead.
"""

from __future__ import annotations

import re
import uuid
from base64 import b64decode
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from xml.etree import ElementTree as ET

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from lungseg.core.errors import BodyTooLarge, InvalidParameter, LungsegError, MalformedRequest
from lungseg.core.rle import brush_bytes
from lungseg.core.types import LEFT, RIGHT
from lungseg.inference.errors import DeadlineExceeded
from lungseg.pipeline import Outcome
from lungseg.query import SegmentQuery
from lungseg.settings import Settings
from lungseg.web.body import compute, read_body
from lungseg.web.errors import problem_document
from lungseg.web.json_object import loaded
from lungseg.web.state import exchange_of, state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.segment import chosen_model

PREFIX = "/labelstudio"
QUERY = SegmentQuery()
VERSION = "{0.name}/{0.version}"
SILENCE_S = 10.0  # of Label Studio, while an image is fetched from it
SPARE = 1 / 3  # of a request's time, in which no task is begun: Label Studio asks again for it
MAX_TASKS = 10_000
MAX_CONFIG = 256 * 1024  # characters, which are read while other requests wait
CONFIG = AliasChoices("label_config", "schema")
SIDES = {"right": RIGHT, "left": LEFT}


class Task(BaseModel):
    """What is read of a task."""

    data: dict[str, Any]


class Asked(BaseModel):
    """What is read of a request: a project's labelling configuration, and tasks."""

    label_config: str = Field(max_length=MAX_CONFIG, validation_alias=CONFIG)
    tasks: list[Task] = Field(default=[], max_length=MAX_TASKS)


def surfaces(_settings: Settings) -> tuple[Surface, Surface]:
    """The API, and that part of it which works: the other must answer at once."""
    router = APIRouter(prefix=PREFIX, include_in_schema=False)
    router.add_api_route("/health", health)
    router.add_api_route("/webhook", health, methods=["POST"])  # tells what people did: not used
    router.add_api_route("/setup", setup, methods=["POST"])
    router.add_api_route("/predict", predict, methods=["POST"])
    limit = attrgetter("max_body_bytes")
    work = Surface(prefixes=(f"{PREFIX}/predict",), body_limit=limit, takes="slices")
    rest = Surface(prefixes=(PREFIX,), router=router, body_limit=lambda _: 4 * MAX_CONFIG)
    return rest, work


async def health(request: Request) -> Response:
    """Whether work should be sent."""
    if error := state_of(request.scope).unreadiness:
        raise error
    return JSONResponse({"status": "UP", "model_class": "lungseg"})


async def setup(request: Request) -> Response:
    """Which model answers, where a project has labels for lungs."""
    _asked(await read_body(request))
    return JSONResponse({"model_version": VERSION.format(chosen_model(request, QUERY).contract)})


async def predict(request: Request) -> Response:
    """A prediction for each task, in order; where there can be none, its place says why."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    model = chosen_model(request, QUERY)

    def one(task: Task, brush: Brush, http: httpx.Client) -> dict[str, Any]:
        try:
            if exchange.deadline.remaining_s < SPARE * state.settings.deadline_s:
                raise DeadlineExceeded("expected fewer tasks, or more time for them")
            content = _image(http, str(task.data.get(brush.key) or "about:blank"), request)
            with exchange.held.holding(len(content)):
                outcome = state.pipeline.segment(content, model, QUERY, exchange.watch)
            state.metrics.count_mask(outcome.report.quality.flags)
            return _prediction(outcome, brush)
        except LungsegError as error:
            return {"error": problem_document(error.code, str(error), exchange.request_id)}

    def work(body: bytes) -> Response:
        asked, brush = _asked(body)
        with httpx.Client(timeout=SILENCE_S, trust_env=False) as http:
            return JSONResponse({"results": [one(task, brush, http) for task in asked.tasks]})

    return await compute(request, work)


def _asked(body: bytes) -> tuple[Asked, Brush]:
    try:
        asked = Asked.model_validate(loaded(body, "a request"))
    except ValidationError:
        raise MalformedRequest("expected what Label Studio sends, received other JSON") from None
    return asked, Brush.of(asked.label_config)


def _image(http: httpx.Client, address: str, request: Request) -> bytes:
    """The image of a task: itself, or its address in our Label Studio, which may not redirect."""
    settings, content = state_of(request.scope).settings, bytearray()
    home, secret = httpx.URL(settings.labelstudio_url or ""), settings.labelstudio_token
    headers = {"Authorization": f"Token {secret.get_secret_value()}"} if secret else {}
    try:
        if address.startswith("data:"):
            return b64decode(address.partition(",")[2])
        url = home.join(address)
        origins = {(one.scheme, one.raw_host, one.port) for one in (home, url)}
        if not home.raw_host or url.userinfo or len(origins) > 1:
            raise InvalidParameter("expected an image of the Label Studio in the settings")
        with http.stream("GET", url, headers=headers) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                exchange_of(request.scope).deadline.check()
                content += piece
                if len(content) > settings.max_body_bytes:
                    raise BodyTooLarge(f"expected {settings.max_body_bytes} bytes an image at most")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise InvalidParameter("expected an image that can be fetched, received none") from None
    return bytes(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brush:
    """A brush of a project, the image that it paints on, and its labels for lungs."""

    name: str
    image: str
    key: str
    """Of a task's data: there stands the address of the image."""
    labels: dict[str, str]
    """Of right, left and all lung, which is empty, those that it has."""

    @classmethod
    def of(cls, config: str) -> Brush:
        """The first brush with labels for lungs and no brush inside: each label is read once.

        Raises:
            MalformedRequest, InvalidParameter: no XML, a document type (a bomb?), no such brush.
        """
        try:
            root = ET.fromstring("" if "<!DOCTYPE" in config else config)  # noqa: S314
        except ET.ParseError:
            raise MalformedRequest("expected a configuration in XML without a DOCTYPE") from None
        keys = {it.get("name"): it.get("value", "").removeprefix("$") for it in root.iter("Image")}
        for brush in (it for it in root.iter("BrushLabels") if it.find(".//BrushLabels") is None):
            image, labels = brush.get("toName", ""), dict[str, str]()
            for label in [label.get("value", "") for label in brush.iter("Label")]:
                words = set(re.findall(r"[^\W_]+", label.lower()))
                side = " ".join(words - {"lung", "lungs"})
                if words and side in ("", *SIDES):
                    labels.setdefault(side, label)
            if image in keys and ("" in labels or SIDES.keys() <= labels.keys()):
                return cls(name=brush.get("name", ""), image=image, key=keys[image], labels=labels)
        raise InvalidParameter("label_config: expected a brush for lung, or right and left lung")


def _prediction(outcome: Outcome, brush: Brush) -> dict[str, Any]:
    """A stroke for each side, or one for all lung."""
    found, named = outcome.segmentation, brush.labels
    if found.laterality and SIDES.keys() <= named.keys():
        planes = {named[name]: found.labels[0] == side for name, side in SIDES.items()}
    elif "" in named:
        planes = {named[""]: found.labels[0] > 0}
    else:
        raise InvalidParameter("expected a label called lung, as no sides are known here")
    height, width = outcome.scan.size
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    place = {"type": "brushlabels", "from_name": brush.name, "to_name": brush.image, **size}
    values = (
        {"format": "rle", "rle": brush_bytes(plane), "brushlabels": [label]}
        for label, plane in planes.items()
        if plane.any()
    )
    result = [{"id": uuid.uuid4().hex, "value": value, **place} for value in values]
    version, score = VERSION.format(outcome.model.contract), found.confidence.mean_probability
    return {"model_version": version, "score": score, "result": result}
