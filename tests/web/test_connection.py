"""What bounds a request before it is one, and how connections end: over sockets, byte by byte."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import PATIENCE_S, Running, running, wait_until

LIMIT = 4096
"""Bytes of headers that the small service takes."""
FIELDS = 20


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[Running]:
    """A service with small limits for headers, and a key that nobody here has."""
    limits = {"max_header_bytes": LIMIT, "max_header_fields": FIELDS}
    with running(models, api_keys="a-key", **limits) as started:
        yield started


@pytest.fixture(scope="module")
def hasty(models: Path) -> Iterator[Running]:
    """A service that waits for nothing long."""
    with running(models, header_timeout_s=0.2, deadline_s=1.0) as started:
        yield started


@contextlib.contextmanager
def connected(service: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_S) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Everything until the server ends the connection; a reset fails."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def asked(service: Running, request: bytes) -> bytes:
    with connected(service) as connection:
        connection.sendall(request)
        return rest(connection)


def check(answer: bytes, status: int, code: str) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    lines = head.decode().lower().split("\r\n")
    assert f"x-request-id: {problem['request_id']}" in lines
    assert "x-content-type-options: nosniff" in lines
    assert "cache-control: no-store" in lines
    return problem


def get(path: str = "/livez", **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(path: str = "/segment") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def test_headers_are_bounded_to_the_byte_before_any_key_is_looked_at(small: Running) -> None:
    """One field of any length, the address, and fields that never end."""
    exact = get(a="x" * (LIMIT - len(get(a=""))))
    assert len(exact) == LIMIT
    with connected(small) as connection:
        connection.sendall(exact)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    for request in (
        get(a="x" * (LIMIT - len(get(a="")) + 1)),
        get("/" + "x" * LIMIT),
        b"GET / HTTP/1.1\r\nA: " + b"x" * 10 * LIMIT,
        b"G" * 10 * LIMIT,
    ):
        answer = asked(small, request)
        assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), answer[:80]
    check(asked(small, b"GET / HTTP/1.1\r\nA: " + b"x" * 10 * LIMIT), 431, "headers_too_large")


def test_the_number_of_fields_is_bounded(small: Running) -> None:
    """So is what comes in one read with its end."""
    names = {f"a{index}": "1" for index in range(FIELDS - 1)}
    with connected(small) as connection:
        connection.sendall(get(**names))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    check(asked(small, get(**names, more="1")), 431, "headers_too_large")


def test_what_is_refused_unread_has_the_callers_id_and_is_counted(
    small: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """As every other answer has; its line in the log names no method and no path."""
    caplog.set_level(logging.INFO)
    sent = {"X-Request-ID": "mine"} | {f"a{index}": "1" for index in range(FIELDS)}
    answer = asked(small, get(**sent))
    assert check(answer, 431, "headers_too_large")["request_id"] == "mine"
    assert b"\r\nconnection: close\r\n" in answer.lower()
    counted = 'lungseg_requests_total{code="headers_too_large",route="unrouted",status="431"}'
    assert counted in small.client.get("/metrics").text
    lines = [record.fields for record in caplog.records if record.name == "lungseg.access"]
    (line,) = [line for line in lines if line["request_id"] == "mine"]
    assert (line["method"], line["route"], line["status"]) == ("", "unrouted", 431)
    assert line["bytes_out"] == len(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "behind",
    [b"0\r\nA: " + b"x" * 3 * LIMIT, b"1;" + b"x" * 3 * LIMIT, b"0\r\n" + b"A: b\r\n" * LIMIT],
)
def test_trailers_and_chunk_extensions_are_bounded(models: Path, behind: bytes) -> None:
    """They are the request's own, so its layers answer."""
    with running(models, max_header_bytes=LIMIT) as service:
        check(asked(service, chunked() + b"1\r\nx\r\n" + behind), 431, "headers_too_large")


