"""Settings: what the environment gives, and how what is wrong with it is said."""

from __future__ import annotations

import errno
import json
import logging
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lungseg.app import create_app
from lungseg.cli import main
from lungseg.server import Server, configured
from lungseg.settings import Settings
from lungseg.web.layers.logs import configure_logging
from tests.serving import settings

SECRET = "hunter2-of-the-ward"
TROUBLE = {
    "no whole number": ("WORKERS", "x", "a whole number, at least 0 and at most 256"),
    "a fraction": ("QUEUE_SIZE", "1.5", "a whole number, at least 0"),
    "a number with its unit": ("DEADLINE_S", "30s", "a number, more than 0"),
    "no time at all": ("DEADLINE_S", "inf", "a number, more than 0"),
    "no number": ("LINGER_S", "nan", "a number, at least 0"),
    "what Kubernetes sets beside a Service": ("PORT", "tcp://10.0.0.7:8000", "a whole number"),
    "too high": ("PORT", "70000", "at most 65535"),
    "negative": ("DRAIN_S", "-1", "at least 0"),
    "no choice": ("BATCHING", "on", "off or waiting or window"),
    "no level": ("LOG_LEVEL", "verbose", "debug or info or warning or error"),
    "neither true nor false": ("TRACING", "perhaps", "true or false"),
    "no version": ("MODEL_VERSION", "newest", "latest or a positive whole number"),
    "no path of an address": ("ROOT_PATH", "lungs/", "a path that begins with /"),
    "only commas": ("PROVIDERS", " , ", "at least one item"),
    "an origin with a path": ("CORS_ORIGINS", "https://a.example,https://b.example/", "without a"),
    "an origin without its scheme": ("CORS_ORIGINS", "viewer.example", "https://viewer.example"),
    "no key": ("API_KEYS", ",", "at least one item"),
    "an empty list of keys": ("API_KEYS", "", "at least one key"),
    "an empty name of the keys' file": ("API_KEYS_FILE", "", "at least one key"),
    "half a hash": ("API_KEYS", f"good,sha256:{SECRET}", "64 hexadecimal digits"),
    "a hash with blanks": ("API_KEYS", f"sha256:{'ab ' * 32}", "a key without blanks"),
    "a comment for a key": ("API_KEYS", f"#{SECRET}", "a key without blanks and #"),
    "no file of keys": ("API_KEYS_FILE", "/nowhere/keys", "cannot read /nowhere/keys"),
    "a key for a file": ("API_KEYS_FILE", SECRET, "cannot read what it names"),
    "a folder of keys": ("API_KEYS_FILE", "/", "is a directory"),
    "no end of keys": ("API_KEYS_FILE", "/dev/zero", "at most 1048576 bytes"),
    "nothing in the file of keys": ("API_KEYS_FILE", "/dev/null", "at least one key in the file"),
    "no provider of that name": ("PROVIDERS", "cuda", "did you mean CUDAExecutionProvider?"),
    "no name at all": ("PROVIDERS", "zzz,CPUExecutionProvider", "received zzz"),
    "a provider of another package": (
        "PROVIDERS",
        "OpenVINOExecutionProvider",
        "pip install onnxruntime-openvino",
    ),
    "a provider of another build": ("PROVIDERS", "RknpuExecutionProvider", "another build"),
}


@pytest.fixture(autouse=True)
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder, and the log of the tests afterwards."""
    monkeypatch.chdir(tmp_path)
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, disabled = root.handlers[:], root.level, access.disabled
    yield
    root.handlers[:], root.level, access.disabled = handlers, level, disabled


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status and words of a server that does not come up."""
    try:
        status = main(["serve", *arguments])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    return status, capsys.readouterr().err


