"""Calls of a server: repeated where that helps, refusals as one kind of error.

It needs httpx alone, and knows nothing of what is asked.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx

from lungseg.core.errors import InvalidParameter, LungsegError

Progress = Callable[[str, int, int], object]
"""Hears (stage, done, total); what it raises ends the work."""
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
_STEP, _PROBLEM = '{"stage":', '{"error":'
"""What lines of progress begin with, and one that says why there is no answer."""


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


class Answer(NamedTuple):
    """What came for a request that succeeded."""

    status: int
    headers: httpx.Headers
    content: bytes
    """Of lines of progress, the last one, which is the answer."""


class Calls:
    """Blocking calls of one server, repeated where that helps; threads may share them."""

    def __init__(self, http: httpx.Client, retries: int) -> None:
        self._http = http
        self._retries = retries

    def get(self, path: str) -> Answer:
        """Asks once.

        Raises:
            ServiceError, httpx.TransportError: it is refused, or nobody can be reached.
        """
        return _checked(_answer(self._http.get(path)))

    def post(
        self,
        path: str,
        parameters: Mapping[str, str],
        *,
        progress: Progress | None = None,
        **body: Any,
    ) -> Answer:
        """Sends a body, again where the service was overloaded or not there.

        Args:
            path: below the address.
            parameters: of the query.
            progress: hears the answer's lines of progress.
            body: as httpx takes it, with headers and timeout.

        Raises:
            ServiceError, httpx.TransportError: it is refused, or nobody can be reached.
        """
        broken = 0
        for attempt in itertools.count():
            answer = None
            try:
                with self._http.stream("POST", path, params=parameters, **body) as response:
                    answer = _answer(response, progress)
            except httpx.TransportError as error:
                broken += not isinstance(error, NOT_SENT)
                if attempt >= self._retries or broken > BROKEN or isinstance(error, PERMANENT):
                    raise
            pause_s = _pause_s(answer, attempt, self._retries)
            if answer is not None and pause_s is None:
                return _checked(answer)
            time.sleep(pause_s or 0.0)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()


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


def _answer(response: httpx.Response, progress: Progress | None = None) -> Answer:
    """Receives what is still to come."""
    if progress is None or not response.is_success:
        return Answer(response.status_code, response.headers, response.read())
    last = ""
    for line in response.iter_lines():
        last = line
        if line.startswith(_STEP):
            step = json.loads(line)
            progress(step["stage"], step["done"], step["total"])
    if not last.startswith(_PROBLEM):
        return Answer(response.status_code, response.headers, last.encode())
    problem = json.loads(last)["error"]
    return Answer(problem["status"], response.headers, json.dumps(problem).encode())


def _pause_s(answer: Answer | None, attempt: int, retries: int) -> float | None:
    """Seconds until the next attempt; None when this is the answer."""
    if answer is not None and (answer.status != _RETRIED or attempt >= retries):
        return None
    backoff_s = FIRST_PAUSE_S * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    asked_s = float(asked) if asked.isdecimal() else 0.0
    if asked_s > LONGEST_PAUSE_S:
        return None
    return min(LONGEST_PAUSE_S, max(backoff_s, asked_s))


def _checked(answer: Answer) -> Answer:
    """The answer itself, unless it is a problem."""
    if httpx.codes.is_success(answer.status):
        return answer
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = None
    request_id = answer.headers.get("X-Request-ID", "unknown")
    raise ServiceError.of(problem, answer.status, request_id)
