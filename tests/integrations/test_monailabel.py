"""MONAI Label's API: what its client sends, recorded and live, and what it gets."""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import uuid
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from lungseg.formats.archive import write_archive
from lungseg.integrations.monailabel import SESSION_BYTES
from tests.serving import Running, running, wait_until
from tests.volume.grids import affine_of, nifti, npy
from tests.web.test_volume import AFFINE, chest, series

NAME = "/home/doe/John Doe.nrrd"
"""What the client sends is a path of its user's machine."""
LIMIT = "----------lImIt_of_THE_fIle_eW_$"
NAMES = {"right lung": 1, "left lung": 2}
SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz"}
OHIF = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
SCRIPT = Path(__file__).with_name("monailabel_client.py")


@cache
def oblique() -> bytes:
    """The chest on a grid that no axis of the patient follows."""
    return nifti(chest(), affine_of("oblique", (8.0, 3.0, 2.5), (-10.5, 20.25, 30.0)))


def upload(client: httpx.Client, *files: bytes, **query: str) -> httpx.Response:
    """``create_session`` of monailabel 0.8.5, as recorded."""
    fields = '\r\nContent-Disposition: form-data; name="client_id"\r\n\r\nuser-xyz'
    head = f'\r\nContent-Disposition: form-data; name="files"; filename="{NAME}"\r\n\r\n'
    parts = [fields.encode(), *(head.encode() + file for file in files)]
    mark = b"--22922d2f9d1ef1c489584f5c8079ff90"
    body = b"".join(mark + part + b"\r\n" for part in parts) + mark + b"--\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary={mark[2:].decode()}"}
    return client.put("/monailabel/session/", content=body, headers=kind, params=query)


def infer(
    client: httpx.Client, params: object, file: bytes = b"", model: str = "standin", **query: str
) -> httpx.Response:
    """``infer`` of monailabel 0.8.5, as recorded."""
    lines = [f"--{LIMIT}", 'Content-Disposition: form-data; name="params"', "", json.dumps(params)]
    if file:
        disposition = f'Content-Disposition: form-data; name="file"; filename="{NAME}"'
        lines += [f"--{LIMIT}", disposition, "Content-Type: application/octet-stream", "", ""]
    body = "\r\n".join(lines).encode() + file + f"\r\n--{LIMIT}--\r\n\r\n".encode()
    kind = {"content-type": f"multipart/form-data; boundary={LIMIT}"}
    address = f"/monailabel/infer/{model}"
    return client.post(address, params={"image": NAME, **query}, content=body, headers=kind)


def parts_of(response: httpx.Response) -> tuple[dict, str, bytes]:
    """Params, name and content of the file of an answer, by the standard library's parser."""
    assert response.status_code == 200, response.text
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    params, file = BytesParser(policy=HTTP).parsebytes(head + response.content).iter_parts()
    assert params.get_filename() is None
    name, contents = file.get_filename(), [one.get_payload(decode=True) for one in (params, file)]
    return json.loads(contents[0]), str(name), bytes(contents[1])


def image_of(content: bytes, name: str) -> sitk.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return sitk.ReadImage(str(path))


def check(found: sitk.Image, source: sitk.Image, client: httpx.Client, file: bytes) -> None:
    """The very labels that ``/segment/volume`` finds, on the source's grid."""
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, of)() == pytest.approx(getattr(source, of)(), abs=1e-5), of
    own = client.post("/segment/volume?format=nifti", content=file).content
    wanted = sitk.GetArrayFromImage(image_of(own, "own.nii.gz"))
    assert set(np.unique(wanted)) == {0, 1, 2}
    assert np.array_equal(sitk.GetArrayFromImage(found), wanted)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that the service says, its clients left out."""
    ours = (one for one in caplog.records if one.name.startswith(("lungseg", "uvicorn")))
    return "".join(str(record.__dict__) for record in ours)


def test_a_session_as_slicer_uses_it(monailabel: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Uploaded once, asked twice, ended; paths of the client are neither logged nor repeated."""
    client, file = monailabel.client, oblique()
    with caplog.at_level(logging.DEBUG):
        info = client.get("/monailabel/info/").json()
        assert info["models"]["standin"]["labels"] == NAMES
        assert info["labels"] == list(NAMES)
        made = upload(client, file).json()
        session = made["session_id"]
        assert made["session_info"] == {"expiry": 3600.0}
        assert client.get(f"/monailabel/session/{session}").status_code == 200
        answers = [infer(client, SLICER, session_id=session) for _ in range(2)]
        assert client.delete(f"/monailabel/session/{session}").status_code == 200
        gone = infer(client, SLICER, session_id=session)
    assert gone.status_code == 404
    assert client.get(f"/monailabel/session/{session}").status_code == 404
    source = image_of(file, "source.nii")
    for answer in answers:
        params, name, content = parts_of(answer)
        assert (params["label_names"], name) == (NAMES, "lungs.nrrd")
        found = image_of(content, name)
        assert found.GetPixelID() == sitk.sitkUInt8
        check(found, source, client, file)
    said = logged(caplog)
    assert "/monailabel/infer/{model}" in said
    for word in ("Doe", "user-xyz", session):
        assert word not in said
        assert word.encode() not in b"".join(one.content for one in (*answers, gone))