def test_trailers_are_no_headers(small: Running) -> None:
    """A key that comes behind the body opens nothing."""
    answer = asked(
        small,
        chunked("/v2/models/standin/infer")
        + b"1\r\nx\r\n0\r\nX-API-Key: a-key\r\n\r\n"
        + get(Connection="close"),
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.count(b"HTTP/1.1 200 ") == 1


def test_headers_have_to_come_in_time(hasty: Running) -> None:
    """However much comes meanwhile; who says nothing at all is not answered."""
    check(asked(hasty, b"GET / HTTP/1.1\r\nA: b\r\n"), 408, "headers_too_slow")
    check(asked(hasty, b"GE"), 408, "headers_too_slow")
    assert asked(hasty, b"") == b""
    with connected(hasty) as connection:
        connection.sendall(get())
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += connection.recv(4096)
        connection.sendall(b"\r\n")  # between requests these are allowed, and keep nothing open
        check(rest(connection), 408, "headers_too_slow")


def test_a_body_that_nobody_reads_any_more_has_to_end_in_time(hasty: Running) -> None:
    """The answer is there at once; the connection does not stay for the rest."""
    with connected(hasty) as connection:
        connection.sendall(chunked("/nowhere") + b"1\r\nx\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 404 ")


def test_a_slow_body_is_bounded_by_the_deadline(hasty: Running) -> None:
    """As a slow queue is."""
    with connected(hasty) as connection:
        connection.sendall(chunked() + b"1\r\nx\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 504 ")


def test_who_takes_nothing_of_his_answer_is_let_go(hasty: Running) -> None:
    """An answer that stands in the buffers is not held for ever."""
    open_ = hasty.server.server_state.connections
    hasty.client.get("/livez")  # its connection is kept
    others = len(open_)
    with connected(hasty) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(get("/openapi.json") * 200)
        wait_until(lambda: len(open_) > others)
        wait_until(lambda: len(open_) == others)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"no HTTP at all\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunked() + b"zz\r\n",
        chunked() + b"-1\r\nx",
    ],
)
def test_malformed_http_is_a_problem_document(service: Running, request_: bytes) -> None:
    """Also where the body's framing is what is wrong."""
    check(asked(service, request_), 400, "malformed_request")


def test_what_is_behind_a_good_request_does_not_harm_its_answer(service: Running) -> None:
    """A pipelined request that is malformed ends the connection, after the answers before it."""
    answer = asked(service, get("/models") + b"no HTTP at all\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"models"' in answer


def test_headers_behind_a_body_are_bounded_as_others_are(service: Running) -> None:
    """Also where a large body's end and they come in one read."""
    body = b"x" * 20_000
    request = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    behind = get(a="x" * 80_000, Connection="close")
    assert asked(service, request + body + behind).count(b"HTTP/1.1 ") == 1


def test_pipelined_requests_are_answered_in_turn(service: Running) -> None:
    """As many as come, while few of them are held."""
    answer = asked(service, get("/livez") * 2000 + get("/models", Connection="close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2001


def test_a_client_that_ends_its_side_gets_its_answer(service: Running, grey_png: bytes) -> None:
    """Half-closed after one request, or after several."""
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(grey_png)}\r\n\r\n".encode()
    for count in (1, 3):
        with connected(service) as connection:
            connection.sendall((head + grey_png) * count)
            connection.shutdown(socket.SHUT_WR)
            answer = rest(connection)
        assert answer.count(b"HTTP/1.1 200 OK") == count
        assert answer.count(b'"counts"') == count


def test_a_client_that_ends_its_side_waits_as_long_as_others(models: Path, grey_png: bytes) -> None:
    """Meanwhile it is told to go on, by which the service learns that it is still there."""
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(grey_png)}\r\n\r\n".encode()
    with running(models, workers=1) as service, connected(service) as connection:
        with service.busy(1):
            connection.sendall(head + grey_png)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = rest(connection).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_ends_its_side_and_leaves_frees_its_place(
    models: Path, grey_png: bytes
) -> None:
    """The second of the words that it is sent is answered by a reset."""
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(grey_png)}\r\n\r\n"
    with running(models, workers=1) as service, service.busy(1):
        with connected(service) as connection:
            connection.sendall(head.encode() + grey_png)
            connection.shutdown(socket.SHUT_WR)
            wait_until(lambda: service.state.workers.waiting == 1)
        wait_until(lambda: service.state.workers.waiting == 0)


def test_a_request_that_breaks_off_is_truncated(service: Running) -> None:
    """In its headers and in its body, where the client still listens."""
    for request in (
        b"GET / HTTP/1.1\r\nA: b",
        b"POST /segment HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
    ):
        with connected(service) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            check(rest(connection), 400, "malformed_request")


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(service: Running, grey_png: bytes, protocol: str) -> None:
    """An offer to upgrade is ignored, with what goes with it; bodies and later requests count."""
    offer = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAA"
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\n{offer}\r\n".encode()
    size = f"{len(grey_png):x}\r\n".encode()
    whole = head + f"Content-Length: {len(grey_png)}\r\n\r\n".encode() + grey_png
    pieces = head + b"Transfer-Encoding: chunked\r\n\r\n" + size + grey_png + b"\r\n0\r\n\r\n"
    bodiless = head.replace(b"POST /segment", b"GET /livez") + b"\r\n"
    answer = asked(service, bodiless + whole + pieces + whole + get(Connection="close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.count(b'"counts"') == 3
