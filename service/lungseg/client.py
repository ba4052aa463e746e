"""Client of the service; it needs httpx and numpy alone.

>>> with Client("http://127.0.0.1:8000") as client:          # doctest: +SKIP
...     result = client.segment("slice.dcm")
...     result.mask.sum(), result.statistics["area_mm2"]
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from lungseg.answers import MASK_ENCODING, SUMMARY, File, Result, as_texts
from lungseg.core.errors import InvalidParameter, LungsegError
from lungseg.sources import Source, content_of

T = TypeVar("T")
TIMEOUT_S = 60.0
RETRIES = 4
FIRST_PAUSE_S = 0.25
"""Before the first retry; doubled before each further one."""
LONGEST_PAUSE_S = 30.0
"""A server that asks for more patience than this gets none."""
PERMANENT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""What is wrong with the request itself: no repetition mends it."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""After these no server has seen the request."""
BROKEN = 1
"""How often a request is repeated whose connection broke: it may be what ends its server."""
SCHEMES = ("http", "https")
LAST_PORT = 65535
_RETRIED = 503


class ServiceError(LungsegError, code="unknown"):
    """The service refused: HTTP status, stable code, sentence, and the id under which it logs."""

    def __init__(self, status: int, code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{detail} ({status} {code}, request {request_id})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Survives pickling, and so a pool of processes."""
        return type(self), (self.status, self.code, self.detail, self.request_id)

    @classmethod
    def of(cls, problem: Any, status: int, request_id: str = "unknown") -> ServiceError:
        """Reads a problem document, or anything that came in its place."""
        try:
            code, detail = str(problem["code"]), str(problem["detail"])
        except (KeyError, TypeError):  # from something in between, not the service
            code, detail = "unknown", f"expected an answer of lungseg, received status {status}"
        return cls(status, code, detail, request_id)


class Client:
    """Blocking client; threads may share one.

    The URL begins with ``http://`` or ``https://``; a path after the host is kept.

    A request that finds the service overloaded (503, with the pause it asks for) or not there is
    repeated ``retries`` times: answers are the same each time, so that does no harm. One whose
    connection broke is repeated once, because it may be what ended its server. ``timeout_s``
    is for connecting and for each wait for data, and ``transport`` replaces the network.
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
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise InvalidParameter("expected an API key of printable ASCII characters")
        check_url(url)
        headers = {"User-Agent": "lungseg-client"} | ({"X-API-Key": api_key} if api_key else {})
        self._retries = retries
        self._http = httpx.Client(
            base_url=url, timeout=timeout_s, headers=headers, transport=transport
        )

    def segment(self, source: Source, **parameters: Any) -> Result:
        """Segments one slice; of arrays whose intensities are HU say so by ``unit="hu"``.

        Parameters are what ``SegmentQuery`` lists, for example ``threshold``, ``spacing_mm`` and
        ``window_hu`` (pairs), ``model``, ``version``.

        Raises:
            ServiceError: the service refuses, or stays overloaded.
            httpx.TransportError: it can't be reached, or not in time.
        """
        query = {**parameters, "format": "json", "encoding": MASK_ENCODING}
        return _read(self._segment(source, query), Result.of)

    def fetch(self, source: Source, form: str, **parameters: Any) -> File:
        """As ``segment``, but asks for a file: the form is a value of ``format``."""
        response = self._segment(source, {**parameters, "format": form})
        return File(
            content=response.content,
            media_type=response.headers.get("Content-Type", ""),
            summary=_read(response, lambda found: {name: found[name] for name in SUMMARY}),
        )

    def segment_batch(
        self, sources: Sequence[Source], **parameters: Any
    ) -> list[Result | ServiceError]:
        """Segments many slices in one request, at most ``LUNGSEG_MAX_BATCH_ITEMS``.

        Returns:
            In the order of the sources a result, or the error of that slice alone.

        Raises:
            ServiceError, httpx.TransportError: the request as a whole fails.
        """
        files = [("files", (str(place), content_of(one))) for place, one in enumerate(sources)]
        if not files:
            return []
        query = {**parameters, "format": "json", "encoding": MASK_ENCODING}
        return _read(self._post("/segment/batch", query, files=files), _items)

    def models(self) -> list[dict[str, Any]]:
        """Names, versions and states of the service's models."""
        return _read(_checked(self._http.get("/models")), lambda found: found["models"])

    def _segment(self, source: Source, parameters: Mapping[str, Any]) -> httpx.Response:
        headers = {"Content-Type": "application/octet-stream"}
        return self._post("/segment", parameters, content=content_of(source), headers=headers)

    def _post(self, path: str, parameters: Mapping[str, Any], **body: Any) -> httpx.Response:
        broken = 0
        for attempt in itertools.count():
            response = None
            try:
                response = self._http.post(path, params=as_texts(parameters), **body)
            except httpx.TransportError as error:
                broken += not isinstance(error, NOT_SENT)
                if attempt >= self._retries or broken > BROKEN or isinstance(error, PERMANENT):
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
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def check_url(url: str) -> None:
    """Makes sure that a URL is one of a server.

    Raises:
        InvalidParameter: it names no host or no possible port, its scheme is neither http nor
            https, or a query or fragment follows, behind which no path could be put.
    """
    try:
        parsed = httpx.URL(url)
        plain = not parsed.query and not parsed.fragment and (parsed.port or 1) <= LAST_PORT
        if parsed.scheme in SCHEMES and parsed.host and plain:
            return
    except httpx.InvalidURL:
        pass
    raise InvalidParameter(f"expected a URL as http://127.0.0.1:8000, received {url or 'none'}")


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
    except ValueError:
        problem = None
    request_id = response.headers.get("X-Request-ID", "unknown")
    raise ServiceError.of(problem, response.status_code, request_id)


def _read(response: httpx.Response, read: Callable[[Any], T]) -> T:
    """What an answer says; ``ServiceError`` where something else than the service answered."""
    try:
        return read(json.loads(response.headers.get("X-Segmentation") or response.content))
    except (ValueError, KeyError, TypeError):
        raise ServiceError.of(None, response.status_code) from None


def _items(answer: dict[str, Any]) -> list[Result | ServiceError]:
    return [
        ServiceError.of(item["error"], item["error"]["status"], item["error"]["request_id"])
        if "error" in item
        else Result.of(item)
        for item in answer["items"]
    ]
