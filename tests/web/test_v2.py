"""Open Inference Protocol v2: Triton's own client, and JSON by hand."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from lungseg.web import json_object
from lungseg.web.surfaces.v2 import codec
from tests.conftest import encode
from tests.serving import Running, running
from tests.standin import expected, write_bundle
from training.synthetic.phantom import Phantom

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tritonclient"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
INFER = "/v2/models/standin/infer"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 255, (2, 256, 256, 1)).astype(np.float32)


@pytest.fixture
def client_v2(service: Running) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
    yield client
    client.close()


def tensor(module: object, images: np.ndarray, *, binary: bool = True) -> object:
    made = triton.InferInput("image", list(images.shape), "FP32")
    made.set_data_from_numpy(images, binary_data=binary)
    return made


def document(images: np.ndarray, **changes: object) -> dict[str, object]:
    made = {"name": "image", "shape": list(images.shape), "datatype": "FP32"}
    return {"id": "42", "inputs": [{**made, "data": images.ravel().tolist(), **changes}]}


def test_tritons_client_sees_health_and_metadata(client_v2: triton.InferenceServerClient) -> None:
    assert client_v2.is_server_live()
    assert client_v2.is_server_ready()
    assert client_v2.is_model_ready("standin")
    assert client_v2.is_model_ready("standin", "1")
    assert not client_v2.is_model_ready("other")
    assert "binary_tensor_data" in client_v2.get_server_metadata()["extensions"]
    described = client_v2.get_model_metadata("standin")
    assert described["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 256, 256, 1]}
    ]
    assert described["versions"] == ["1"]
    (entry,) = client_v2.get_model_repository_index()
    assert (entry["name"], entry["version"], entry["state"]) == ("standin", "1", "READY")


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritons_client_infers(
    client_v2: triton.InferenceServerClient,
    images: np.ndarray,
    packed: str | None,
    binary_in: bool,
    binary_out: bool,
) -> None:
    result = client_v2.infer(
        "standin",
        [tensor(triton, images, binary=binary_in)],
        outputs=[triton.InferRequestedOutput("mask", binary_data=binary_out)],
        request_id="seven",
        request_compression_algorithm=packed,
        response_compression_algorithm=packed,
    )
    assert np.abs(result.as_numpy("mask") - expected(images)).max() < 1e-5
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == "1"


def test_tritons_asynchronous_client_infers(service: Running, images: np.ndarray) -> None:
    async def call() -> list[np.ndarray]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
            results = await asyncio.gather(
                *(client.infer("standin", [tensor(triton_aio, images[i : i + 1])]) for i in (0, 1))
            )
            return [np.asarray(result.as_numpy("mask")) for result in results]

    found = np.concatenate(asyncio.run(call()))
    assert np.abs(found - expected(images)).max() < 1e-5


def test_tritons_client_sends_encoded_images(
    client_v2: triton.InferenceServerClient, grey_png: bytes, dicom: bytes
) -> None:
    made = triton.InferInput("image", [2], "BYTES")
    made.set_data_from_numpy(np.array([grey_png, dicom], dtype=np.object_))
    mask = client_v2.infer("standin", [made]).as_numpy("mask")
    assert mask.shape == (2, 256, 256, 1)
    assert 0.05 < (mask > 0.5).mean() < 0.95


def test_parameters_say_how_encoded_images_are_read(
    client_v2: triton.InferenceServerClient, service: Running, phantom: Phantom, dicom: bytes
) -> None:
    """An array declared HU looks to the network as the DICOM slice of the same HU does."""
    stream = io.BytesIO()
    np.save(stream, phantom.hu.astype(np.int16))
    spacing = ",".join(map(str, phantom.spacing_mm))
    declared = {"unit": "hu", "spacing_mm": spacing}
    masks = []
    for content, parameters in ((dicom, {}), (stream.getvalue(), declared)):
        made = triton.InferInput("image", [1], "BYTES")
        made.set_data_from_numpy(np.array([content], dtype=np.object_))
        answer = client_v2.infer("standin", [made], parameters=parameters)
        masks.append(answer.as_numpy("mask"))
    assert np.array_equal(*masks)
    for images, wrong in (
        (made, {"unit": "kelvin"}),
        (tensor(triton, np.zeros((1, 256, 256, 1), np.float32)), {"unit": "hu"}),
    ):
        with pytest.raises(InferenceServerException, match="unit"):
            client_v2.infer("standin", [images], parameters=wrong)


def test_tritons_client_is_told_what_is_wrong(
    client_v2: triton.InferenceServerClient, images: np.ndarray
) -> None:
    with pytest.raises(InferenceServerException, match="expected a model listed"):
        client_v2.infer("other", [tensor(triton, images)])
    small = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(InferenceServerException, match=r"expected shape \[N, 256, 256, 1\]"):
        client_v2.infer("standin", [tensor(triton, small)])


def test_json_by_hand_nested_flat_and_mixed_with_binary(
    client: httpx.Client, images: np.ndarray
) -> None:
    one = images[:1]
    for data in (one.tolist(), one.ravel().tolist()):
        answer = client.post(INFER, json=document(one, data=data)).json()
        (output,) = answer["outputs"]
        assert (answer["id"], answer["model_name"]) == ("42", "standin")
        assert output["shape"] == [1, 256, 256, 1]
        assert np.abs(np.array(output["data"]) - expected(one).ravel()).max() < 1e-5
    wanted = document(one) | {"parameters": {"binary_data_output": True}}
    answer = client.post(INFER, json=wanted)
    split = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.content[:split])
    mask = np.frombuffer(answer.content[split:], "<f4")
    assert head["outputs"][0]["parameters"]["binary_data_size"] == mask.nbytes
    assert np.abs(mask - expected(one).ravel()).max() < 1e-5
    named = wanted | {"id": "", "outputs": [{"name": "mask"}]}
    body = json.dumps(named).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    answer = client.post(INFER, content=body, headers=headers)
    split = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:split])["id"] == ""
    assert answer.content[split:] == mask.tobytes()


def test_members_that_are_null_are_as_good_as_none(
    client: httpx.Client, images: np.ndarray
) -> None:
    """Clients that print their whole data model send them."""
    one = images[:1]
    wanted = document(one, parameters=None) | dict.fromkeys(("id", "parameters"))
    for outputs in (None, [{"name": "mask", "parameters": None}]):
        answer = client.post(INFER, json=wanted | {"outputs": outputs})
        assert answer.status_code == 200, answer.text
        assert "id" not in answer.json()


def wrong_documents() -> dict[str, object]:
    one = np.zeros((1, 256, 256, 1), np.float32)
    png = base64.b64encode(encode(np.zeros((4, 5), np.uint8), "PNG")).decode()
    return {
        "list": [],
        "no input": {"inputs": []},
        "name": document(one, name="picture"),
        "dtype": document(one, datatype="FP64"),
        "shape": document(one, shape=[1, 256, 255, 1]),
        "negative shape": document(one, shape=[-1, 256, 256, 1]),
        "too many": document(one, shape=[65, 1]),
        "huge shape": document(one, shape=[1, 2**40]),
        "ragged": document(one, data=[[1], [2, 3]]),
        "strings": document(one, data=["a"]),
        "no data": document(one, data=None),
        "not finite": document(one, data=[float("nan")] * one.size),
        "a size of nothing": document(one, shape=[1, 0, 256, 1], data=[]),
        "two outputs": document(one) | {"outputs": [{"name": "mask"}] * 2},
        "shared memory of the output": document(one)
        | {"outputs": [{"name": "mask", "parameters": {"shared_memory_region": "x"}}]},
        "a blank in base64": document(
            one, datatype="BYTES", shape=[1], data=[f"{png[:8]} {png[8:]}"]
        ),
        "shared memory": document(one, parameters={"shared_memory_region": "x"}),
        "data and binary": document(one, parameters={"binary_data_size": 1}),
        "binary that is not there": document(one, data=None, parameters={"binary_data_size": 9}),
        "output name": document(one) | {"outputs": [{"name": "lungs"}]},
        "classification": document(one)
        | {"outputs": [{"name": "mask", "parameters": {"classification": 2}}]},
        "beyond FP32": document(one, data=[1e300] * one.size),
        "id": document(one) | {"id": 7},
        "bytes in JSON": document(one, datatype="BYTES", shape=[1], data=["%%%"]),
    }


@pytest.mark.parametrize("name", wrong_documents())
def test_wrong_requests_are_400_with_the_protocols_error(client: httpx.Client, name: str) -> None:
    answer = client.post(INFER, content=json.dumps(wrong_documents()[name]))
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_wrong_binary_requests_are_400(client: httpx.Client) -> None:
    made = {"name": "image", "shape": [1], "datatype": "BYTES"}
    for tail in (b"\x01", struct.pack("<I", 99) + b"x", b"\x00" * 8):
        sized = {**made, "parameters": {"binary_data_size": len(tail)}}
        head = json.dumps({"inputs": [sized]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = client.post(INFER, content=head + tail, headers=headers)
        assert answer.status_code == 400, tail
    made = {"name": "image", "shape": [1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [{**made, "parameters": {"binary_data_size": 4}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(INFER, content=head + bytes(5), headers=headers)
    assert answer.json()["error"] == "expected as many bytes as binary_data_size says"
    headers = {"Inference-Header-Content-Length": "999"}
    assert client.post(INFER, content=b"{}", headers=headers).status_code == 400
    assert client.post(INFER, content=b"\xff").status_code == 400


def test_lengths_that_are_no_lengths_are_400(client: httpx.Client) -> None:
    """Thousands of digits, signs and other digits among them."""
    for length in ("9" * 5000, "-1", "+2", "2.0", "1e400", "²", "1_0", "0x2"):
        headers = {"Inference-Header-Content-Length": length.encode("latin-1")}
        answer = client.post(INFER, content=b"{}", headers=headers)
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), length


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1e400, 1]},
        {"shape": [10**4000]},
        {"shape": [1, 2**30, 2**30, 2**30, 2**30]},
        {"shape": [1] * 100},
        {"shape": ["²"]},
        {"shape": [True]},
        {"parameters": {"binary_data_size": 10**4000}},
        {"parameters": {"binary_data_size": -1}},
        {"data": ["²"]},
        {"data": 1e400},
        {"data": {"a": 1}},
        {"datatype": "BYTES", "shape": [2], "data": "ab"},
        {"datatype": "BYTES", "shape": [1], "data": {"a": 1}},
    ],
)
def test_numbers_beyond_reason_are_400(client: httpx.Client, change: dict[str, object]) -> None:
    """In shapes, sizes and data, in whatever way they are written."""
    text = json.dumps(document(np.zeros((1, 2), np.float32), **change)).replace("Infinity", "1e400")
    answer = client.post(INFER, content=text)
    assert (answer.status_code, list(answer.json())) == (400, ["error"]), answer.text


@pytest.mark.parametrize("element", [b"[],", b"0,", b'"ab",'])
def test_values_are_counted_before_they_are_made(client: httpx.Client, element: bytes) -> None:
    """A few kilobytes of gzip become millions of objects else."""
    body = b'{"inputs": [{"data": [' + element * 5_000_000
    headers = {"Content-Encoding": "gzip"}
    answer = client.post(INFER, content=gzip.compress(body, 1), headers=headers)
    assert answer.status_code == 413
    assert "values" in answer.json()["error"]


def test_names_and_texts_are_counted_before_they_are_made(client: httpx.Client) -> None:
    """Millions of members of one object would take the interpreter for many seconds."""
    body = b"{" + b",".join(b'"%d":1' % name for name in range(5000)) + b"}"
    answer = client.post("/v2/models/standin/infer", content=body)
    assert (answer.status_code, "texts" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("nested", [False, True])
def test_large_json_lets_others_go_on(nested: bool) -> None:
    """Reading it, making its array and writing the answer; values and bytes are those of JSON."""
    values = np.random.default_rng(0).random((6, 256, 256, 1), np.float32)
    data = values.tolist() if nested else values.ravel().tolist()
    body = json.dumps(document(values, data=data)).encode()
    assert len(body) > json_object.LARGE_JSON_BYTES
    masks = np.repeat(values, 3, axis=0)
    limits = codec.Expected(input_name="image", output_name="mask", max_items=8, values=1 << 20)
    laps, done = 0, threading.Event()

    def others() -> None:
        nonlocal laps
        while not done.is_set():
            laps += 1
            time.sleep(0)  # hands the interpreter back

    other = threading.Thread(target=others)
    other.start()
    try:
        before = laps
        request = codec.parse(body, "", limits)
        read = laps
        text, _ = codec.render(request, {"model_name": "x"}, "mask", masks)
        written = laps
    finally:
        done.set()
        other.join()
    assert np.array_equal(request.images, values)
    output = {"name": "mask", "shape": [18, 256, 256, 1], "datatype": "FP32"}
    output["data"] = masks.ravel().tolist()
    assert text == json.dumps({"model_name": "x", "id": "42", "outputs": [output]}).encode()
    assert read - before >= 20
    assert written - read >= 12


def test_a_request_holds_as_many_images_as_a_batch(models: Path, grey_png: bytes) -> None:
    """Exactly so many, and so many numbers of them; one more is refused."""
    with running(models, max_batch_items=2) as service:

        def infer(count: int, **changes: object) -> httpx.Response:
            images = np.zeros((count, 256, 256, 1), np.float32)
            return service.client.post(INFER, json=document(images, **changes))

        def encoded(count: int) -> httpx.Response:
            data = [base64.b64encode(grey_png).decode()] * count
            return infer(1, datatype="BYTES", shape=[count], data=data)

        for ask in (infer, encoded):
            assert ask(2).status_code == 200
            assert (ask(3).status_code, list(ask(3).json())) in ((400, ["error"]), (413, ["error"]))
        assert "from 1 to 2 images" in encoded(3).json()["error"]
        flat = service.client.post(INFER, content=b'{"inputs": [' + b"0," * (2 * 256 * 256 + 1001))
        assert (flat.status_code, "131072 values" in flat.json()["error"]) == (413, True)
        few = service.client.post(INFER, content=b'{"inputs": [' + b"0," * (2 * 256 * 256 + 1000))
        assert (few.status_code, few.json()["error"]) == (
            400,
            "expected JSON, received other bytes",
        )


def test_requests_to_the_repository_are_small(client: httpx.Client) -> None:
    """Up to a mebibyte, where a tensor may have many."""
    for path in ("index", "models/standin/load", "models/standin/unload"):
        spaces = b"{}" + b" " * (2**20 - 2)
        exact = spaces if path == "index" else spaces.replace(b"{}", b"[]")
        answer = client.post(f"/v2/repository/{path}", content=exact)
        assert answer.status_code == (200 if path == "index" else 400)
        answer = client.post(f"/v2/repository/{path}", content=spaces + b" ")
        assert (answer.status_code, list(answer.json())) == (413, ["error"])


def test_refusals_have_the_statuses_that_the_protocol_knows(models: Path, grey_png: bytes) -> None:
    """What /segment answers by 415 or 422 is a 400 here; every other status stays."""
    with running(models, max_pixels=1000) as service:

        def status(content: bytes, path: str = INFER) -> int:
            data = [base64.b64encode(content).decode()]
            tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
            answer = service.client.post(path, json={"inputs": [tensor]})
            assert list(answer.json()) == ["error"]
            return answer.status_code

        assert status(b"no slice") == 400
        assert status(encode(np.arange(300, dtype=np.uint8).reshape(10, 10, 3), "PNG")) == 400
        assert status(grey_png) == 413
        assert status(grey_png, "/v2/models/other/infer") == 404
        packed = service.client.post(INFER, content=b"x", headers={"Content-Encoding": "br"})
        assert packed.status_code == 400


def test_elements_are_counted_before_they_are_made(client: httpx.Client) -> None:
    """Those of no bytes too, of which four million take four megabytes of memory each."""
    tail = bytes(4 * 4_000_000)
    sized = {
        "name": "image",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(tail)},
    }
    head = json.dumps({"inputs": [sized]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Encoding": "gzip"}
    answer = client.post(INFER, content=gzip.compress(head + tail, 1), headers=headers)
    assert answer.status_code == 400
    assert "expected 1 BYTES elements" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("models/standin/load", {"version": "1"}, "'version'"),
        ("models/standin/load", {"parameters": {"versoin": "1"}}, "'versoin'"),
        ("models/standin/load", {"parameters": {"version": 1e9}}, "version"),
        ("models/standin/load", {"parameters": {"version": "1", "config": "{}"}}, "config"),
        ("models/standin/load", {"parameters": {"config": {}}}, "config"),
        ("models/standin/load", {"parameters": {"file:1/model.onnx": "x"}}, "not taken from"),
        ("models/standin/load", {"parameters": {"config": '{"version_polcy": {}}'}}, "polcy"),
        (
            "models/standin/load",
            {"parameters": {"config": '{"version_policy": {"specfic": {}}}'}},
            "specfic",
        ),
        (
            "models/standin/load",
            {"parameters": {"config": '{"version_policy": {"specific": {}}}'}},
            "version",
        ),
        ("models/standin/unload", {"version": "1"}, "'version'"),
        ("index", {"redy": True}, "'redy'"),
        ("index", {"ready": "yes"}, "ready"),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(
    client: httpx.Client, path: str, body: dict[str, object], named: str
) -> None:
    """A misspelt roll-back must not load the newest version."""
    answer = client.post(f"/v2/repository/{path}", json=body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert client.get("/readyz").status_code == 200


def test_few_of_the_unknown_names_are_repeated_and_of_each_a_part(client: httpx.Client) -> None:
    """A caller's words are no place for a patient's."""
    body = {f"{index}{'x' * 50}": 1 for index in range(9)}
    error = client.post("/v2/repository/index", json=body).json()["error"]
    shown = ", ".join(f"'{index}{'x' * 39}'" for index in range(4))
    assert error == f"expected only ready in request, received {shown}"


def test_roll_backs_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who looks for the reason of other masks finds which call changed the version."""
    write_bundle(tmp_path, version="1")
    write_bundle(tmp_path, version="2")
    with running(tmp_path) as service, caplog.at_level("INFO", logger="lungseg.models"):
        wanted = {"parameters": {"version": 1}}
        headers = {"X-Request-ID": "why"}
        service.client.post("/v2/repository/models/standin/load", json=wanted, headers=headers)
        service.client.post("/v2/repository/models/standin/unload")
        answer = service.client.get("/readyz").json()
    assert "version 1: unloaded by request" in answer["detail"]
    loaded, unloaded = (record for record in caplog.records if record.name == "lungseg.models")
    assert loaded.fields == {"model": "standin/1", "request_id": "why"}
    assert unloaded.getMessage() == "model unloaded by request"


