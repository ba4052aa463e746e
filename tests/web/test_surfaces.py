"""Each API has its own rules, and a new one is a new value: no layer knows any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import iter_route_contexts

from lungseg.app import SURFACES, create_app
from lungseg.formats.archive import write_archive
from lungseg.web.body import compute
from lungseg.web.errors import PROBLEMS
from lungseg.web.surface import ELSEWHERE, Surface, Surfaces
from tests.serving import Running, running, settings

KEY = {"X-API-Key": "secret"}
PAGE = "https://viewer.example"
ALWAYS = {
    "X-Request-ID": "mine",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every answer, the id being the caller's."""
LAYERS = Path(__file__).parents[2] / "service" / "lungseg" / "web" / "layers"


def upper() -> Surface:
    """An API of its own making: it answers in capitals, wants no key and at most 10 bytes."""
    router = APIRouter()

    @router.post("/upper")
    async def write(request: Request) -> Response:
        return await compute(request, lambda body: Response(body.upper()))

    @router.get("/upper/bug")
    async def fail() -> Response:
        raise ZeroDivisionError("Doe^John")  # the words of a file

    def shout(code: str, detail: str, _request_id: str) -> Response:
        assert "Doe" not in detail
        return PlainTextResponse(f"NO: {code.upper()}", PROBLEMS[code][0])

    return Surface(
        prefixes=("/upper",),
        router=router,
        render=shout,
        body_limit=lambda _settings: 10,
        needs_key=False,
        takes="slices",
    )


@pytest.fixture(scope="module")
def guarded(models: Path) -> Iterator[Running]:
    """A service with keys, for the pages of one origin, and with one more API."""
    changes = {"api_keys": "secret", "cors_origins": PAGE, "workers": 1, "queue_size": 0}
    with running(models, surfaces=(*SURFACES, upper()), **changes) as started:
        yield started


def test_a_new_surface_brings_its_own_rules(guarded: Running) -> None:
    """Error shape, limit, key and admission hold where no layer was touched for it."""
    client = guarded.client
    assert client.post("/upper", content=b"abc").text == "ABC"
    for content in (b"x" * 11, iter([b"x" * 6, b"x" * 6])):
        answer = client.post("/upper", content=content)
        assert (answer.status_code, answer.text) == (413, "NO: BODY_TOO_LARGE")
    packed = client.post("/upper", content=b"x", headers={"Content-Encoding": "br"})
    assert (packed.status_code, packed.text) == (415, "NO: UNSUPPORTED_MEDIA_TYPE")
    nowhere = client.get("/upper/nowhere")
    assert (nowhere.status_code, nowhere.text) == (404, "NO: NOT_FOUND")
    assert client.get("/upper").text == "NO: METHOD_NOT_ALLOWED"
    bug = client.get("/upper/bug")
    assert (bug.status_code, bug.text) == (500, "NO: INTERNAL_ERROR")
    for path in ("/livez/", "/models/"):
        assert client.get(path, headers=KEY).status_code == 404  # and leads nowhere else
    with guarded.busy(1):
        full = client.post("/upper", content=b"abc")
        assert (full.status_code, full.text) == (503, "NO: OVERLOADED")
        assert int(full.headers["retry-after"]) >= 1
    refused = 'lungseg_requests_total{code="overloaded",route="/upper",status="503"} 1.0'
    assert refused in client.get("/metrics").text


