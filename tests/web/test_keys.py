"""API keys: who is let in, how the log names them, and what a changed file does."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import threading
from pathlib import Path

import httpx
import pytest

from lungseg.app import SURFACES, create_app
from tests.serving import Running, running, settings, wait_until

FILE = """\ufeff# readers
  # the ward's, with blanks before it
first
\tsecond \t # bought in May
sha256:{hash}\r
"""


def key_id(key: str) -> str:
    """What the page tells an operator to compute."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def status(service: Running, key: str, name: str = "X-API-Key") -> int:
    headers = [(name.encode(), key.encode())]
    return service.client.get("/models", headers=headers).status_code


def put(file: Path, content: bytes) -> None:
    """Changes a file at once: nobody sees it half-written."""
    beside = file.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(file)


def metric(service: Running, name: str) -> float:
    lines = service.client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def access(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [vars(r)["fields"] for r in caplog.records if r.name == "lungseg.access"]


def test_a_file_of_keys_may_have_comments(models: Path, tmp_path: Path) -> None:
    """No comment is a key, wherever it begins; blanks, a mark of bytes and CR are none of a key."""
    file = tmp_path / "keys"
    third = hashlib.sha256(b"third").hexdigest().upper()
    file.write_text(FILE.format(hash=third), encoding="utf-8")
    with running(models, api_keys_file=file, api_keys="schlüssel") as service:
        for key in ("first", "second", "third", "schlüssel"):
            assert status(service, key) == 200, key
        for key in ("# readers", "# the ward's, with blanks before it", "second # bought in May"):
            assert status(service, key) == 401, key
        for said, wanted in (("anybody:schlüssel", 200), (":first", 200), ("first", 401)):
            basic = f"basic {base64.b64encode(said.encode()).decode()}"
            assert status(service, basic, "Authorization") == wanted, said
        for odd in ("Basic é", "Basic first", "first"):
            assert status(service, odd, "Authorization") == 401, odd
        assert metric(service, "lungseg_api_keys") == 4


def test_a_file_of_keys_may_have_a_mebibyte(models: Path, tmp_path: Path) -> None:
    """One byte more ends the start."""
    file = tmp_path / "keys"
    file.write_bytes(b"#" + b" " * (2**20 - 7) + b"\nfirst")
    with running(models, api_keys_file=file, api_keys=("first", "first")) as service:
        assert status(service, "first") == 200
        assert metric(service, "lungseg_api_keys") == 1  # however often it is named
    file.write_bytes(b" " + file.read_bytes())
    with pytest.raises(ValueError, match="expected at most 1048576 bytes"):
        create_app(settings(models, api_keys_file=file))


def test_keys_from_a_pipe_are_read_once(models: Path, tmp_path: Path) -> None:
    """Reading them again would wait for a writer that does not come, and no model would."""
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"first\n",))
    writer.start()
    try:
        with running(models, api_keys_file=pipe, reload_interval_s=0.01) as service:
            writer.join()
            assert (status(service, "first"), status(service, "other")) == (200, 401)
    finally:
        os.close(os.open(pipe, os.O_RDWR))  # whoever waits is let go


def test_no_key_is_none_whatever_is_known(models: Path) -> None:
    """The hash of nothing lets nobody in who sends nothing."""
    with running(models, api_keys=f"sha256:{hashlib.sha256(b'').hexdigest()}") as service:
        assert service.client.get("/models").status_code == 401
        assert (status(service, ""), status(service, "Bearer", "Authorization")) == (401, 401)


def test_a_key_may_be_any_bytes(models: Path) -> None:
    """As variables and headers may, for example Latin-1."""
    with running(models, api_keys="schl\udcfcssel") as service:
        headers = [(b"X-API-Key", b"schl\xfcssel")]
        assert service.client.get("/models", headers=headers).status_code == 200
        assert status(service, "schlüssel") == 401


def test_the_log_says_which_key_called(
    models: Path, grey_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """By a short id that its owner can compute; keys, known or not, are not written."""
    caplog.set_level(logging.INFO)
    hashed = "sha256:" + hashlib.sha256(b"of-the-ward").hexdigest()
    with running(models, api_keys=("first-key", hashed)) as service:
        service.client.post("/segment", content=grey_png, headers={"X-API-Key": "of-the-ward"})
        assert status(service, "Bearer first-key", "Authorization") == 200
        assert status(service, "unknown-key") == 401
        service.client.get("/models")
    ids = [fields.get("key") for fields in access(caplog)]
    assert ids == [key_id("of-the-ward"), key_id("first-key"), None, None]
    text = caplog.text + str([vars(record) for record in caplog.records])
    assert not [key for key in ("first-key", "of-the-ward", "unknown-key") if key in text]


def test_without_keys_the_log_names_none(
    models: Path, caplog: pytest.LogCaptureFixture, client: httpx.Client
) -> None:
    """A key that nobody asked for may be another service's."""
    caplog.set_level(logging.INFO)
    client.get("/models", headers={"X-API-Key": "of-another-service"})
    wait_until(lambda: access(caplog))  # the line comes after the answer
    assert "key" not in access(caplog)[-1]


def test_a_changed_file_of_keys_is_read_again(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys come and go without a restart, and the log says how many there are."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "keys"
    file.write_text("first\n")
    with running(models, api_keys_file=file, reload_interval_s=0.02) as service:
        assert (status(service, "first"), status(service, "second")) == (200, 401)
        put(file, b"second\nthird\n")
        wait_until(lambda: status(service, "second") == 200)
        assert status(service, "first") == 401
        assert metric(service, "lungseg_api_keys") == 2
    (said,) = [vars(r)["fields"] for r in caplog.records if r.name == "lungseg.keys"]
    assert said == {"known": 2}


@pytest.mark.parametrize("content", [b"", b"# none\n", b"sha256:12\n", b"\xff\n", None])
def test_a_file_of_keys_that_cannot_be_used_changes_nothing(
    content: bytes | None, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It neither opens the service nor shuts callers out; a warning and a metric say so."""
    file = tmp_path / "keys"
    file.write_text("first\n")
    with running(models, api_keys_file=file, reload_interval_s=0.02) as service:
        assert metric(service, "lungseg_api_keys_file_refused") == 0
        file.unlink() if content is None else put(file, content)
        wait_until(lambda: metric(service, "lungseg_api_keys_file_refused") == 1)
        assert (status(service, "first"), status(service, "")) == (200, 401)
        put(file, b"first\n")  # as it was: that is a mend, too
        wait_until(lambda: metric(service, "lungseg_api_keys_file_refused") == 0)
        put(file, b"second\n")
        wait_until(lambda: status(service, "second") == 200)
        assert metric(service, "lungseg_api_keys_file_refused") == 0
    (warning,) = [
        r for r in caplog.records if r.name == "lungseg.keys" and r.levelno >= logging.WARNING
    ]
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith("LUNGSEG_API_KEYS_FILE: expected ")


def test_an_application_without_a_usable_key_is_not_made(models: Path, tmp_path: Path) -> None:
    """Whoever starts it, by whichever way."""
    (tmp_path / "keys").touch()
    with pytest.raises(ValueError, match="LUNGSEG_API_KEYS_FILE: expected at least one key"):
        Running(settings(models, api_keys_file=tmp_path / "keys"), SURFACES)