def test_tritons_client_loads_rolls_back_and_unloads(tmp_path: Path, images: np.ndarray) -> None:
    write_bundle(tmp_path, version="1", cut=60)
    with running(tmp_path) as service:
        client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")

        def serving() -> str:
            return client.infer("standin", [tensor(triton, images)]).get_response()["model_version"]

        assert serving() == "1"
        write_bundle(tmp_path, version="2", cut=90)
        client.load_model("standin")
        assert serving() == "2"
        roll_back = {"version_policy": {"specific": {"versions": [1]}}}
        client.load_model("standin", config=json.dumps(roll_back))
        assert serving() == "1"
        client.unload_model("standin")
        assert not client.is_model_ready("standin")
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="not ready"):
            serving()
        client.load_model("standin")
        assert serving() == "2"
        with pytest.raises(InferenceServerException, match="expected a version"):
            client.load_model(
                "standin", config=json.dumps({"version_policy": {"specific": {"versions": [9]}}})
            )
        client.close()


def test_model_control_can_be_switched_off(models: Path) -> None:
    with running(models, model_control=False) as service:
        for path in ("unload", "load"):
            answer = service.client.post(f"/v2/repository/models/standin/{path}")
            assert (answer.status_code, list(answer.json())) == (403, ["error"])
        assert service.client.get("/readyz").status_code == 200
        assert service.client.post("/v2/repository/index").status_code == 200


