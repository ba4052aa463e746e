"""``lungseg dicomweb`` with a real Orthanc, behind a proxy that gets in its way where told to."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import yaml

import lungseg
from lungseg.formats.archive import write_archive
from lungseg.formats.dicom_seg import SERIES_NUMBER
from lungseg.integrations.dicomweb.archive import Archive, Root
from tests.client.conftest import Here, here, pauses_s
from tests.client.studies import SLICES, instances_of
from tests.integrations.orthanc import (
    PLUGINS,
    Asked,
    Fault,
    Outside,
    Proxy,
    entered,
    served,
    why_not,
)
from tests.serving import Running, running, wait_until
from tests.standin import write_bundle

__all__ = ["here", "pauses_s"]
WHY_NOT = why_not("libOrthancDicomWeb.so")
WITHOUT_PLUGIN = why_not("libOrthancDicomWeb.so", "libOrthancPython.so")
RECIPE = Path(__file__).parents[2] / "docker" / "orthanc"
INSIDE_PORT = 8000
needs_orthanc = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
PATIENT = "Mustermann^Erika"
FEW = slice(0, 12)
ONCE = ("dicomweb", "--root", "lab", "--study", "1.2.3")


@pytest.fixture(scope="module")
def running_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with served(tmp_path_factory.mktemp("orthanc")) as proxy:
        yield proxy


@pytest.fixture
def archive(running_orthanc: Proxy) -> Proxy:
    """Empty, and obstructive in nothing."""
    for patient in running_orthanc.orthanc.rest("/patients"):
        running_orthanc.orthanc.ask("DELETE", f"/patients/{patient}")
    running_orthanc.faults.clear()
    running_orthanc.paths.clear()
    running_orthanc.tokens.clear()
    return running_orthanc


@pytest.fixture
def settings(archive: Proxy, tmp_path: Path) -> Path:
    return written(tmp_path, archive.url)


def written(folder: Path, url: str, **more: object) -> Path:
    """A settings file whose pauses are short."""
    root = {"url": url, "write": True, "timeout_s": 5, "pause_s": 0.01, "poll_s": 0.01, **more}
    file = folder / "pacs.toml"
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in root.items())
    file.write_text(f"state = '{folder / 'state'}'\n[roots.lab]\n{lines}\n")
    return file


def push(
    archive: Proxy, study: str = "1.2.3", part: slice = slice(None), **attributes: Any
) -> list[bytes]:
    """A series of a named patient in the archive."""
    files = []
    for content in sorted(instances_of(study))[part]:
        dataset = pydicom.dcmread(io.BytesIO(content))
        for name, value in {"PatientName": PATIENT, **attributes}.items():
            setattr(dataset, name, value)
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        files.append(stream.getvalue())
    packed = write_archive({str(number): file for number, file in enumerate(files)})
    assert archive.orthanc.ask("POST", "/instances", packed)[0] == 200
    return files


def results(archive: Proxy, study: str = "1.2.3") -> dict[str, list[pydicom.Dataset]]:
    """What the archive has of a study beside CT, as another project's client reads it."""
    web = pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed")
    client = web.DICOMwebClient(archive.url)
    found = client.search_for_series(study)
    kinds = {one["0020000E"]["Value"][0]: one["00080060"]["Value"][0] for one in found}
    return {kind: client.retrieve_series(study, uid) for uid, kind in kinds.items() if kind != "CT"}


def stored_once(archive: Proxy) -> bool:
    found = results(archive)
    return {kind: len(items) for kind, items in found.items()} == {"SEG": 1, "SR": 1}


def posts(archive: Proxy) -> int:
    return sum(path.startswith("POST") for path in archive.paths)


