"""An ML backend of Label Studio: images of its tasks in, brush strokes with its own labels out.

Label Studio says with each request where it lives, and sends a token; neither is used. Images come
from the address in the settings, with the token from there, or in the task itself.
"""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from lungseg.core.errors import (
    BodyTooLarge,
    InvalidParameter,
    LungsegError,
    MalformedRequest,
    TooManyItems,
)
from lungseg.core.rle import brush_bytes
from lungseg.core.types import LEFT, RIGHT
from lungseg.formats.archive import Member, in_memory
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.timing import Stopwatch
from lungseg.pipeline import Outcome
from lungseg.settings import Settings
from lungseg.web.body import read_body
from lungseg.web.state import exchange_of, state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.batch import Batch, BatchQuery, Done
from lungseg.web.surfaces.segment import chosen_model

PREFIX = "/labelstudio"
QUERY = BatchQuery()
VERSION = "{0.name}/{0.version}"
SILENCE_S = 10.0
"""How long Label Studio may keep silent while an image is fetched from it."""
MAX_CONFIG_CHARACTERS = 256 * 1024
JWT_DOTS = 2
ID_DIGITS = 10
TOO_LARGE = "expected an image of at most {} bytes, received more"
OK = 200
LUNG = {"lung", "lungs"}
SAYING_NOTHING = {"area", "both", "field", "fields", "mask", "whole"}
"""Words of a label beside lung that leave its meaning as it is."""


class Task(BaseModel):
    """What is read of a task."""

    data: dict[str, Any]


class Asked(BaseModel):
    """What is read of a request: a project's labelling configuration, and tasks."""

    label_config: str = Field(
        max_length=MAX_CONFIG_CHARACTERS, validation_alias=AliasChoices("label_config", "schema")
    )
    tasks: list[Task] = []


def surfaces(_settings: Settings) -> tuple[Surface, ...]:
    """The API."""
    router = APIRouter(prefix=PREFIX, include_in_schema=False)
    router.add_api_route("/health", health)
    router.add_api_route("/setup", setup, methods=["POST"])
    router.add_api_route("/predict", predict, methods=["POST"])
    router.add_api_route("/webhook", ignore, methods=["POST"])
    own = Surface(
        prefixes=(PREFIX,), router=router, body_limit=lambda settings: settings.max_batch_bytes
    )
    return (own,)


async def health(request: Request) -> Response:
    """Whether work should be sent."""
    if error := state_of(request.scope).unreadiness:
        raise error
    return JSONResponse({"status": "UP", "model_class": "lungseg"})


async def ignore() -> Response:
    """Nothing is learnt from what people do."""
    return JSONResponse({})


async def setup(request: Request) -> Response:
    """Which model answers, where a project has labels for lungs."""
    await _asked(request)
    return JSONResponse({"model_version": VERSION.format(chosen_model(request, QUERY).contract)})


async def predict(request: Request) -> Response:
    """A prediction for each task, in order; where there can be none, its place says why."""
    state, exchange = state_of(request.scope), exchange_of(request.scope)
    asked, brush = await _asked(request)
    model = chosen_model(request, QUERY)
    batch = Predictions(state=state, exchange=exchange, model=model, query=QUERY, brush=brush)
    places, most = asyncio.Semaphore(state.workers.threads), state.settings.max_batch_items
    async with httpx.AsyncClient(timeout=SILENCE_S, trust_env=False) as http:
        images = Images(http=http, settings=state.settings, take=exchange.held.take)

        async def one(place: int, task: Task) -> dict[str, Any]:
            async with places:
                try:
                    if place >= most:
                        raise TooManyItems(f"expected at most {most} tasks, received more")
                    async with asyncio.timeout(max(0.0, exchange.deadline.remaining_s)):
                        member = in_memory(await images.fetch(task.data.get(brush.key)))
                except TimeoutError:
                    member = _failing(DeadlineExceeded("the image did not arrive in time"))
                except LungsegError as error:
                    member = _failing(error)
                answer = await batch.one(member)
                exchange.held.let_go(member.size_bytes)
                return answer.document

        tasks = (one(place, task) for place, task in enumerate(asked.tasks))
        return JSONResponse({"results": await asyncio.gather(*tasks)})


def _failing(error: LungsegError) -> Member:
    def read() -> bytes:
        raise error

    return Member(filename="", size_bytes=0, read=read)


