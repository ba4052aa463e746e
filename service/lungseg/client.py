"""Client of the service, blocking and asynchronous; it needs httpx and numpy alone.

>>> with Client("http://127.0.0.1:8000") as client:          # doctest: +SKIP
...     result = client.segment("slice.dcm")
...     result.mask.sum(), result.statistics["area_mm2"]
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

TIMEOUT_S = 60.0
RETRIES = 4
FIRST_PAUSE_S = 0.25
"""Before the first retry; doubled before each further one."""
LONGEST_PAUSE_S = 30.0
"""A server that asks for more patience than this gets none."""
_RETRIED = 503

Source = str | os.PathLike[str] | bytes | bytearray | memoryview
"""A path, or the content of a file."""


class ServiceError(Exception):
    """The service refused.

    Attributes:
        status: HTTP status.
        code: stable name of the problem, such as ``not_ct``.
        request_id: under which the service's log tells more.
    """

    def __init__(self, status: int, code: str, detail: str, request_id: str) -> None:
        """Takes the members of the problem document."""
        super().__init__(f"{detail} ({status} {code}, request {request_id})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer for one slice.

    Attributes:
        mask: True = lung, bool, shape (height, width) of the slice.
        statistics: areas, intensities, densities, in all and per lung; None = unknown.
        confidence: mean probability and share of uncertain pixels.
        flags: codes of the reasons to look twice.
        image: size, media type, intensity unit and spacing as the service read them.
        model: name, version and digest of the model that answered.
        request_id: of this request.
        timings_ms: where the time went.
    """

    mask: NDArray[np.bool_]
    statistics: dict[str, Any]
    confidence: dict[str, Any]
    flags: tuple[str, ...]
    image: dict[str, Any]
    model: dict[str, Any]
    request_id: str
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An answer that is a file: a picture, an array, a DICOM segmentation.

    Attributes:
        content: its bytes.
        media_type: what they are.
        summary: model, image, statistics, confidence and quality, as in the JSON answer.
    """

    content: bytes
    media_type: str
    summary: dict[str, Any]


class Client:
    """Blocking client; threads may share one.

    Args:
        url: of the service, for example ``http://127.0.0.1:8000``.
        api_key: where the service asks for one.
        timeout_s: for connecting and for each wait for data.
        retries: how often a request is repeated that found the service overloaded (503, with
            the pause it asks for) or not there. Answers are the same each time, so a repetition
            does no harm.
        transport: replaces the network.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._retries = retries
        self._http = httpx.Client(
            base_url=url, timeout=timeout_s, headers=_headers(api_key), transport=transport
        )

    def segment(self, source: Source, **parameters: Any) -> Result:
        """Segments one slice.

        Args:
            source: a path or the content of a file.
            **parameters: ``threshold``, ``spacing_mm`` and ``window_hu`` (pairs),
                ``largest_components``, ``allow_non_ct``, ``model``, ``version``.

        Raises:
            ServiceError: the service refuses, or stays overloaded.
            httpx.TransportError: it can't be reached, or not in time.
        """
        query = {**parameters, "format": "json", "encoding": "coco_rle_uncompressed"}
        return _result(self._post(source, query))

    def fetch(self, source: Source, form: str, **parameters: Any) -> File:
        """As ``segment``, but asks for a file: the form is a value of ``format``."""
        return _file(self._post(source, {**parameters, "format": form}))

    def models(self) -> list[dict[str, Any]]:
        """Names, versions and states of the service's models."""
        return _checked(self._http.get("/models")).json()["models"]

    def _post(self, source: Source, parameters: dict[str, Any]) -> httpx.Response:
        content, query = _content(source), _query(parameters)
        for attempt in itertools.count():
            response = None
            try:
                response = self._http.post("/segment", content=content, params=query)
            except httpx.TransportError:
                if attempt >= self._retries:
                    raise
            pause_s = _pause_s(response, attempt, self._retries)
            if response is not None and pause_s is None:
                return _checked(response)
            time.sleep(pause_s or 0.0)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Closes when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient:
    """Asynchronous client; see ``Client`` for arguments, methods and errors."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See ``Client``."""
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=url, timeout=timeout_s, headers=_headers(api_key), transport=transport
        )

    async def segment(self, source: Source, **parameters: Any) -> Result:
        """See ``Client.segment``."""
        query = {**parameters, "format": "json", "encoding": "coco_rle_uncompressed"}
        return _result(await self._post(source, query))

    async def fetch(self, source: Source, form: str, **parameters: Any) -> File:
        """See ``Client.fetch``."""
        return _file(await self._post(source, {**parameters, "format": form}))

    async def models(self) -> list[dict[str, Any]]:
        """See ``Client.models``."""
        return _checked(await self._http.get("/models")).json()["models"]

    async def _post(self, source: Source, parameters: dict[str, Any]) -> httpx.Response:
        content = await asyncio.to_thread(_content, source)
        for attempt in itertools.count():
            response = None
            try:
                response = await self._http.post(
                    "/segment", content=content, params=_query(parameters)
                )
            except httpx.TransportError:
                if attempt >= self._retries:
                    raise
            pause_s = _pause_s(response, attempt, self._retries)
            if response is not None and pause_s is None:
                return _checked(response)
            await asyncio.sleep(pause_s or 0.0)
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Closes when the block ends."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/octet-stream", "User-Agent": "lungseg-client"}
    return headers | ({"X-API-Key": api_key} if api_key else {})


def _content(source: Source) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    return Path(source).read_bytes()


def _query(parameters: dict[str, Any]) -> dict[str, str]:
    """Pairs as ``a,b``, truth values as JSON writes them, None left out."""
    query: dict[str, str] = {}
    for name, value in parameters.items():
        if isinstance(value, bool):
            query[name] = "true" if value else "false"
        elif isinstance(value, tuple | list):
            query[name] = ",".join(str(part) for part in value)
        elif value is not None:
            query[name] = str(value)
    return query


def _pause_s(response: httpx.Response | None, attempt: int, retries: int) -> float | None:
    """Seconds until the next attempt; None when the response is the answer."""
    if response is not None and (response.status_code != _RETRIED or attempt >= retries):
        return None
    backoff_s = FIRST_PAUSE_S * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    asked_s = float(asked) if asked.isdecimal() else 0.0
    if asked_s > LONGEST_PAUSE_S:
        return None
    return min(LONGEST_PAUSE_S, max(backoff_s, asked_s))


def _checked(response: httpx.Response) -> httpx.Response:
    """The response itself, unless it is a problem."""
    if response.is_success:
        return response
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):  # from something in between, not the service
        code, detail = "unknown", f"the server answered {response.status_code}"
    request_id = response.headers.get("X-Request-ID", "unknown")
    raise ServiceError(response.status_code, code, detail, request_id)


def _result(response: httpx.Response) -> Result:
    answer = response.json()
    height, width = answer["mask"]["size"]
    counts = np.asarray(answer["mask"]["counts"], np.int64)
    flat = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    return Result(
        mask=flat.reshape(width, height).T,  # column-major
        statistics=answer["statistics"],
        confidence=answer["confidence"],
        flags=tuple(flag["code"] for flag in answer["quality"]["flags"]),
        image=answer["image"],
        model=answer["model"],
        request_id=answer["request_id"],
        timings_ms=answer["timings_ms"],
    )


def _file(response: httpx.Response) -> File:
    media_type = response.headers.get("Content-Type", "")
    in_header = response.headers.get("X-Segmentation")
    summary = json.loads(in_header) if in_header else response.json()
    return File(content=response.content, media_type=media_type, summary=summary)
