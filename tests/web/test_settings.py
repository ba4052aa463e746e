"""Settings: what the environment gives, and how what is wrong with it is said."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from lungseg.cli import main
from lungseg.settings import Settings

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
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


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
