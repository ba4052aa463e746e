"""A DICOM archive by DICOMweb (PS3.18): search, retrieve, store.

Every URL is made of the root's and of UIDs: no redirect and no URL of an answer is followed. What
is read has a size and a time, and neither URLs nor UIDs are written to any log.
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
from pathlib import Path
from typing import Any

import httpx
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lungseg.formats.dicom_attributes import parse_header
from lungseg.integrations.dicomweb.roots import Root

UID = re.compile("[0-9.]{1,64}")
PAGE = 100
MAX_ITEMS = 100_000
"""Of one search."""
MAX_JSON_BYTES = 64 << 20
JSON = "application/dicom+json"
INSTANCES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_FAILED, _REASON, _STORED, _REFERENCED = "00081198", "00081197", "00081199", "00081155"
STORED_BEFORE = (0x0111, 0xB00E)
"""Failure reasons by which archives say that they have the instance already."""
LONGEST_PAUSE_S = 600.0
"""An archive that asks for more patience than this is asked again after it all the same."""
_LOGGERS = ("httpx", "httpcore", "python_multipart")
Item = dict[str, Any]


def is_passing(status: int) -> bool:
    """Whether a refusal may be another one later."""
    return status == int(httpx.codes.TOO_MANY_REQUESTS) or status >= 500


class Refused(Exception):
    """No usable answer: a code that quotes nothing, whether it may pass, and a pause asked for."""

    def __init__(self, code: str, *, passing: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(f"the archive's answer was {code}")
        self.code = code
        self.passing = passing
        self.pause_s = pause_s


class Archive:
    """One root."""

    def __init__(self, root: Root) -> None:
        for name in _LOGGERS:  # they would write URLs, and so UIDs, and pieces of content
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._root = root
        self._http = httpx.Client(
            base_url=root.url,
            verify=ssl.create_default_context(cafile=root.ca),
            auth=None if root.token_file is None else _Token(root.token_file),
            timeout=root.timeout_s,
            headers={"User-Agent": "lungseg", "Accept-Encoding": "identity"},
            trust_env=False,  # the file alone says who hears of patients
        )

    def search(self, path: str, query: Mapping[str, str], key: str) -> Iterator[Item]:
        """Finds studies, series or instances, page by page, each once by its UID.

        The end is a page that brings nothing new: pages may be smaller than is asked for.
        """
        seen: set[str] = set()
        while len(seen) < MAX_ITEMS:
            page = {"limit": str(PAGE), "offset": str(len(seen))}
            found = {uid_of(item, key): item for item in self._json(path, {**query, **page})}
            fresh = found.keys() - seen
            yield from (found[uid] for uid in found if uid in fresh)
            if not fresh:
                return
            seen |= fresh
        raise Refused("too_large")

    def metadata(self, study: str, series: str) -> list[Item]:
        """All attributes of the instances of a series but bulk data."""
        return self._json(f"/studies/{study}/series/{series}/metadata", {})

    def retrieve(self, study: str, series: str, count: int) -> list[bytes]:
        """The files of a series, of which so many are expected."""
        parts: list[bytes] = []
        part = bytearray()

        def finish() -> None:
            parts.append(bytes(part))
            part.clear()

        path, headers = f"/studies/{study}/series/{series}", {"Accept": INSTANCES}
        with self._answer("GET", path, self._root.max_bytes, headers=headers) as answer:
            _, options = parse_options_header(answer[0].headers.get("Content-Type"))
            if b"boundary" not in options:
                raise Refused("bad_answer")
            parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_data": lambda data, start, end: part.extend(data[start:end]),
                    "on_part_end": finish,
                },
            )
            for chunk in answer[1]:
                parser.write(chunk)
        if len(parts) != count:
            raise Refused("incomplete", passing=True)
        return parts

    def store(self, study: str, files: Sequence[bytes]) -> None:
        """Stores instances; those that are there already are no errors."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {"Content-Type": kind, "Accept": JSON}
        with self._answer(
            "POST", f"/studies/{study}", MAX_JSON_BYTES, content=body, headers=headers
        ) as (response, chunks):
            said = _parsed(b"".join(chunks), str(response.status_code))
        answer = said if isinstance(said, dict) else {}
        stored = {value_of(item, _REFERENCED) for item in items_of(answer, _STORED)}
        failed = {
            value_of(item, _REFERENCED): value_of(item, _REASON)
            for item in items_of(answer, _FAILED)
        }
        for file in files:
            header, _ = parse_header(file, ("SOPInstanceUID",))
            why = failed.get(header.SOPInstanceUID)
            if header.SOPInstanceUID not in stored and why not in STORED_BEFORE:
                known = f"{why:04X}" if isinstance(why, int) else response.status_code
                raise Refused(f"not_stored_{known}")

    def _json(self, path: str, query: Mapping[str, str]) -> list[Item]:
        headers = {"Accept": JSON}
        with self._answer("GET", path, MAX_JSON_BYTES, params=query, headers=headers) as answer:
            content = b"".join(answer[1])
        found = _parsed(content or b"[]", "bad_answer")
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise Refused("bad_answer")
        return found

    @contextmanager
    def _answer(
        self, method: str, path: str, max_bytes: int, **request: Any
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
        until = time.monotonic() + self._root.deadline_s
        count = 0
        for chunk in response.iter_bytes():
            count += len(chunk)
            if count > max_bytes:
                raise Refused("too_large")
            if time.monotonic() > until:
                raise Refused("timeout", passing=True)
            yield chunk


class _Token(httpx.Auth):
    """Sends what a file holds at the time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        words = self._file.read_text(encoding="ascii").split()
        request.headers["Authorization"] = " ".join(["Bearer"] * (len(words) == 1) + words)
        yield request


def value_of(item: Item, tag: str) -> Any:
    """The first value of an attribute in DICOM's JSON; None where there is none."""
    return next(iter(items_of(item, tag)), None)


def items_of(item: Item, tag: str) -> list[Any]:
    """The values of an attribute in DICOM's JSON."""
    attribute = item.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def uid_of(item: Item, tag: str) -> str:
    """A UID of an answer, which may be put into a URL."""
    uid = str(value_of(item, tag))
    if not UID.fullmatch(uid):
        raise Refused("bad_answer")
    return uid


def _parsed(content: bytes, code: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise Refused(code) from None
