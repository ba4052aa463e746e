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
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from lungseg.answers import MASK_ENCODING, File, Result, Source, as_texts, content_of
from lungseg.core.errors import LungsegError

TIMEOUT_S = 60.0
RETRIES = 4
FIRST_PAUSE_S = 0.25
"""Before the first retry; doubled before each further one."""
LONGEST_PAUSE_S = 30.0
"""A server that asks for more patience than this gets none."""
_RETRIED = 503


class ServiceError(LungsegError, code="unknown"):
    """The service refused.

    Attributes:
        status: HTTP status.
        code: stable name of the problem, such as ``not_ct``.
        request_id: under which the service's log tells more.
    """

    def __init__(self, status: int, code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{detail} ({status} {code}, request {request_id})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id

    @classmethod
    def of(cls, problem: Any, status: int, request_id: str = "unknown") -> ServiceError:
        """Reads a problem document, or anything that came in its place."""
        try:
            code, detail = str(problem["code"]), str(problem["detail"])
        except (KeyError, TypeError):  # from something in between, not the service
            code, detail = "unknown", f"the server answered {status}"
        return cls(status, code, detail, request_id)


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
        return Result.of(self._segment(source, query).json())

    def fetch(self, source: Source, form: str, **parameters: Any) -> File:
        """As ``segment``, but asks for a file: the form is a value of ``format``."""
        response = self._segment(source, {**parameters, "format": form})
        in_header = response.headers.get("X-Segmentation")
        return File(
            content=response.content,
            media_type=response.headers.get("Content-Type", ""),
            summary=json.loads(in_header) if in_header else response.json(),
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
        files = [
            ("files", (str(index), content_of(source))) for index, source in enumerate(sources)
        ]
        query = {**parameters, "format": "json", "encoding": MASK_ENCODING}
        items = self._post("/segment/batch", query, files=files).json()["items"]
        return [
            ServiceError.of(item["error"], item["error"]["status"], item["error"]["request_id"])
            if "error" in item
            else Result.of(item)
            for item in items
        ]

    def models(self) -> list[dict[str, Any]]:
        """Names, versions and states of the service's models."""
        return _checked(self._http.get("/models")).json()["models"]

    def _segment(self, source: Source, parameters: Mapping[str, Any]) -> httpx.Response:
        headers = {"Content-Type": "application/octet-stream"}
        return self._post("/segment", parameters, content=content_of(source), headers=headers)

    def _post(self, path: str, parameters: Mapping[str, Any], **body: Any) -> httpx.Response:
        for attempt in itertools.count():
            response = None
            try:
                response = self._http.post(path, params=as_texts(parameters), **body)
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
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


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
