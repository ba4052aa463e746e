"""What callers see through the gateway: TLS, keys, limits, request ids, problems."""

import http.client
import ssl
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lungseg.settings import Settings
from tests.container.stack import KEY, Stack

pytestmark = pytest.mark.container


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"], body["title"]


def test_a_slice_is_segmented_through_tls_with_a_key(stack: Stack, png: bytes) -> None:
    """The certificate is verified, the key is hashed in the service's file."""
    with stack.client() as client:
        answer = client.post("/segment", files={"file": ("slice.png", png)})
    assert answer.status_code == 200
    assert answer.json()["statistics"]["pixels"] > 1000
    assert answer.json()["mask"]["size"] == [320, 384]


def test_without_a_key_the_problem_is_401(stack: Stack, png: bytes) -> None:
    """The service's own problem passes the gateway untouched."""
    with stack.client(headers={}) as client:
        missing = client.post("/segment", content=png)
        wrong = client.post("/segment", content=png, headers={"Authorization": "Bearer nonsense"})
        probe = client.get("/readyz")
    assert problem(missing)[:2] == problem(wrong)[:2] == (401, "unauthorized")
    assert probe.status_code == 200


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/segment", Settings().max_body_bytes + 1),
        ("/v2/models/lung-unet/infer", Settings().max_body_bytes + 1),
        ("/segment/batch", Settings().max_batch_bytes + 1),
    ],
)
def test_a_body_beyond_the_limit_is_413_before_it_is_sent(
    stack: Stack, path: str, size: int
) -> None:
    """Only the length is announced; the answer comes at once and in the form of its path."""
    context = ssl.create_default_context(cafile=str(stack.folder / "certs" / "gateway.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", stack.https, context=context, timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(size))
    connection.putheader("X-API-Key", KEY)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == 413
    assert '"error"' in body if path.startswith("/v2") else '"code":"body_too_large"' in body


def test_a_body_without_a_length_is_counted(stack: Stack) -> None:
    """Chunks beyond the limit end in 413, whoever counts them first."""
    chunks = (bytes(1024 * 1024) for _ in range(65))
    with stack.client() as client:
        answer = client.post("/segment", content=chunks)
    assert problem(answer)[:2] == (413, "body_too_large")


def test_too_many_requests_of_one_client_are_429(stack: Stack) -> None:
    """A burst beyond 100 is refused with Retry-After; probes are not counted."""
    with stack.client(headers={}) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.get("/models"), range(400)))
        probes = list(pool.map(lambda _: client.get("/livez"), range(50)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {401, 429}
    assert problem(refused[0]) == (429, "rate_limited", "Too Many Requests")
    assert refused[0].headers["retry-after"] == "1"
    assert {probe.status_code for probe in probes} == {200}


def test_a_request_id_is_passed_on_or_made(stack: Stack) -> None:
    """Only harmless ids are taken."""
    with stack.client() as client:
        taken = client.get("/readyz", headers={"X-Request-ID": "ris-42.a_b"})
        made = client.get("/readyz", headers={"X-Request-ID": "two words"})
        own = client.get("/metrics", headers={"X-Request-ID": "ris-43"})
    assert taken.headers["x-request-id"] == "ris-42.a_b"
    assert made.headers["x-request-id"].isalnum()
    assert problem(own)[:2] == (404, "not_found")
    assert own.headers["x-request-id"] == "ris-43"


def test_metrics_stay_inside_and_every_answer_has_security_headers(stack: Stack) -> None:
    """/metrics is for Prometheus in the inner network; headers come once."""
    with stack.client() as client:
        inner, docs = client.get("/metrics"), client.get("/docs")
    assert (inner.status_code, docs.status_code) == (404, 200)
    for answer in (inner, docs):
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers.get_list("x-frame-options") == ["DENY"]
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_plain_http_is_sent_to_tls(stack: Stack) -> None:
    """308 keeps the method; nothing is answered in the clear."""
    answer = httpx.post(f"http://127.0.0.1:{stack.http}/segment?format=png", content=b"x")
    assert answer.status_code == 308
    assert answer.headers["location"].endswith(":8443/segment?format=png")


def test_logs_of_the_gateway_hold_no_query_and_no_key(stack: Stack, png: bytes) -> None:
    """What a caller may have filled with a name stays out."""
    with stack.client() as client:
        client.post("/segment?model=DOE-JOHN", files={"file": ("DOE^JOHN.png", png)})
    logs = stack.logs()
    assert '"path":"/segment"' in logs
    assert "DOE" not in logs
    assert KEY not in logs
