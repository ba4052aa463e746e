"""What identifies a patient appears nowhere but in the answer's own file, if at all."""

from __future__ import annotations

import io
import logging
import signal
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset

from tests.serving import PATIENCE_S, Running, running
from tests.web.test_lifecycle import LOGS, process
from training.synthetic.phantom import dicom_bytes, make_phantom

MARKER = "ZQXMARKERQXZ"
TEXT_VRS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC")
PROGRESS = {"Accept": "application/x-ndjson"}
NUMBERS = {"DS": "9876543.2109", "IS": "987654321098"}
NEEDED = ("Modality", "ImageType", "SpecificCharacterSet", "PhotometricInterpretation")


@pytest.fixture(scope="module", params=["debug"])
def watched(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Path]]:
    """A service whose temporary files, should it make any, lie in one folder."""
    folder = tmp_path_factory.mktemp("temporary")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with running(models, log_level=request.param, api_keys=()) as service:
            yield service, folder
    finally:
        tempfile.tempdir = before


def marked(*, broken: bool) -> list[bytes]:
    """Files with the marker in every text element, and with broken values in each."""
    phantom = make_phantom((40, 52), seed=1)
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(phantom)))
        known = pydicom.datadict.DicomDictionary.items()
        for tag, (vr, _, _, _, keyword) in known:
            if vr in TEXT_VRS and keyword and keyword not in NEEDED and tag >> 16 > 2:
                if vr in NUMBERS:
                    if broken or keyword not in dataset:
                        setattr(dataset, keyword, NUMBERS[vr])
                    continue
                setattr(dataset, keyword, MARKER if vr != "PN" else f"{MARKER}^{MARKER}")
        item = Dataset()
        item.PatientName = MARKER
        dataset.OtherPatientIDsSequence = [item]
        dataset.add_new((0x0009, 0x0010), "LO", MARKER)
        dataset.add_new((0x0009, 0x1001), "UN", MARKER.encode())
        files = [saved(dataset)]
        for keyword in NEEDED:
            if broken:
                setattr(dataset, keyword, MARKER)
                files.append(saved(dataset))
        return [*files, files[0][:-2000], files[0][: len(files[0]) // 2]]
    finally:
        pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE


def saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(stream)
    content = stream.getvalue()
    for number in NUMBERS.values():  # pydicom writes no number that is none
        content = content.replace(number.encode(), MARKER.encode())
    return content


def pictures() -> list[bytes]:
    grey = Image.new("L", (40, 52), 90)
    png, tiff, spoilt = io.BytesIO(), io.BytesIO(), io.BytesIO()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", MARKER)
    grey.save(png, "PNG", pnginfo=texts)
    grey.save(tiff, "TIFF", description=MARKER, artist=MARKER)
    grey.save(spoilt, "TIFF", description=MARKER)
    return [png.getvalue(), tiff.getvalue(), spoilt.getvalue()[:-500], MARKER.encode()]


@pytest.mark.parametrize("broken", [False, True])
def test_markers_are_found_nowhere(
    watched: tuple[Running, Path],
    broken: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    service, folder = watched
    files = [*marked(broken=broken), *pictures()]
    caplog.clear()  # what the test's own writing of such files said
    capfd.readouterr()
    recwarn.clear()
    caplog.set_level(logging.DEBUG)
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    pydicom.config.debug(True, default_handler=False)
    try:
        seen: list[str] = []
        for content in files:
            for path in ("/segment", "/segment?format=png&allow_non_ct=true"):
                answer = service.client.post(path, content=content)
                seen += [str(answer.headers), answer.content.decode("latin-1")]
            named = {"file": (f"{MARKER}.dcm", content, f"image/{MARKER}")}
            answer = service.client.post("/segment", files=named)
            seen += [str(answer.headers), answer.text]
            refused = service.client.post("/segment?format=dicom-seg", content=content)
            seen += [str(refused.headers), refused.text if refused.is_error else ""]
            part = {"files": (f"{MARKER}.dcm", content)}
            service.client.post("/segment/batch", files=part)
            whole = service.client.post("/segment/volume", files=part, headers=PROGRESS)
            seen += [str(whole.headers), whole.text if '"error"' in whole.text else ""]
        seen.append(service.client.get("/metrics").text)
    finally:
        pydicom.config.debug(False)
        logging.getLogger("pydicom").setLevel(logging.NOTSET)
    seen += [caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in recwarn)]
    seen += [str(vars(record)) for record in caplog.records]
    seen += [path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()]
    assert not [text[:200] for text in seen if MARKER in text]
    assert not list(folder.rglob("*"))
    assert caplog.records  # the log was on


def raw(port: int, request: str) -> bytes:
    """Sends bytes as they are, and reads until the server closes or answers."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def test_what_a_caller_writes_around_a_file_is_in_no_log(models: Path) -> None:
    """Paths, queries, names, values of headers and keys, well-formed or not, at any level."""
    mark, png = MARKER.lower(), pictures()[0]
    headers = dict.fromkeys(
        ("User-Agent", "Referer", "Cookie", "Accept-Language", "X-API-Key", "X-Patient", mark), mark
    )
    headers["Authorization"] = f"Bearer {mark}"
    with process(models, LUNGSEG_LOG_LEVEL="debug", LUNGSEG_LOG_FORMAT="console") as service:
        for path in ("/segment", f"/{mark}", f"/models/{mark}", f"/v2/models/{mark}/infer"):
            for query in (f"?{mark}=1", f"?window_hu={mark}", f"?model={mark}&threshold={mark}"):
                service.client.post(path + query, content=png, headers=headers)
                service.client.get(path + query, headers=headers)
        for name in ("file", "files", mark):
            form = {name: (f"{mark}.png", png, f"image/{mark}")}
            service.client.post("/segment", files=form, data={mark: mark})
            service.client.post("/segment/batch", files=form)
        service.client.post(f"/v2/repository/models/{mark}/load", json={mark: mark})
        for kind in (f"multipart/form-data; boundary={mark}", f"application/{mark}", mark):
            content_type = {
                "Content-Type": kind,
                "Content-Encoding": mark,
                "X-Request-ID": f"{mark}!",
            }
            service.client.post("/segment", content=mark.encode(), headers=content_type)
        for line in (
            f"GET /{mark} HTTP/9.9\r\n\r\n",
            f"{mark.upper()} /{mark} HTTP/1.1\r\nHost: {mark}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\n{mark}\r\n\r\n",
            f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {mark}\r\n\r\n",
            *(
                f"GET /?{mark} HTTP/1.1\r\nHost: x\r\nUpgrade: {to}\r\nConnection: Upgrade\r\n\r\n"
                for to in (mark, "websocket")
            ),
        ):
            raw(service.port, line)
        service.signal(signal.SIGTERM)
        assert service.exit_status() == 0
    lines = LOGS[service.popen.pid]
    assert len(lines) > 30
    assert not [line for line in lines if mark in line.lower()]
