"""A DICOM archive by DICOMweb (PS3.18): search, retrieve, store.

URLs are made of the root's and of UIDs alone: neither redirects nor URLs of answers are followed.
What is read has a size and a time, and neither URLs nor UIDs are written to any log.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import ssl
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

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
LONGEST_PAUSE_S = 600.0
_FAILED, _REASON, _STORED, _REFERENCED = "00081198", "00081197", "00081199", "00081155"
Item = dict[str, Any]


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
    deadline_s: float = Field(default=900, gt=0)
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
    """No usable answer: a code that quotes nothing, whether it may pass, and a pause asked for."""

    def __init__(self, code: str, *, passing: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(f"the archive's answer was {code}")
        self.code, self.passing, self.pause_s = code, passing, pause_s


class Archive:
    """One root."""

    def __init__(self, root: Root) -> None:
        for name in ("httpx", "httpcore", "python_multipart"):  # they quote URLs and content
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

    def search(self, path: str, query: Mapping[str, str], key: str) -> Iterator[tuple[str, Item]]:
        """Finds studies, series or instances, each once by the UID that the key names.

        The end is a page that brings nothing new: pages may be smaller than is asked for.
        """
        seen: set[str] = set()
        while len(seen) < MAX_ITEMS:
            page = {"limit": str(PAGE), "offset": str(len(seen))}
            found = {uid_of(item, key): item for item in self.ask(path, {**query, **page})}
            fresh = {uid: item for uid, item in found.items() if uid not in seen}
            if not fresh:
                return
            seen |= fresh.keys()
            yield from fresh.items()
        raise Refused("too_large")

    def ask(self, path: str, query: Mapping[str, str]) -> list[Item]:
        """An answer in DICOM's JSON; asks again where that may help."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._answer("GET", path, params=query, headers=JSON) as (_, chunks):
                    found = _parsed(b"".join(chunks) or b"[]", "bad_answer")
                return found if isinstance(found, list) else []
            except Refused as error:
                if not error.passing or attempt == ATTEMPTS:
                    raise
                time.sleep(self.pause_s(attempt, error.pause_s))
        raise AssertionError

    def pause_s(self, attempt: int, asked_s: float) -> float:
        """How long to wait after an attempt, the first being 1."""
        return max(asked_s, self._root.pause_s * 2 ** (attempt - 1))

    def retrieve(self, path: str, count: int) -> list[bytes]:
        """The files of a series, of which so many are expected."""
        parts = list[bytearray]()
        called: Any = {
            "on_part_begin": lambda: parts.append(bytearray()),
            "on_part_data": lambda data, start, end: parts[-1].extend(data[start:end]),  # pyright: ignore[reportUnknownLambdaType]
            "on_end": lambda: parts.append(bytearray()),
        }
        most = self._root.max_bytes
        with self._answer("GET", path, most, headers=INSTANCES) as (response, chunks):
            _, options = parse_options_header(response.headers.get("Content-Type"))
            parser = MultipartParser(options.get(b"boundary", b"-"), called)
            for chunk in chunks:
                parser.write(chunk)
        if len(parts) != count + 1:  # the last is the end
            raise Refused("incomplete", passing=True)
        return [bytes(part) for part in parts[:-1]]

    def store(self, path: str, files: Sequence[bytes]) -> None:
        """Stores instances of a study; those that are there already are no errors."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {"Content-Type": kind, **JSON}
        with self._answer("POST", path, content=body, headers=headers) as (response, chunks):
            status = str(response.status_code)
            said = _parsed(b"".join(chunks), status)
        stored = {str(value_of(item, _REFERENCED)) for item in items_of(said, _STORED)}
        failed = {str(value_of(item, _REFERENCED)): item for item in items_of(said, _FAILED)}
        for file in files:
            uid = parse_header(file, ("SOPInstanceUID",))[0].SOPInstanceUID
            why = value_of(failed.get(uid), _REASON)
            if uid not in stored and why not in STORED_BEFORE:
                raise Refused(f"not_stored_{f'{why:04X}' if isinstance(why, int) else status}")

    @contextmanager
    def _answer(
        self, method: str, path: str, max_bytes: int = MAX_JSON_BYTES, **request: Any
    ) -> Generator[tuple[httpx.Response, Iterator[bytes]]]:
        """What is answered, piece by piece; raises ``Refused`` for all that goes wrong."""
        try:
            with self._http.stream(method, path, **request) as response:
                code = response.status_code
                if not response.is_success and (method, code) != ("POST", 409):
                    asked = response.headers.get("Retry-After", "")
                    pause_s = min(LONGEST_PAUSE_S, float(asked) if asked.isdecimal() else 0.0)
                    raise Refused(str(code), passing=is_passing(code), pause_s=pause_s)
                yield response, self._pieces(response, max_bytes)
        except httpx.TimeoutException:
            raise Refused("timeout", passing=True) from None
        except httpx.TransportError:
            raise Refused("unreachable", passing=True) from None
        except (FormParserError, httpx.RequestError):
            raise Refused("bad_answer") from None

    def _pieces(self, response: httpx.Response, max_bytes: int) -> Iterator[bytes]:
        until, count = time.monotonic() + self._root.deadline_s, 0
        for chunk in response.iter_bytes():
            count += len(chunk)
            if count > max_bytes:
                raise Refused("too_large")
            if time.monotonic() > until:
                raise Refused("timeout", passing=True)
            yield chunk


def is_passing(status: int) -> bool:
    """Whether a refusal may be another one later."""
    return status == int(httpx.codes.TOO_MANY_REQUESTS) or status >= 500


def items_of(item: Any, tag: str) -> list[Any]:
    """The values of an attribute in DICOM's JSON."""
    attribute = item.get(tag) if isinstance(item, dict) else None
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def value_of(item: Any, tag: str) -> Any:
    """The first of them; None where there is none."""
    return next(iter(items_of(item, tag)), None)


def uid_of(item: Any, tag: str) -> str:
    """A UID of an answer, which may be put into a URL."""
    uid = str(value_of(item, tag))
    if not UID.fullmatch(uid):
        raise Refused("bad_answer")
    return uid


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
