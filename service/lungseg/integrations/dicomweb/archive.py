"""A DICOM archive by DICOMweb (PS3.18): search, retrieve, store.

URLs are made of the root's and of UIDs alone: neither redirects nor URLs of answers are followed.
What is read has a size, and neither URLs nor UIDs are written to any log.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator
from python_multipart.multipart import parse_options_header

from lungseg.calling import check_url
from lungseg.core.errors import InvalidParameter
from lungseg.formats.dicom_attributes import parse_header

UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
ATTEMPTS = 5
PAGE, MAX_ITEMS = 100, 100_000
"""Items asked for at a time, and of one search."""
MAX_JSON_BYTES = 64 << 20
JSON = {"Accept": "application/dicom+json"}
INSTANCES = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
STORED_BEFORE = (0x0111, 0xB00E)
"""Reasons of failure by which archives say that they have the instance already."""
_FAILED, _REASON, _STORED, _REFERENCED = "00081198", "00081197", "00081199", "00081155"


class Root(BaseModel):
    """An archive; ``docs/dicomweb.md`` says what its settings mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    ca: Path | None = None
    token_file: Path | None = None
    read: bool = True
    write: bool = False
    series: dict[str, str] = {"Modality": "CT"}
    max_bytes: int = Field(default=2 << 30, ge=1)
    timeout_s: float = Field(default=60, gt=0)
    pause_s: float = Field(default=15, ge=0)
    poll_s: float = Field(default=60, ge=0)

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        try:
            check_url("" if "@" in url else url)
        except InvalidParameter:
            raise ValueError("expected http[s]://host/path, with neither user nor query") from None
        return url


class Refused(Exception):
    """No usable answer: a code that quotes nothing, and whether it may pass."""

    def __init__(self, code: str, *, passing: bool = False) -> None:
        super().__init__(f"the archive's answer was {code}")
        self.code, self.passing = code, passing


class Archive:
    """One root."""

    def __init__(self, root: Root) -> None:
        for name in ("httpx", "httpcore"):  # they quote URLs
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._root = root
        self._http = httpx.Client(
            base_url=root.url,
            verify=ssl.create_default_context(cafile=root.ca),
            auth=root.token_file and partial(_authorized, root.token_file),
            timeout=root.timeout_s,
            headers={"User-Agent": "lungseg", "Accept-Encoding": "identity"},
            trust_env=False,  # the file alone says who hears of patients
        )

    def search(self, path: str, query: Mapping[str, str], key: str) -> dict[str, Any]:
        """Finds studies, series or instances, by the UID that the key names.

        The end is a page that brings nothing new: pages may be smaller than is asked for.
        """
        found = dict[str, Any]()
        while len(found) < MAX_ITEMS:
            page = self._page(path, {**query, "limit": str(PAGE), "offset": str(len(found))})
            items = {str(value_of(item, key)): item for item in page}
            # What is no UID could lead a URL elsewhere.
            fresh = {uid: item for uid, item in items.items() if UID.fullmatch(uid)}
            if fresh.keys() <= found.keys():
                return found
            found |= fresh
        raise Refused("too_large")

    def _page(self, path: str, query: Mapping[str, str]) -> list[Any]:
        """Items in DICOM's JSON; asks again where that may help."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _, content = self._answer("GET", path, params=query, headers=JSON)
                items = _parsed(content or b"[]", "bad_answer")
                return items if isinstance(items, list) else []
            except Refused as error:
                if not error.passing or attempt == ATTEMPTS:
                    raise
                time.sleep(self.pause_s(attempt))
        raise AssertionError

    def pause_s(self, attempt: int) -> float:
        """How long to wait after an attempt, the first being 1."""
        return self._root.pause_s * 2 ** (attempt - 1)

    def retrieve(self, path: str, count: int) -> list[bytes]:
        """The files of a series, of which so many are expected."""
        response, content = self._answer("GET", path, self._root.max_bytes, headers=INSTANCES)
        _, options = parse_options_header(response.headers.get("Content-Type"))
        mark = b"\r\n--" + options.get(b"boundary", b"")
        _, *parts, end = (b"\r\n" + content).split(mark)
        if len(parts) != count or not end.startswith(b"--"):
            raise Refused("incomplete", passing=True)
        return [part.partition(b"\r\n\r\n")[2] for part in parts]

    def store(self, path: str, files: Sequence[bytes]) -> None:
        """Stores instances of a study; those that are there already are no errors."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {"Content-Type": kind, **JSON}
        response, content = self._answer("POST", path, content=body, headers=headers)
        said = _parsed(content, status := str(response.status_code))
        stored = {str(value_of(item, _REFERENCED)) for item in _items_of(said, _STORED)}
        failed = {str(value_of(item, _REFERENCED)): item for item in _items_of(said, _FAILED)}
        for file in files:
            uid = parse_header(file, ("SOPInstanceUID",))[0].SOPInstanceUID
            why = value_of(failed.get(uid), _REASON)
            if uid not in stored and why not in STORED_BEFORE:
                raise Refused(f"not_stored_{f'{why:04X}' if isinstance(why, int) else status}")

    def _answer(
        self, method: str, path: str, max_bytes: int = MAX_JSON_BYTES, **request: Any
    ) -> tuple[httpx.Response, bytes]:
        """What is answered, whole; raises ``Refused`` for all that goes wrong."""
        content = bytearray()
        try:
            with self._http.stream(method, path, **request) as response:
                code = response.status_code
                if not response.is_success and (method, code) != ("POST", 409):
                    raise Refused(str(code), passing=is_passing(code))
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > max_bytes:
                        raise Refused("too_large")
                return response, bytes(content)
        except httpx.TimeoutException:
            raise Refused("timeout", passing=True) from None
        except httpx.TransportError:
            raise Refused("unreachable", passing=True) from None
        except httpx.RequestError:
            raise Refused("bad_answer") from None


def is_passing(status: int) -> bool:
    """Whether a refusal may be another one later."""
    return status == int(httpx.codes.TOO_MANY_REQUESTS) or status >= 500


def _items_of(item: Any, tag: str) -> list[Any]:
    """The values of an attribute in DICOM's JSON."""
    attribute = item.get(tag) if isinstance(item, dict) else None
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def value_of(item: Any, tag: str) -> Any:
    """The first of them; None where there is none."""
    return next(iter(_items_of(item, tag)), None)


def _parsed(content: bytes, code: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Refused(code) from None


def _authorized(file: Path, request: httpx.Request) -> httpx.Request:
    """With what a file holds at the time: a bearer token, or a scheme and its credentials."""
    words = file.read_text(encoding="latin-1").split()
    request.headers["Authorization"] = " ".join(["Bearer"] * (len(words) == 1) + words)
    return request