def test_versions_are_listed_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All in index and log, those that are ready alone where that is asked for, and as metadata."""
    caplog.set_level("INFO", "lungseg.app")
    for version in ("1", "2", "10"):
        write_bundle(tmp_path, version=version)
    (tmp_path / "standin" / "2" / "model.onnx").write_bytes(b"damaged")
    with running(tmp_path, loaded_versions=3) as service:
        index = "/v2/repository/index"
        every = service.client.post(index).json()
        (loaded,) = [r.fields["loaded"] for r in caplog.records if r.getMessage() == "models"]
        damaged = f"standin/2 UNAVAILABLE {every[1]['reason']}"
        assert loaded == ["standin/1 READY", "standin/10 READY", damaged]
        assert [(entry["version"], entry["state"]) for entry in every] == [
            ("1", "READY"),
            ("2", "UNAVAILABLE"),
            ("10", "READY"),
        ]
        assert [bool(entry["reason"]) for entry in every] == [False, True, False]
        ready = service.client.post(index, json={"ready": True}).json()
        assert [entry["version"] for entry in ready] == ["1", "10"]
        found = service.client.get("/v2/models/standin").json()
        assert found["versions"] == ["1", "10"]
        listed = service.client.get("/models").json()["models"][0]["versions"]
        assert [(entry["version"], entry["serving"]) for entry in listed] == [
            ("10", True),
            ("2", False),
            ("1", False),
        ]
        load = {"parameters": {"version": "2"}}
        refused = service.client.post("/v2/repository/models/standin/load", json=load)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("the bundle is refused: ")