async def _asked(request: Request) -> tuple[Asked, Brush]:
    try:
        asked = await asyncio.to_thread(Asked.model_validate_json, await read_body(request))
    except ValidationError:
        raise MalformedRequest("expected what Label Studio sends, received other JSON") from None
    return asked, Brush.of(asked.label_config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brush:
    """A brush of a project, the image that it paints on, and its labels for lungs."""

    name: str
    image: str
    key: str
    """Of a task's data: there stands the address of the image."""
    lung: str | None
    sides: dict[int, str]
    """Of right and left; empty where not both have a label."""

    @classmethod
    def of(cls, config: str) -> Brush:
        """The first brush of a labelling configuration with labels for lungs.

        Raises:
            MalformedRequest: it is no XML, or has a document type, which could unpack endlessly.
            InvalidParameter: it has no such brush.
        """
        try:
            root = None if "<!DOCTYPE" in config else ET.fromstring(config)  # noqa: S314
        except ET.ParseError:
            root = None
        if root is None:
            raise MalformedRequest("expected a labelling configuration in XML without a DOCTYPE")
        images = {image.get("name"): image.get("value", "") for image in root.iter("Image")}
        for brush in root.iter("BrushLabels"):
            image, named = brush.get("toName", ""), dict[str, str]()
            for label in reversed([label.get("value", "") for label in brush.iter("Label")]):
                words = set(re.findall("[a-z]+", label.lower())) - SAYING_NOTHING
                named[" ".join(sorted(words - LUNG)) or ("lung" if words else "")] = label
            sides = {RIGHT: named.get("right", ""), LEFT: named.get("left", "")}
            if image in images and (all(sides.values()) or "lung" in named):
                return cls(
                    name=brush.get("name", ""),
                    image=image,
                    key=images[image].removeprefix("$"),
                    lung=named.get("lung"),
                    sides=sides if all(sides.values()) else {},
                )
        raise InvalidParameter(
            "label_config: expected BrushLabels on an Image with a label called lung, or two "
            "called right lung and left lung"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Where images of tasks come from."""

    http: httpx.AsyncClient
    settings: Settings
    take: Callable[[int], object]
    """Counts bytes before they are kept, and may refuse them."""

    async def fetch(self, address: Any) -> bytes:
        """The image that a task names or holds.

        Raises:
            InvalidParameter: it lies elsewhere than in our Label Studio, or cannot be had there.
            BodyTooLarge: it has more bytes than a slice may have.
        """
        head, _, content = str(address).partition(",")
        try:
            if not head.startswith("data:"):
                return await self._from_label_studio(str(address))
            if len(content) * 3 // 4 > self.settings.max_body_bytes:
                raise BodyTooLarge(TOO_LARGE.format(self.settings.max_body_bytes))
            self.take(len(found := await asyncio.to_thread(base64.b64decode, content)))
            return found
        except (KeyError, TypeError, ValueError, httpx.HTTPError, httpx.InvalidURL):
            raise InvalidParameter("expected an image that can be fetched, received none") from None

    async def _from_label_studio(self, address: str) -> bytes:
        home = httpx.URL(self.settings.labelstudio_url or "")
        url, limit = home.join(address), self.settings.max_body_bytes
        origins = {(one.scheme, one.host, one.port) for one in (home, url)}
        if not home.host or url.userinfo or len(origins) > 1:
            raise InvalidParameter("expected an image of the Label Studio in the settings")
        headers = {"Accept-Encoding": "identity", **await self._authorization(home)}
        content = bytearray()
        async with self.http.stream("GET", url, headers=headers) as response:
            if (status := response.status_code) != OK:
                raise InvalidParameter(f"expected an image, Label Studio answered with {status}")
            async for piece in response.aiter_raw():
                self.take(len(piece))
                content += piece
                if len(content) > limit:
                    raise BodyTooLarge(TOO_LARGE.format(limit))
        return bytes(content)

    async def _authorization(self, home: httpx.URL) -> dict[str, str]:
        """A legacy token is sent as it is; a personal one buys another that soon ends."""
        if not (secret := self.settings.labelstudio_token):
            return {}
        token = secret.get_secret_value()
        if token.count(".") != JWT_DOTS:
            return {"Authorization": f"Token {token}"}
        door = home.copy_with(path=f"{home.path.rstrip('/')}/api/token/refresh/")
        answer = await self.http.post(door, json={"refresh": token})
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access']}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions(Batch):
    """Answers for slices, as Label Studio wants them."""

    brush: Brush

    def finish(self, outcome: Outcome, watch: Stopwatch) -> Done:
        """One prediction: a stroke for each side, or one for all lung."""
        found, brush = outcome.segmentation, self.brush
        labels = found.labels[0]
        if found.laterality and brush.sides:
            planes = {label: labels == side for side, label in brush.sides.items()}
        elif brush.lung:
            planes = {brush.lung: labels > 0}
        else:
            raise InvalidParameter("expected a label called lung, as no sides are known here")
        height, width = outcome.scan.size
        with watch.stage("encode"):
            result = [
                {
                    "id": uuid.uuid4().hex[:ID_DIGITS],
                    "from_name": brush.name,
                    "to_name": brush.image,
                    "type": "brushlabels",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": {"format": "rle", "rle": brush_bytes(plane), "brushlabels": [label]},
                }
                for label, plane in planes.items()
                if plane.any()
            ]
        version, score = VERSION.format(outcome.model.contract), found.confidence.mean_probability
        return Done(document={"model_version": version, "score": score, "result": result})
