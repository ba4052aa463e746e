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
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from pydantic import BaseModel, ConfigDict, Field
from python_multipart.multipart import parse_options_header

from lungseg.cli.streams import named_in_errors
from lungseg.formats.dicom_attributes import parse_header
from lungseg.settings import WEB_ADDRESS

UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
MAX_ITEMS, MAX_JSON_BYTES = 100_000, 64 << 20
"""Of one search, and of one answer to it."""
JSON = {"Accept": "application/dicom+json"}
INSTANCES = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
PASSING = re.compile("timeout|unreachable|incomplete|model_changed|429|5[0-9][0-9]")
"""Codes and statuses of refusals that may be another answer later."""
STORED_BEFORE = (0x0111, 0xB00E)
"""Reasons of failure by which archives say that they have the instance already."""
_FAILED, _REASON, _STORED, _REFERENCED = "00081198", "00081197", "00081199", "00081155"


class Root(BaseModel):
    """An archive; ``docs/dicomweb.md`` says what its settings mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = Field(pattern=WEB_ADDRESS)
    ca: Path | None = None
    token_file: Path | None = None
    write: bool = False
    series: dict[str, str] = {"Modality": "CT"}
    max_bytes: int = Field(default=2 << 30, ge=1)
    timeout_s: float = Field(default=60, gt=0, allow_inf_nan=False)
    pause_s: float = Field(default=15, ge=0, allow_inf_nan=False)
    poll_s: float = Field(default=60, ge=0, allow_inf_nan=False)


class Refused(Exception):
    """No usable answer; the code quotes nothing."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the archive's answer was {code}")
        self.code = code


class Archive:
    """One root."""

    def __init__(self, root: Root) -> None:
        for name in ("httpx", "httpcore"):  # they quote URLs
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.root = root
        with named_in_errors(str(root.ca)):
            trusted = ssl.create_default_context(cafile=root.ca)
        self._http = httpx.Client(
            base_url=root.url,
            verify=trusted,
            auth=root.token_file and partial(_authorized, root.token_file),
            timeout=root.timeout_s,
            headers={"User-Agent": "lungseg", "Accept-Encoding": "identity"},
            trust_env=False,  # the file alone says who hears of patients
        )

    def search(self, path: str, query: Mapping[str, str], key: str) -> list[str]:
        """UIDs of studies, series or instances, which the key names, in order.

        Orthanc 1.10 finds no more by ModalitiesInStudy behind a limit, so none is named, and reads
        wildcards only where they are not escaped. The end is a page that brings nothing new.
        """
        found = set[str]()
        while len(found) < MAX_ITEMS:
            page = urlencode({**query, "offset": len(found)}, safe="*?,/:", quote_via=quote)
            _, content = self._answer("GET", f"{path}?{page}", headers=JSON)
            if not isinstance(listed := _parsed(content or b"[]", "bad_answer"), list):
                raise Refused("bad_answer")
            # What is no UID could lead a URL elsewhere.
            uids = filter(UID.fullmatch, (str(_value_of(item, key)) for item in listed))
            if not (fresh := {*uids} - found):
                return sorted(found)
            found |= fresh
        raise Refused("too_large")

    def retrieve(self, path: str, count: int) -> list[bytes]:
        """The files of a series, of which so many are expected."""
        response, content = self._answer("GET", path, self.root.max_bytes, headers=INSTANCES)
        _, options = parse_options_header(response.headers.get("Content-Type"))
        mark = b"\r\n--" + options.get(b"boundary", b"")
        parts = (b"\r\n" + content).split(mark)[1:]
        if len(parts) != count + 1 or not parts.pop().startswith(b"--"):
            raise Refused("incomplete")
        return [part.partition(b"\r\n\r\n")[2] for part in parts]

    def store(self, path: str, files: Sequence[bytes]) -> None:
        """Stores instances of a study; those that are there already are no errors."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
        kind = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
        response, content = self._answer("POST", path, content=body, headers=JSON | kind)
        said = _parsed(content, status := str(response.status_code))
        stored = {str(_value_of(item, _REFERENCED)) for item in _items_of(said, _STORED)}
        failed = {str(_value_of(item, _REFERENCED)): item for item in _items_of(said, _FAILED)}
        for file in files:
            uid = parse_header(file, ("SOPInstanceUID",))[0].SOPInstanceUID
            why = _value_of(failed.get(uid), _REASON)
            if uid not in stored and why not in STORED_BEFORE:
                raise Refused(f"not_stored_{f'{why:04X}' if isinstance(why, int) else status}")

    def _answer(
        self, method: str, path: str, max_bytes: int = MAX_JSON_BYTES, **request: Any
    ) -> tuple[httpx.Response, bytes]:
        """What is answered, whole; raises ``Refused`` for all that goes wrong."""
        content = bytearray()
        try:
            with self._http.stream(method, path, **request) as response:
                if not response.is_success and (method, response.status_code) != ("POST", 409):
                    raise Refused(str(response.status_code))
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > max_bytes:
                        raise Refused("too_large")
                return response, bytes(content)
        except httpx.TimeoutException:
            raise Refused("timeout") from None
        except (httpx.TransportError, UnicodeError):  # names that no host can have
            raise Refused("unreachable") from None
        except httpx.RequestError:
            raise Refused("bad_answer") from None


def _items_of(item: Any, tag: str) -> list[Any]:
    """The values of an attribute in DICOM's JSON."""
    try:
        return [*item[tag]["Value"]]
    except (KeyError, TypeError):
        return []


def _value_of(item: Any, tag: str) -> Any:
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
