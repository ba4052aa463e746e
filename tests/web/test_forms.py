"""Forms and compressed bodies: what is in them is used whole, or refused by name."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib

import httpx
import pytest

from lungseg.web.form import split_form
from tests.web.test_errors import check

BOTH = pytest.mark.parametrize(
    ("path", "part"), [("/segment", "file"), ("/segment/batch", "files")]
)


def test_fields_say_what_parameters_would(client: httpx.Client, grey_png: bytes) -> None:
    """Each of them, as ``curl -F`` sends it; where the address says it too, that wins."""
    fields = {"threshold": "0.25", "spacing_mm": "0.5,0.7", "encoding": "none", "version": "1"}
    files = {"file": ("a.png", grey_png)}

    def found(answer: httpx.Response) -> dict[str, object]:
        document = answer.json()
        return {name: document[name] for name in ("model", "image", "mask", "statistics")}

    asked = found(client.post("/segment", params=fields, content=grey_png))
    assert found(client.post("/segment", data=fields, files=files)) == asked
    wins = {**fields, "threshold": "0.9", "model": "standin"}
    assert found(client.post("/segment?threshold=.25", data=wins, files=files)) == asked
    png = client.post("/segment", data={"format": "png"}, files=files)
    assert png.headers["content-type"] == "image/png"
    assert png.content == client.post("/segment?format=png", content=grey_png).content
    json_ = client.post("/segment?format=json", data={"format": "png"}, files=files)
    assert json_.headers["content-type"] == "application/json"


def test_fields_of_a_batch_say_what_parameters_would(client: httpx.Client, grey_png: bytes) -> None:
    """Its own form of answers among them, whatever Accept prefers."""
    files = [("files", ("a.png", grey_png)), ("files", ("b.png", grey_png))]
    sent = {"format": "ndjson", "encoding": "none"}
    answer = client.post(
        "/segment/batch", data=sent, files=files, headers={"Accept": "application/zip"}
    )
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["mask"]["encoding"] for line in lines] == ["none", "none"]


@BOTH
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"threshold": "2"}, "threshold"),
        ({"format": "gif"}, "format"),
        ({"threshold": ""}, "threshold"),
        ({"spacing_mm": ["0.7", "0.7"]}, "spacing_mm"),
        ({"threshold": [".3", ".3"]}, "threshold"),
        ({"largest_components": "²"}, "largest_components"),
        ({"Doe": "1"}, "another"),
        ({"threshold": "0." + "3" * 1023}, "1024 bytes"),
        ({"threshold": b"\xff"}, "UTF-8"),
    ],
)
def test_wrong_fields_are_refused_as_parameters_are(
    client: httpx.Client, grey_png: bytes, path: str, part: str, fields: dict, named: str
) -> None:
    """By name where the name is ours; unknown ones and their values are not repeated."""
    answer = client.post(path, data=fields, files=[(part, ("a.png", grey_png))])
    detail = str(check(answer, "invalid_parameter")["detail"])
    assert named in detail
    assert "Doe" not in detail


@BOTH
def test_forms_have_room_for_sixteen_fields_of_1024_bytes(
    client: httpx.Client, grey_png: bytes, path: str, part: str
) -> None:
    """A field may be as long as that, and of too many parts none is looked at."""
    files = [(part, ("a.png", grey_png))]
    longest = {"threshold": "0." + "3" * 1022}
    assert client.post(path, data=longest, files=files).status_code == 200
    fields = dict.fromkeys(map(str, range(16)), "x")
    most = 1 if part == "file" else 64
    more = [(part, ("a.png", b"x"))] * most
    check(client.post(path, data=fields, files=more), "invalid_parameter")
    answer = client.post(path, data=fields, files=[*more, (part, ("a.png", b"x"))])
    assert f"at most {16 + most} form parts" in check(answer, "too_many_items")["detail"]


def test_names_of_headers_and_types_are_of_any_case(client: httpx.Client, grey_png: bytes) -> None:
    """As HTTP and MIME have it."""
    part = b'--x\r\ncontent-DISPOSITION: form-data; name="file"\r\n\r\n' + grey_png
    headers = {"Content-Type": "Multipart/Form-Data; BOUNDARY=x"}
    answer = client.post("/segment", content=part + b"\r\n--x--\r\n", headers=headers)
    assert answer.status_code == 200


def test_a_single_slice_is_one_part(client: httpx.Client, grey_png: bytes) -> None:
    """Of several, none is chosen in silence."""
    files = [("file", ("a.png", grey_png)), ("file", ("b.png", grey_png))]
    problem = check(client.post("/segment", files=files), "malformed_request")
    assert problem["detail"] == "expected one form part named file, received 2"


@BOTH
@pytest.mark.parametrize("query", ["spacing_mm=0.7&spacing_mm=0.7", "threshold=.3&threshold=.4"])
def test_a_parameter_that_is_given_twice_is_refused_by_name(
    client: httpx.Client, grey_png: bytes, path: str, part: str, query: str
) -> None:
    """Two numbers are one value with a comma, not two values."""
    files = [(part, ("a.png", grey_png))]
    detail = str(check(client.post(f"{path}?{query}", files=files), "invalid_parameter")["detail"])
    assert query.partition("=")[0] in detail


def test_parameters_that_are_given_twice_are_named_in_the_order_of_the_documentation(
    client: httpx.Client, grey_png: bytes
) -> None:
    """The same mistake has the same sentence, however its parts are ordered."""
    twice = ["format=json&format=json", "threshold=.3&threshold=.4"]
    details = {
        check(client.post(f"/segment?{'&'.join(given)}", content=grey_png), "invalid_parameter")[
            "detail"
        ]
        for given in (twice, twice[::-1])
    }
    assert details == {"threshold, format: expected once, received several times"}


def test_a_field_may_name_the_model(client: httpx.Client, grey_png: bytes) -> None:
    """One that is not there is refused as in the address."""
    files = {"file": ("a.png", grey_png)}
    check(client.post("/segment", data={"model": "other"}, files=files), "unknown_model")


@BOTH
def test_wrong_names_of_parts_are_told(
    client: httpx.Client, grey_png: bytes, path: str, part: str
) -> None:
    """Bounded, and without anything but letters."""

    def detail(*names: str) -> str:
        files = [(name, ("a.png", grey_png)) for name in names]
        return str(check(client.post(path, files=files), "malformed_request")["detail"])

    assert f"named {part}, received 'image'" in detail("image")
    assert f"received '{part}', 'image'" in detail(part, "image")
    many = detail(*(f"x{index}" for index in range(8)))
    assert many.endswith("'x6', 'x7'")
    assert detail(*(f"x{index}" for index in range(9))) == f"{many}, others"
    assert detail("y" * 50).endswith(f" '{'y' * 40}'")
    assert "\n" not in detail("a\nb")
    assert "é" not in detail("é" * 50)
    assert len(detail(*(f"{index}" + "x" * 5000 for index in range(10)))) < 500
    empty = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post(path, content=b"--x--\r\n", headers=empty)
    assert answer.status_code == 400


def test_a_part_that_looks_like_boundaries_is_whole() -> None:
    """However often the parser thinks that a boundary begins."""
    content = b"\r\n-\r\n--\r\n--x\r\n--bounD" * 50_000
    body = b'--bound\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + content
    (part,) = split_form(body + b"\r\n--bound--\r\n", "multipart/form-data; boundary=bound", 1)
    assert bytes(part.content) == content


def deflated(content: bytes) -> bytes:
    return zlib.compress(content)


def post(client: httpx.Client, body: bytes, encoding: str) -> httpx.Response:
    return client.post("/segment", content=body, headers={"Content-Encoding": encoding})


def test_gzip_of_several_members_is_read_whole(client: httpx.Client, grey_png: bytes) -> None:
    """As ``cat a.gz b.gz``, bgzip and pigz write it."""
    cuts = [0, 1, 100, 100, len(grey_png)]
    body = b"".join(gzip.compress(grey_png[start:end]) for start, end in itertools.pairwise(cuts))
    asked = client.post("/segment?format=png", content=grey_png).content
    most = body + gzip.compress(b"") * (16_384 - len(cuts) + 1)
    for content in (body, most):
        answer = client.post(
            "/segment?format=png", content=content, headers={"Content-Encoding": "x-gzip"}
        )
        assert answer.content == asked


def test_what_is_behind_a_compressed_body_is_refused(client: httpx.Client, grey_png: bytes) -> None:
    """Nothing of a body is dropped in silence, and no number of streams keeps a thread."""
    packed = gzip.compress(grey_png)
    for body, encoding in (
        (packed + b"x", "gzip"),
        (packed + bytes(8), "gzip"),
        (packed + packed[:20], "gzip"),
        (packed + gzip.compress(b"") * 16_384, "gzip"),
        (deflated(grey_png) + b"x", "deflate"),
        (deflated(grey_png) + deflated(b"x"), "deflate"),
        (b"", "gzip"),
    ):
        check(post(client, body, encoding), "malformed_request")
    check(post(client, gzip.compress(packed), "gzip, gzip"), "unsupported_media_type")
    headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "br")]
    answer = client.post("/segment", content=packed, headers=headers)
    check(answer, "unsupported_media_type")


@pytest.mark.parametrize("encodings", ["gzip, identity", ", Identity,gzip ,", "identity"])
def test_what_changes_nothing_is_no_encoding(
    client: httpx.Client, grey_png: bytes, encodings: str
) -> None:
    """Wherever a proxy put it in the list, in one header or in two."""
    body = gzip.compress(grey_png) if "gzip" in encodings else grey_png
    headers = [("Content-Encoding", "identity"), ("Content-Encoding", encodings)]
    assert client.post("/segment", content=body, headers=headers).status_code == 200


def test_every_route_undoes_the_encoding(client: httpx.Client, grey_png: bytes) -> None:
    """Also those that compute nothing."""
    headers = {"Content-Encoding": "gzip"}
    index = client.post(
        "/v2/repository/index", content=gzip.compress(b'{"ready": true}'), headers=headers
    )
    assert [entry["name"] for entry in index.json()] == ["standin"]
    wanted = gzip.compress(b'{"parameters": {"version": "9"}}')
    load = client.post("/v2/repository/models/standin/load", content=wanted, headers=headers)
    assert load.status_code == 404
    for path in ("index", "models/standin/load", "models/standin/unload"):
        answer = client.post(f"/v2/repository/{path}", content=b"{}", headers=headers)
        assert answer.status_code == 400