def test_the_forms_of_an_answer(monailabel: Running) -> None:
    """The file alone as OHIF can read it, NRRD whatever is said, a series and a zip of one."""
    client, file = monailabel.client, nifti(chest(), AFFINE)
    image = infer(client, OHIF, file, output="image")
    assert b"encoding: raw" in image.content[:300]
    check(image_of(image.content, "a.nrrd"), image_of(file, "a.nii"), client, file)
    assert parts_of(infer(client, {}, file, output="all"))[1] == "lungs.nrrd"
    turned = npy(chest().transpose(0, 2, 1))  # one lung lies above the other
    params, name, content = parts_of(infer(client, SLICER, turned))
    # Slicer sorts names by their numbers, and takes the first for 1, the second for 2, and so on.
    in_slicer = sorted(params["label_names"], key=params["label_names"].get)
    assert in_slicer.index("lung") + 1 == params["label_names"]["lung"] == 3
    assert np.array_equal(np.unique(sitk.GetArrayFromImage(image_of(content, name))), [0, 3])
    for files in (series(), [write_archive({f"{k}.dcm": one for k, one in enumerate(series())})]):
        session = upload(client, *files, uncompress="true").json()["session_id"]
        params, name, content = parts_of(infer(client, SLICER, session_id=session))
        assert params["label_names"] == NAMES
        assert image_of(content, name).GetSize() == chest().shape[::-1]


def test_what_is_refused(monailabel: Running) -> None:
    """By a status that a client can act on."""
    client, file = monailabel.client, oblique()
    assert infer(client, SLICER, file, model="doe").status_code == 404
    assert infer(client, SLICER).status_code == 400
    assert infer(client, SLICER, b"no volume").status_code == 415
    assert infer(client, SLICER, session_id=uuid.uuid4().hex).status_code == 404
    assert upload(client).status_code == 400
    for path in ("activelearning/random", "train/standin", "infer/wsi/standin"):
        assert client.post(f"/monailabel/{path}").status_code == 404
    assert client.get("/monailabel/datastore/").status_code == 404
    assert client.put("/monailabel/datastore/label?image=x").status_code == 404


def test_a_key_is_the_password_of_any_user(monailabel: Running, models: Path) -> None:
    """Who logs in gets it back as the token, as the client can send it in a header."""
    form = {"username": "user-xyz", "password": "schlüssel", "grant_type": "password"}
    assert monailabel.client.get("/monailabel/auth/").json()["enabled"] is False
    with running(models, integrations=("monailabel",), api_keys=("schlüssel",)) as service:
        client, known = service.client, ("/monailabel/info/", "/monailabel/auth/token/valid")
        assert client.get("/monailabel/auth/").json()["enabled"] is True
        address = "/monailabel/auth/token"
        for wrong in (b"", b"password=schlussel", b"password=", b"\xff=%ff&password=%ff"):
            assert client.post(address, content=wrong).status_code == 401
        assert client.post(address, content=bytes(2**17)).status_code == 413
        token = client.post(address, data=form).json()
        said = f"{token['token_type']} {token['access_token']}".encode("latin-1")
        for path in known:
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": said}).status_code == 200


def test_sessions_have_a_time_and_a_room(models: Path) -> None:
    """One that is not used in time goes by itself; the oldest goes where there is no room."""
    file = oblique()
    room = int(2.5 * (len(file) + SESSION_BYTES))
    with running(models, integrations=("monailabel",), monailabel_session_bytes=room) as service:
        client = service.client
        first, second = (upload(client, file).json()["session_id"] for _ in range(2))
        client.get(f"/monailabel/session/{first}")
        third = upload(client, file).json()
        there = [
            client.get(f"/monailabel/session/{session}").status_code
            for session in (first, second, third["session_id"])
        ]
        assert there == [200, 404, 200]
        assert upload(client, file * 3).status_code == 413
        for _ in range(room // SESSION_BYTES + 1):  # of which each holds next to nothing
            upload(client, b"")
        assert client.get(f"/monailabel/session/{first}").status_code == 404
    with running(models, integrations=("monailabel",), monailabel_session_s=0.001) as service:
        address = f"/monailabel/session/{upload(service.client, file).json()['session_id']}"
        wait_until(lambda: service.client.get(address).status_code == 404)


def test_monai_labels_own_client(
    tools: Path, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Unmodified, it logs in with a key, and writes labels on the source's grid."""
    source = tmp_path / "John Doe.nii"
    source.write_bytes(oblique())
    keyed = {"integrations": ("monailabel",), "api_keys": ("schlüssel",)}
    with running(models, **keyed) as service, caplog.at_level(logging.DEBUG):
        command = [tools, "-W", "ignore", SCRIPT, f"{service.url}/monailabel", source, tmp_path]
        done = subprocess.run([*command, "schlüssel"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        refused = subprocess.run([*command, "wrong"], capture_output=True, text=True, check=False)
        assert "401" in refused.stderr
        service.client.headers["X-API-Key"] = "schlüssel"
        heard = json.loads(done.stdout)
        for way in ("in session", "with file"):
            file, params = heard[way]
            assert Path(file).parent == tmp_path
            assert Path(file).name.endswith(".nrrd")
            assert params["label_names"] == NAMES
            check(sitk.ReadImage(file), sitk.ReadImage(source), service.client, oblique())
    assert "Doe" not in logged(caplog)
