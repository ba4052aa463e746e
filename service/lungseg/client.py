"""Client of the service; it needs httpx and numpy alone.

>>> with Client("http://127.0.0.1:8000") as client:          # doctest: +SKIP
...     result = client.segment("slice.dcm")
...     result.mask.sum(), result.statistics["area_mm2"]
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx
import numpy as np

from lungseg.answers import (
    COMPARISON,
    LABELS_FORM,
    MASK_ENCODING,
    SUMMARY,
    VOLUME_SUMMARY,
    File,
    Result,
    VolumeResult,
    as_texts,
)
from lungseg.calling import (
    RETRIES,
    TIMEOUT_S,
    Answer,
    Calls,
    Progress,
    ServiceError,
    check_url,
)
from lungseg.core.errors import InvalidParameter
from lungseg.sources import Source, VolumeSource, content_of, files_of

T = TypeVar("T")
VOLUME_WAIT_S = 330.0
"""A volume waits in silence behind others: as long as the service's deadline, 300 s by default."""
_OF_ANY_TYPE = {"Content-Type": "application/octet-stream"}


class Client:
    """Blocking client; threads may share one.

    The URL begins with ``http://`` or ``https://``; a path after the host is kept.

    A request that finds the service overloaded (503, with the pause it asks for) or not there is
    repeated ``retries`` times: answers are the same each time, so that does no harm. One whose
    connection broke is repeated once, because it may be what ended its server. ``timeout_s``
    is for connecting and for each wait for data, of volumes ``VOLUME_WAIT_S`` where that is more,
    and ``transport`` replaces the network.
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
        http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers, transport=transport)
        self._volume_timeout = httpx.Timeout(timeout_s, read=max(timeout_s, VOLUME_WAIT_S))
        self._calls = Calls(http, retries)

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
        answer = self._calls.post("/segment/batch", as_texts(query), files=files)
        return _read(answer, _items)

    def compare(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
        """What changed between two volumes of one patient, by their JSON answers.

        Raises:
            ServiceError, httpx.TransportError: it is refused, or nobody can be reached.
        """
        content = json.dumps({"before": dict(before), "after": dict(after)}).encode()
        headers = {"Content-Type": "application/json"}
        answer = self._calls.post("/compare", {}, content=content, headers=headers)
        return _read(answer, lambda found: {name: found[name] for name in COMPARISON})

    def models(self) -> list[dict[str, Any]]:
        """Names, versions and states of the service's models."""
        return _read(self._calls.get("/models"), lambda found: found["models"])

    def segment_volume(
        self, source: VolumeSource, *, progress: Progress | None = None, **parameters: Any
    ) -> VolumeResult:
        """Segments one volume: a folder, a file or the files of a series, bytes, or an array.

        Parameters are what ``VolumeQuery`` lists, for example ``series``, ``threshold``, ``unit``,
        ``spacing_mm`` (three numbers), ``model`` and ``version``. To ``save`` anything but JSON,
        the service is asked again; ``fetch_volume`` spares that.

        Args:
            source: the volume, with whatever lies beside it; all of it is sent.
            progress: hears ("read" | "decode" | "segment", done, total).
            parameters: what is asked.

        Raises:
            OSError: a file cannot be read.
            ServiceError: the service refuses, or stays overloaded.
            httpx.TransportError: it can't be reached, or not in time.
        """
        found = self.fetch_volume(source, LABELS_FORM, progress=progress, **parameters)

        def fetch(form: str) -> File:
            if form == LABELS_FORM:
                return found
            if form != "json":
                return self.fetch_volume(source, form, **parameters)
            content = json.dumps(found.summary).encode()
            return File(content=content, media_type="application/json", summary=found.summary)

        with np.load(io.BytesIO(found.content)) as arrays:
            labels = arrays["labels"]
        return VolumeResult(labels=labels, answer=found.summary, fetch=fetch)

    def fetch_volume(
        self,
        source: VolumeSource,
        form: str,
        *,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> File:
        """As ``segment_volume``, but asks for a file: the form is a value of ``format``."""
        contents = [content_of(file) for file in files_of(source)]
        body: dict[str, Any] = {"headers": {"Accept": "application/x-ndjson"}}
        if len(contents) == 1:
            body["content"] = contents[0]
            body["headers"] |= _OF_ANY_TYPE
        else:
            body["files"] = [("files", (str(place), one)) for place, one in enumerate(contents)]
        query = as_texts({**parameters, "format": form})
        body |= {"timeout": self._volume_timeout, "progress": progress or _silent}
        return _read(self._calls.post("/segment/volume", query, **body), _volume_file)

    def _segment(self, source: Source, parameters: Mapping[str, Any]) -> Answer:
        content = content_of(source)
        return self._calls.post(
            "/segment", as_texts(parameters), content=content, headers=_OF_ANY_TYPE
        )

    def close(self) -> None:
        """Closes the connections."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _read(answer: Answer, read: Callable[[Any], T]) -> T:
    """What an answer says; ``ServiceError`` where something else than the service answered."""
    try:
        return read(json.loads(answer.headers.get("X-Segmentation") or answer.content))
    except (ValueError, KeyError, TypeError):
        raise ServiceError.of(None, answer.status) from None


def _items(answer: dict[str, Any]) -> list[Result | ServiceError]:
    return [
        ServiceError.of(item["error"], item["error"]["status"], item["error"]["request_id"])
        if "error" in item
        else Result.of(item)
        for item in answer["items"]
    ]


def _volume_file(answer: dict[str, Any]) -> File:
    """The file of a volume's last line, or JSON, which is the line itself."""
    described = {name: answer[name] for name in VOLUME_SUMMARY}
    if "file" not in answer:
        content = json.dumps(described).encode()
        return File(content=content, media_type="application/json", summary=described)
    file = answer["file"]
    content = base64.b64decode(file["base64"], validate=True)
    return File(content=content, media_type=file["media_type"], summary=described)


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Hears of progress and does nothing."""