@needs_orthanc
def test_results_lie_beside_their_series_voxel_for_voxel_and_once(
    archive: Proxy,
    tmp_path: Path,
    here: Here,
    models: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Read by another client; a second run does nothing, and without the state leaves no second."""
    (token := tmp_path / "token").write_text("first\n")
    settings = written(tmp_path, archive.url, token_file=str(token))
    files = push(archive)
    archive.faults.append(partial(small_pages, size=7))
    ask = partial(here, *ONCE, "--settings", settings)
    with caplog.at_level(logging.DEBUG):
        done = ask()
    assert done.returncode == 0, done.stderr
    assert {*archive.tokens} == {"Bearer first"}
    token.write_text("Basic bWU6cHc=\n")
    archive.faults.clear()
    found = results(archive)
    (seg,), (sr,) = found["SEG"], found["SR"]
    volume = lungseg.load("standin", models=models).segment_volume(files)
    sources = sorted(map(pydicom.dcmread, map(io.BytesIO, files)), key=place_of)
    frames = highdicom.seg.Segmentation.from_dataset(seg).get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources], combine_segments=True
    )
    assert np.array_equal(frames, volume.labels)
    assert frames.any()
    assert (seg.SeriesNumber, seg.SeriesDescription) == (
        SERIES_NUMBER,
        f"Lungs, of {SLICES} slices",
    )
    assert sr.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID == "1.2.3"
    assert seg.SOPInstanceUID in sr.to_json()
    assert stored_once(archive)
    said = done.stderr.decode() + caplog.text
    assert "1.2.3" not in said
    assert PATIENT not in said
    archive.tokens.clear()
    again = ask()
    assert {*archive.tokens} == {"Basic bWU6cHc="}
    assert (again.returncode, posts(archive)) == (0, 1)
    (settings.parent / "state").unlink()
    assert (ask().returncode, posts(archive)) == (0, 2)
    assert stored_once(archive)


def place_of(source: pydicom.Dataset) -> float:
    return source.ImagePositionPatient[2]


def small_pages(asked: Asked, size: int) -> bool:
    """As of a server that has no larger ones."""
    asked.path = asked.path.replace("offset=", f"limit={size}&offset=")
    return False


@needs_orthanc
def test_a_service_gives_the_same_and_a_dry_run_stores_nothing(
    archive: Proxy, settings: Path, here: Here, service: Running, models: Path
) -> None:
    """By ``--url`` as the other commands; the model in this process makes the same bytes."""
    files = push(archive)
    ask = partial(here, *ONCE, "--settings", settings)
    assert ask("--url", service.url, "--series", "1.2.3.1", "--dry-run").returncode == 0
    assert (posts(archive), results(archive)) == (0, {})
    assert ask("--url", service.url).returncode == 0
    volume = lungseg.load("standin", models=models).segment_volume(files)
    found = results(archive)
    for kind in ("SEG", "SR"):
        expected = pydicom.dcmread(io.BytesIO(volume.fetch(f"dicom-{kind.lower()}").content))
        assert found[kind] == [expected]


def in_turn(*answers: tuple[str, Fault]) -> Fault:
    """Obstructs the next requests of a method that move images, one after the other."""
    left = list(answers)

    def fault(asked: Asked) -> bool:
        moves = asked.command == "POST" or asked.path.endswith("/series/1.2.3.1")
        if moves and left and left[0][0] == asked.command:
            return left.pop(0)[1](asked)
        return False

    return fault


def dropped(asked: Asked) -> bool:
    asked.close_connection = True
    return True


def silent(asked: Asked) -> bool:
    """Says nothing until the caller leaves."""
    return not asked.connection.recv(1) or True


def cut(asked: Asked) -> bool:
    status, headers, body = asked.forwarded()
    return asked.answer(status, headers, body[: len(body) // 2])


def nonsense(asked: Asked) -> bool:
    return asked.answer(200, {"Content-Type": "text/html"}, b"<html>")


def partly(asked: Asked) -> bool:
    """Stores the report, and says of the segmentation that there is no room."""
    boundary = asked.content.split(b"\r\n")[0]
    before, sr, seg, end = asked.content.split(boundary)
    asked.content = boundary.join([before, sr, end])
    _, headers, body = asked.forwarded()
    uid = pydicom.dcmread(io.BytesIO(seg.partition(b"\r\n\r\n")[2])).SOPInstanceUID
    failed = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [0xA700]}}
    answer = json.loads(body) | {"00081198": {"vr": "SQ", "Value": [failed]}}
    return asked.answer(202, headers, json.dumps(answer).encode())


def refusing(status: int, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: asked.answer(status, named)


@needs_orthanc
def test_what_may_pass_is_tried_again(archive: Proxy, tmp_path: Path, here: Here) -> None:
    """Overload, silence, too many requests and a broken connection; all is stored once."""
    settings = written(tmp_path, archive.url, timeout_s=1)
    push(archive, part=FEW)
    archive.faults.append(
        in_turn(
            ("GET", refusing(503)),
            ("GET", cut),
            ("GET", silent),
            ("POST", refusing(429)),
        )
    )
    done = here(*ONCE, "--settings", settings)
    assert done.returncode == 0
    codes = [line.split()[-1] for line in done.stderr.decode().splitlines()]
    assert codes == ["503", "incomplete", "timeout", "429", "done"]
    assert stored_once(archive)


@needs_orthanc
def test_what_will_not_pass_fails_at_once_until_somebody_asks_again(
    archive: Proxy, settings: Path, here: Here
) -> None:
    """Refusals, redirects, which are not followed, too much, and what is stored in part only."""
    push(archive, part=FEW)
    ask, tell = partial(here, *ONCE), partial(here, "dicomweb", "--status")
    redirect = refusing(302, Location=f"{archive.url}/elsewhere")
    for code, fault, more in (
        ("401", ("GET", refusing(401)), {}),
        ("302", ("GET", redirect), {}),
        ("too_large", ("GET", lambda _: False), {"max_bytes": 9999}),
        ("not_stored_A700", ("POST", partly), {}),
    ):
        archive.faults[:] = [in_turn(fault)]
        written(settings.parent, archive.url, **more)
        assert ask("--settings", settings).returncode == 1
        told = tell("--settings", settings)
        (row,) = told.stdout.decode().splitlines()
        assert told.returncode == 1
        assert row.split("\t")[:3] == ["failed", "1", code]
        assert row.split("\t")[4:] == ["lab", "/studies/1.2.3/series/1.2.3.1"]
    assert not [path for path in archive.paths if "elsewhere" in path]
    assert (posts(archive), [*results(archive)]) == (1, ["SR"])
    archive.faults[:] = [lambda asked: archive.faults.clear() or asked.answer(503)]
    done = ask("--settings", settings)
    assert done.returncode == 0
    assert done.stderr.startswith(b"lungseg: lab: the archive's answer was 503, which may pass\n")
    told = tell("--settings", settings)
    assert (told.returncode, told.stdout) == (0, b"")
    assert stored_once(archive)


@needs_orthanc
def test_what_is_told_of_a_series_is_the_last_of_it(
    archive: Proxy, settings: Path, here: Here, tmp_path: Path
) -> None:
    """Late slices, or another model in the midst of it, end what was said before."""
    tell = partial(here, "dicomweb", "--settings", settings, "--status")
    for version, cut in (("1", 60), ("2", 90)):
        write_bundle(tmp_path, version=version, cut=cut)
    with running(tmp_path) as service:
        ask = partial(here, *ONCE, "--settings", settings, "--url", service.url)
        push(archive, part=FEW)
        archive.faults.append(in_turn(("GET", refusing(401))))
        assert (ask().returncode, tell().returncode) == (1, 1)
        push(archive, part=slice(12, None))

        def change(_asked: Asked) -> bool:
            other = {"parameters": {"version": "1"}}
            service.client.post("/v2/repository/models/standin/load", json=other)
            return False

        archive.faults.append(in_turn(("GET", change)))
        done = ask()
    assert [line.split()[-1] for line in done.stderr.decode().splitlines()] == [
        "model_changed",
        "done",
    ]
    assert (done.returncode, tell().returncode, tell().stdout) == (0, 0, b"")


@needs_orthanc
@pytest.mark.parametrize("by_service", [False, True])
def test_what_is_no_chest_is_done_with(
    by_service: bool, archive: Proxy, settings: Path, here: Here, service: Running
) -> None:
    """A localizer calls itself CT; it is neither a failure nor looked at again."""
    push(archive, part=slice(0, 2), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    place = ("--url", service.url) if by_service else ()
    ask = partial(here, *ONCE, "--settings", settings, *place)
    done = ask()
    assert done.returncode == 0
    assert done.stderr.endswith(b" of 2 instances: done not_ct\n")
    assert ask().stderr == b""
    assert posts(archive) == 0


@needs_orthanc
def test_patience_has_an_end(archive: Proxy, settings: Path, here: Here) -> None:
    """Five attempts, and neither a watch nor a cron job goes on for ever."""
    push(archive, part=FEW)
    archive.faults.append(in_turn(*[("GET", refusing(503))] * 4, ("GET", nonsense)))
    assert here(*ONCE, "--settings", settings).returncode == 1
    told = here("dicomweb", "--settings", settings, "--status").stdout
    assert told.split(b"\t")[:3] == [b"failed", b"5", b"incomplete"]
    assert not results(archive)
    with sqlite3.connect(settings.parent / "state") as database:
        database.execute("UPDATE work SET state = 'pending'")  # as if each had ended the process
    database.close()
    assert b": failed ended" in here(*ONCE, "--settings", settings).stderr


@needs_orthanc
@pytest.mark.parametrize("stored", [False, True])
def test_an_archive_that_is_killed_and_restarted_has_each_result_once(
    stored: bool, archive: Proxy, settings: Path, here: Here
) -> None:
    """Before it has stored anything, or after it has and before it could say so."""
    push(archive, part=FEW)

    def kill(asked: Asked) -> bool:
        if stored:
            asked.forwarded()
        archive.orthanc.kill()
        archive.faults[:] = [restart]
        return dropped(asked)

    def restart(_asked: Asked) -> bool:
        archive.orthanc.start()
        archive.faults.clear()
        return False

    archive.faults.append(in_turn(("POST", kill)))
    done = here(*ONCE, "--settings", settings)
    assert done.returncode == 0
    assert posts(archive) == 2
    assert stored_once(archive)


@needs_orthanc
def test_a_watch_waits_until_a_series_is_quiet(archive: Proxy, settings: Path, here: Here) -> None:
    """What grows between two looks is left alone; what is done is not done again.

    A study whose series cannot be listed is in nobody's way.
    """
    push(archive, "4.5.6", FEW)
    parts = iter([slice(0, 12), slice(12, None)])
    looks = 0

    def look(asked: Asked) -> bool:
        nonlocal looks
        if asked.path.startswith("/dicom-web/studies?") and "offset=0" in asked.path:
            looks += 1
            if part := next(parts, None):
                push(archive, part=part)
            if looks == 5:
                os.kill(os.getpid(), signal.SIGINT)
        return False

    archive.faults += [look, lambda asked: "/4.5.6/" in asked.path and asked.answer(500)]
    done = here(
        "dicomweb", "--settings", settings, "--root", "lab", "--watch", "ModalitiesInStudy=CT"
    )
    assert done.returncode == 130
    assert posts(archive) == 1
    assert results(archive)["SEG"][0].SeriesDescription == f"Lungs, of {SLICES} slices"


def test_nobodys_own_orthanc_is_asked() -> None:
    """Its patients would be deleted, as a process that is being started has our network yet."""
    with pytest.raises(OSError, match="has no network of its own"), entered(os.getpid()):
        pass


@needs_orthanc
@pytest.mark.parametrize("meant", ["*THORAX*", "Thorax??2.0??B31f"])
def test_series_are_found_by_wildcards(
    archive: Proxy, tmp_path: Path, here: Here, meant: str
) -> None:
    """In an archive that does not undo escapes, as the page's example of settings says them."""
    push(archive, part=FEW, SeriesDescription="Thorax  2.0  B31f")
    push(archive, "4.5.6", FEW, SeriesDescription="Topogram")
    query = {"series.Modality": "CT", "series.SeriesDescription": meant}
    ask = partial(here, "dicomweb", "--root", "lab", "--study")
    settings = written(tmp_path, archive.url, **query)
    done = ask("1.2.3", "--settings", settings)
    assert done.returncode == 0, done.stderr
    assert stored_once(archive)
    assert b"received none" in ask("4.5.6", "--settings", settings).stderr


@needs_orthanc
def test_a_search_finds_all_there_is(archive: Proxy) -> None:
    """Also by ModalitiesInStudy, of which this Orthanc tells nothing behind a limit."""
    few = 101
    dataset = pydicom.dcmread(io.BytesIO(instances_of("4.5.6")[0]))
    files: dict[str, bytes] = {}
    for number in range(few):
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = f"4.5.{number}", f"4.6.{number}"
        dataset.save_as(stream := io.BytesIO(), enforce_file_format=True)
        files[str(number)] = stream.getvalue()
    assert archive.orthanc.ask("POST", "/instances", write_archive(files))[0] == 200
    of_ct = {"ModalitiesInStudy": "CT"}
    found = Archive(Root(url=archive.url)).search("/studies", of_ct, "0020000D")
    assert len(found) == few


@needs_orthanc
def test_a_series_that_ends_the_service_is_in_nobodys_way(
    archive: Proxy, settings: Path, here: Here, service: Running
) -> None:
    """It fails in the end, as one that ends this process, and the next series have their turn."""
    push(archive, part=FEW)
    push(archive, "4.5.6", FEW)

    def stop(asked: Asked) -> bool:
        look = asked.path.startswith("/dicom-web/studies?") and "offset=0" in asked.path
        if look and (posts(archive) or len(archive.paths) > 200):
            os.kill(os.getpid(), signal.SIGINT)
        return False

    archive.faults.append(stop)
    with Proxy(Outside(service)).serving() as before_it:
        before_it.faults.append(lambda asked: b"1.2.3.1" in asked.content and dropped(asked))
        watch = ("--watch", "ModalitiesInStudy=CT", "--url", before_it.url.rpartition("/")[0])
        done = here("dicomweb", "--settings", settings, "--root", "lab", *watch)
    assert done.returncode == 130
    told = here("dicomweb", "--settings", settings, "--status").stdout.decode()
    assert [line.split("\t")[:3] for line in told.splitlines()] == [["failed", "5", "ended"]]
    assert results(archive, "4.5.6")["SEG"]


def test_a_watch_outlives_a_gateway_without_its_service(
    service: Running, tmp_path: Path, here: Here
) -> None:
    """As while a new version of it starts."""
    looks = iter([502, 503, None])

    def answer(asked: Asked) -> bool:
        if status := next(looks):
            return asked.answer(status)
        os.kill(os.getpid(), signal.SIGINT)
        return False

    file = written(tmp_path, "http://127.0.0.1:1")
    with Proxy(Outside(service)).serving() as gateway:
        gateway.faults.append(answer)
        watch = ("--watch", "ModalitiesInStudy=CT", "--url", gateway.url.rpartition("/")[0])
        done = here("dicomweb", "--settings", file, "--root", "lab", *watch)
    assert done.returncode == 130
    assert [f"received status {status}" in done.stderr.decode() for status in (502, 503)] == [1, 1]


WRONG = {
    "no TOML": ("url", "expected TOML: Expected '=' after a key in a key/value pair (at line 4"),
    "a URL of another kind": ('url = "file:///etc"', "roots.lab.url: expected match pattern"),
    "a user in the URL": ('url = "http://me:secret@pacs"', "roots.lab.url: expected match pattern"),
    "what is no setting": ('url = "http://pacs"\nreed = true', "roots.lab.reed: "),
    "no end": ('url = "http://pacs"\ntimeout_s = inf', "roots.lab.timeout_s: expected a finite"),
    "no host": ('url = "http://pacs..example"\nwrite = true', "lab: the archive's answer was unr"),
    "no certificates": ('url = "http://pacs"\nwrite = true\nca = "/dev/null"', "/dev/null: ["),
    "no writing": ('url = "http://pacs"', "lab: expected --dry-run, or write = true"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_named(case: str, tmp_path: Path, here: Here) -> None:
    """By the place in the file, and no value is quoted."""
    content, sentence = WRONG[case]
    file = tmp_path / "pacs.toml"
    text = f"state = '{tmp_path / 'state'}'\n[roots.lab]\npause_s = 0\n{content}\n"
    file.write_text(text, encoding="utf-8-sig")  # as Windows' editor writes it
    done = here("dicomweb", "--settings", file, "--root", "lab", "--study", "1.2.3")
    assert done.returncode == 2
    assert sentence in done.stderr.decode()
    assert b"secret" not in done.stderr
    file = written(tmp_path, "http://pacs")
    unknown = here("dicomweb", "--settings", file, "--root", "other", "--study", "1.2.3")
    assert b"--root: expected one of lab, received another" in unknown.stderr


def test_a_composition_gives_the_plugin_what_it_reads() -> None:
    """Each variable; of a key its file, which is mounted there."""
    composition = yaml.safe_load((RECIPE / "compose.yml").read_text(encoding="utf-8"))
    orthanc = composition["services"]["orthanc"]
    read = re.findall(r'environ.get\("(\w+)"', (RECIPE / "lungs.py").read_text(encoding="utf-8"))
    given = {name: orthanc["environment"][name] for name in read}
    assert given["SERVICE_URL"]
    assert f"${{SERVICE_KEY_FILE:-/dev/null}}:{given['SERVICE_KEY_FILE']}:ro" in orthanc["volumes"]


@pytest.mark.skipif(bool(WITHOUT_PLUGIN), reason=WITHOUT_PLUGIN)
def test_an_orthanc_with_the_recipe_gives_each_stable_series_its_results(
    service: Running, tmp_path: Path
) -> None:
    """The plugin and its configuration as they are; what it stores is not segmented again."""
    recipe = json.loads((RECIPE / "orthanc.json").read_text())
    more = recipe | {"PythonScript": str(RECIPE / "lungs.py"), "StableAge": 1}
    plugins = [str(PLUGINS / name) for name in ("libOrthancDicomWeb.so", "libOrthancPython.so")]
    environment = {"SERVICE_URL": f"http://127.0.0.1:{INSIDE_PORT}"}
    with served(tmp_path, environment, Plugins=plugins, **more) as archive:
        with entered(archive.orthanc.pid):
            inside = Proxy(Outside(service), INSIDE_PORT)
        with inside.serving():
            push(archive, part=FEW)
            wait_until(lambda: len(stable(archive)) == 3)  # CT, SEG and SR
        assert inside.paths == [f"POST /segment/volume?format=dicom-{k}" for k in ("sr", "seg")]
        assert stored_once(archive)


def stable(archive: Proxy) -> set[str]:
    changes = archive.orthanc.rest("/changes?limit=1000")["Changes"]
    return {change["ID"] for change in changes if change["ChangeType"] == "StableSeries"}