def test_every_answer_forbids_to_keep_it_and_to_guess_its_type(
    guarded: Running, grey_png: bytes
) -> None:
    """Answers, refusals of every layer and bugs alike: they may hold a patient's data."""
    mine = {"X-Request-ID": "mine"}
    asked = (
        ("POST", "/segment", 200, KEY, grey_png),
        ("POST", "/segment?format=png", 200, KEY, grey_png),
        ("POST", "/segment/batch?format=ndjson", 200, KEY, write_archive({"a.png": grey_png})),
        ("POST", "/v2/models/standin/infer", 400, KEY, b"{}"),
        ("GET", "/models/standin/versions/1/card", 200, KEY, b""),
        ("GET", "/metrics", 200, {}, b""),
        ("HEAD", "/livez", 200, {}, b""),
        ("GET", "/openapi.json", 200, {}, b""),
        ("GET", "/docs-files/swagger-ui.css", 200, {}, b""),
        ("GET", "/models", 401, {}, b""),
        ("GET", "/nowhere", 404, KEY, b""),
        ("GET", "/segment", 405, KEY, b""),
        ("POST", "/upper", 413, {}, b"x" * 11),
        ("POST", "/segment", 415, KEY, b"no slice"),
        ("POST", "/segment?threshold=2", 422, KEY, grey_png),
        ("GET", "/upper/bug", 500, {}, b""),
    )
    for method, path, status, headers, content in asked:
        answer = guarded.client.request(method, path, headers=mine | headers, content=content)
        assert answer.status_code == status, path
        found = {name: answer.headers.get_list(name) for name in ALWAYS}
        assert found == {name: [value] for name, value in ALWAYS.items()}, path
        assert "server" not in answer.headers


def test_a_bug_is_logged_by_its_places_and_answered_without_them(
    guarded: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """What the exception says may quote a file: it is in no answer and in no line of the log."""
    guarded.client.get("/upper/bug?Doe^John", headers={"X-Request-ID": "why"})
    (record,) = [record for record in caplog.records if record.name == "lungseg.errors"]
    assert (record.getMessage(), record.levelname, record.exc_info) == ("bug", "ERROR", None)
    assert record.fields["request_id"] == "why"
    assert record.fields["error"] == "ZeroDivisionError"
    assert re.fullmatch(r"/.*test_surfaces\.py:\d+ in fail", record.fields["places"][-1])
    assert "Doe" not in "".join(str(vars(record)) for record in caplog.records)


def test_every_route_lies_below_a_prefix_of_its_own_surface(models: Path) -> None:
    """Else it would have the rules of another one."""
    surfaces = Surfaces(members=SURFACES)
    app = create_app(settings(models))
    paths = [route.path for route in iter_route_contexts(app.routes) if route.path]
    owners = {path: surfaces.owner({"path": re.sub(r"\{.*?\}", "x", path)}) for path in paths}
    assert not [path for path, owner in owners.items() if owner is ELSEWHERE]
    for surface in SURFACES:
        if surface.router:
            own = {route.path for route in iter_route_contexts(surface.router.routes)}
            family = [s.render for s in map(owners.__getitem__, own)]
            assert set(family) == {surface.render}


def test_the_longest_whole_prefix_owns_a_path() -> None:
    """``/segmentation`` is not below ``/segment``, and a gateway's path does not count."""
    surfaces = Surfaces(members=SURFACES, root_path="/lungs")

    def label(path: str) -> str:
        return surfaces.owner({"path": path}).label

    assert label("/segment") == label("/segment/") == label("/lungs/segment") == "/segment"
    assert label("/segment/batch") == "/segment/batch"
    assert label("/v2/models/a/infer") == "/v2"
    assert label("/v2/repository/index") == "/v2/repository"
    assert label("/") == label("/lungs") == "/"
    assert label("/segmentation") == label("/nowhere") == "unrouted"


@pytest.mark.parametrize("root", ["/segment", "/models", "/v2", "/l", "/seg"])
def test_a_root_path_that_looks_like_an_api_opens_nothing(
    models: Path, grey_png: bytes, root: str
) -> None:
    """Whose rules hold is decided by the path that is routed, whatever the prefix is called."""
    with running(models, api_keys="secret", root_path=root, ready=False) as service:
        client = service.client
        client.headers["Accept"] = "application/json"
        for prefix in ("", root):
            assert client.get(f"{prefix}/livez").status_code == 200
            closed = [client.post(f"{prefix}/segment/batch", content=grey_png)]
            closed += [client.post(f"{prefix}/segment", content=grey_png)]
            closed += [client.get(f"{prefix}/models"), client.get(f"{prefix}/v2")]
            # A prefix that a gateway may have left there is the root, where nothing computes.
            assert {answer.status_code for answer in closed} <= {401, 404, 405, 200}
            for answer in closed:
                assert answer.status_code != 200 or "notice" in answer.json()
        assert client.get(f"{root}/").json()["notice"]


def test_an_unknown_place_is_not_told_apart_without_a_key(guarded: Running) -> None:
    for path in ("/nowhere", "//models", "/segmentx", "//"):
        assert httpx.get(f"{guarded.url}{path}").status_code == 401


def test_unknown_places_keep_the_form_of_their_api(client: httpx.Client) -> None:
    """Below ``/v2`` an error is the protocol's, wherever else a problem."""
    assert list(client.get("/v2/nowhere").json()) == ["error"]
    assert client.get("/segment/nowhere").json()["code"] == "not_found"


def test_what_holds_no_data_is_open(guarded: Running) -> None:
    """The page, its files and the document need no key, and offer to enter one."""
    client = guarded.client
    page = client.get("/docs")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    for path in ("/", "/docs", "/openapi.json", "/livez", "/v2/health/live", *files):
        assert client.get(path).status_code == 200, path
    document = client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["api_key"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    assert {"api_key": []} in document["security"]
    for path in ("/models", "/v2", "/v2/models/standin", "/nowhere", "/docsx", "/segment"):
        assert client.get(path).status_code == 401, path
    assert client.post("/v2/repository/index").status_code == 401
    assert client.get("/models", headers=KEY).status_code == 200


def test_the_root_says_what_this_is(client: httpx.Client) -> None:
    """To programs, with links that lead somewhere and the limits that hold."""
    answer = client.get("/", headers={"Accept": "application/json"})
    assert answer.headers["vary"] == "Accept"
    found = answer.json()
    assert (found["name"], found["needs_key"]) == ("lungseg", False)
    assert found["limits"]["max_body_bytes"] == settings(Path()).max_body_bytes
    assert found["notice"].startswith("Research use only")
    assert set(found["links"]) == {"docs", "openapi", "models", "health"}
    assert [client.get(path).status_code for path in found["links"].values()] == [200] * 4


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/models", "/models/standin/versions/1/card", "/docs", "/openapi.json"]
)
def test_head_is_get_without_a_body(client: httpx.Client, path: str) -> None:
    """The same status and headers; the time and the id are of each request."""
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for answer in (head, get):
        del answer.headers["x-request-id"]
        answer.headers.pop("date", None)
    assert head.headers == get.headers


def test_head_has_no_operation_and_no_place_where_get_has_none(client: httpx.Client) -> None:
    """Clients are generated without it."""
    assert client.head("/segment").status_code == 405
    assert client.delete("/livez").headers["allow"] == "GET, HEAD"
    assert client.head("/nowhere").status_code == 404
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]