@pytest.mark.parametrize("name", TROUBLE)
def test_a_wrong_setting_ends_the_start_with_its_name_and_the_reason(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit status 2, no trace of Python, and no value that may be a secret."""
    setting, value, reason = TROUBLE[name]
    monkeypatch.setenv(f"LUNGSEG_{setting}", value)
    status, said = ended(capsys)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"lungseg: LUNGSEG_{setting}: expected ")
    assert reason in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("# readers\n  # none yet\n\n", "at least one key in the file"),
        (f"good\n{SECRET} of the ward\n", "without blanks and # before it in line 2"),
        (f"sha256:{SECRET}\n", "64 hexadecimal digits after sha256: in line 1"),
        ("\xff\xfe", "expected text"),
    ],
)
def test_a_wrong_file_of_keys_ends_the_start(
    lines: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that holds no key must not open the service to everybody."""
    (tmp_path / "keys").write_bytes(lines.encode("latin-1"))
    monkeypatch.setenv("LUNGSEG_API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("LUNGSEG_API_KEYS", "another-one")
    status, said = ended(capsys)
    assert status == 2
    assert said.startswith("lungseg: LUNGSEG_API_KEYS_FILE: expected ")
    assert reason in said
    assert SECRET not in said


@pytest.mark.parametrize("content", [b"LUNGSEG_PORT=many\n", b"\xff\xfe\x00"])
def test_the_file_env_is_read_and_said_to_be_wrong(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As variables of the environment are."""
    (tmp_path / ".env").write_bytes(content)
    status, said = ended(capsys)
    assert (status, "Traceback" in said) == (2, False)
    assert "LUNGSEG_PORT: expected" in said or "the file .env" in said


def test_a_variable_that_nothing_reads_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the nearest name, from the environment and from the file, and without its value."""
    (tmp_path / ".env").write_text(f"LUNGSEG_PROT={SECRET}\nLUNGSEG_QUEUE_SIZE=3\nOTHER=1\n")
    monkeypatch.setenv("LUNGSEG_ZZZ", SECRET)
    monkeypatch.setenv("LUNGSEG_API_KEY", SECRET)
    monkeypatch.setenv("LUNGSEG_TAG", SECRET)
    monkeypatch.setenv("LUNGSEG_API_KEYS_FILE", "/dev/null")
    said = ended(capsys)[1]
    assert "LUNGSEG_PROT is no setting and changes nothing; did you mean LUNGSEG_PORT?" in said
    assert "LUNGSEG_ZZZ is no setting and changes nothing" in said
    assert '"warning"' in said
    assert said.count("is no setting") == 2
    assert SECRET not in said


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "another process uses it"),
        ("192.0.2.1", "this machine has no such address"),
        ("256.1.1.1", "no such name or address is known"),
        ("no..name", "no such name or address is known"),
        ("x" * 64, "no such name or address is known"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line(
    host: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 3, with the port and what to set, before any model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = ended(capsys, "--host", host, "--port", str(port))
    assert (status, said.count("\n")) == (3, 1)
    assert said.startswith(f"lungseg: cannot listen on {host} port {port}: {reason}: ")
    assert "LUNGSEG_PORT" in said or "LUNGSEG_HOST" in said


def test_a_port_without_the_right_to_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the system refuses it to all but root."""

    def refused(_socket: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refused)
    status, said = ended(capsys, "--port", "80")
    assert status == 3
    assert said.startswith("lungseg: cannot listen on 127.0.0.1 port 80: ports below 1024 need")
    assert "take another by LUNGSEG_PORT" in said


def test_of_several_addresses_the_one_that_is_taken_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name may stand for one of IPv6, too, which this machine has switched off."""
    bind = socket.socket.bind

    def bound(one: socket.socket, address: Any) -> None:
        if one.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(one, address)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        families = (socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")
        found = [(family, socket.SOCK_STREAM, 6, "", (host, port)) for family, host in families]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
        monkeypatch.setattr(socket.socket, "bind", bound)
        status, said = ended(capsys, "--host", "localhost", "--port", str(port))
    assert status == 3
    assert said.startswith(f"lungseg: cannot listen on localhost port {port}: another process")


def test_an_address_that_is_taken_meanwhile_ends_the_start_too(models: Path) -> None:
    """With the same exit status: another process may take it after it was looked at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = settings(models, port=taken.getsockname()[1])
        server = Server(configured(create_app(wanted), wanted), wanted)
        with pytest.raises(SystemExit) as end:
            server.run()
    assert end.value.code == 3


def test_the_settings_of_a_connection_reach_the_server(models: Path) -> None:
    """Address, patience with a connection that carries no request, and nothing of uvicorn's log."""
    wanted = settings(models, host="127.0.0.2", port=8123, keep_alive_s=7)
    found = configured(create_app(wanted), wanted)
    assert (found.host, found.port, found.timeout_keep_alive) == ("127.0.0.2", 8123, 7)
    assert (found.access_log, found.log_config) == (False, None)


def test_origins_are_those_that_browsers_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any scheme, a port, all pages, and pages of files, which have none."""
    monkeypatch.setenv("LUNGSEG_CORS_ORIGINS", "https://a.example:8443, app+x://b, null,*")
    made = Settings(_env_file=None)
    assert made.cors_origins == ("https://a.example:8443", "app+x://b", "null", "*")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_the_log_names_an_exception_without_its_text(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings, and what libraries log below errors, may quote a file: they are left out."""
    configure_logging(form, "debug")
    warnings.warn(SECRET, stacklevel=1)
    logging.getLogger("uvicorn.access").error(SECRET)
    for name in ("pydicom", "PIL.Image", "python_multipart", "asyncio", "httpx"):
        logging.getLogger(name).warning(SECRET)
    log = logging.getLogger("lungseg.app")
    try:
        raise ZeroDivisionError(SECRET)
    except ZeroDivisionError:
        extra = {"fields": {"loaded": [1], "folder": Path("/x")}, "secret": SECRET}
        log.exception("failed %s", "twice", extra=extra)
    log.debug("fine")
    configure_logging(form, "warning")
    log.info("too low")
    failed, fine = capsys.readouterr().err.splitlines()
    assert SECRET not in failed
    if form == "console":
        words = "lungseg.app failed twice loaded=[1] folder=/x error=ZeroDivisionError"
        assert failed.partition(" ")[2] == f"error {words}"
        assert fine.endswith("Z debug lungseg.app fine")
        return
    assert json.loads(fine)["level"] == "debug"
    assert list(json.loads(failed).items())[1:] == [
        ("level", "error"),
        ("logger", "lungseg.app"),
        ("message", "failed twice"),
        ("loaded", [1]),
        ("folder", "/x"),
        ("error", "ZeroDivisionError"),
    ]


def test_the_log_keeps_universal_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the millisecond, wherever the machine stands."""
    configure_logging("console", "info")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        members = {"name": "a", "levelname": "INFO", "created": 1.5, "msecs": 7.9, "msg": "b"}
        logging.getLogger().handlers[0].handle(logging.makeLogRecord(members))
    time.tzset()
    assert capsys.readouterr().err == "1970-01-01T00:00:01.007Z info a b\n"


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keys are not shown."""
    monkeypatch.setenv("LUNGSEG_PROVIDERS", "A, B")
    monkeypatch.setenv("LUNGSEG_API_KEYS", "first-key,other-key")
    made = Settings(_env_file=None)
    assert made.providers == ("A", "B")
    assert len(made.api_keys) == 2
    assert "first-key" not in repr(made)


def test_settings_are_frozen() -> None:
    """What was read at the start holds until the end."""
    with pytest.raises(ValidationError):
        setattr(Settings(_env_file=None), "port", 1)  # noqa: B010