def test_pages_of_the_origins_named_may_call(guarded: Running, grey_png: bytes) -> None:
    """A preflight needs no key; answers, refusals and bugs alike, can be read."""
    client = guarded.client
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "x-api-key,content-type"
    preflight = client.options("/segment", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "x-api-key" in preflight.headers["access-control-allow-headers"].lower()
    assert client.options("/segment", headers={**asked, "Origin": "https://x"}).status_code == 400
    asked["Access-Control-Request-Method"] = "HEAD"
    assert client.options("/models", headers=asked).status_code == 200
    origin = {"Origin": PAGE}
    answers = (
        client.post("/segment?format=png", content=grey_png, headers=KEY | origin),
        client.post("/segment", content=grey_png, headers=origin),
        client.get("/upper/bug", headers=origin),
    )
    assert [answer.status_code for answer in answers] == [200, 401, 500]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert exposed == {
            "X-Request-ID",
            "X-Segmentation",
            "Server-Timing",
            "Retry-After",
            "Inference-Header-Content-Length",
        }
    other = client.get("/", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_no_page_may_call_where_none_is_named(client: httpx.Client) -> None:
    """Without the setting there is no CORS."""
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    assert client.options("/segment", headers=asked).status_code == 405
    assert not [name for name in client.get("/", headers=asked).headers if "access" in name]


def test_no_layer_names_a_path() -> None:
    """A path in quotes would be a rule that belongs to a surface."""
    for file in LAYERS.glob("*.py"):
        assert not re.findall(r"[\"']/\w+", file.read_text(encoding="utf-8")), file.name
