"""Settings: environment variables with the prefix ``LUNGSEG_``, or a ``.env`` file.

Units are in the names: ``_S`` seconds, ``_MS`` milliseconds, ``_BYTES`` bytes. The sentence below
each setting is what ``make docs`` puts into ``docs/settings.md``.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from dotenv import dotenv_values
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lungseg.packaged import models_folder

MIB = 1024 * 1024
PREFIX = "LUNGSEG_"
ENV_FILE = ".env"
"""In the working folder."""
OTHERS = ("LUNGSEG_API_KEY", "LUNGSEG_TAG")
"""Variables with the prefix that are no settings: the client's key, and the composition's tag."""
WEB_ADDRESS = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$"
PATTERNS = {
    r"^(latest|[1-9][0-9]{0,8})$": "`latest` or a positive whole number",
    r"^(/[A-Za-z0-9._~-]+)*$": "a path that begins with `/` and does not end with it",
    WEB_ADDRESS: "an address such as `https://label.example`",
}
"""What the patterns below ask for, in words."""
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\sA-Z]+")
"""What a browser writes into ``Origin``; whatever else is named would never be equal to it."""
KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
BOUNDS = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}


def _log_format() -> Literal["json", "console"]:
    """Text where a person reads standard error, lines for machines where one collects them."""
    return "console" if sys.stderr is not None and sys.stderr.isatty() else "json"


class Settings(BaseSettings):
    """Everything an operator can set; read once at start and never changed."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    host: str = "127.0.0.1"
    """The address on which the service listens: 127.0.0.1 answers this machine alone, 0.0.0.0
    answers every network."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The TCP port on which the service listens; 0 takes any free one."""
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """The path under which a gateway publishes the service, such as `/lungs`; the service writes it
    into its own links."""
    keep_alive_s: int = Field(default=75, ge=1)
    """How long a connection is kept open that carries no request."""

    models_dir: Path = Field(default_factory=models_folder)
    """The folder that holds the models, each version as a bundle in `name/version`; by default the
    folder `models` of the working folder where it holds a model, else the models inside the
    package."""
    model: str = "lung-unet"
    """The name of the model that answers where a request names none."""
    model_version: str = Field(default="latest", pattern=r"^(latest|[1-9][0-9]{0,8})$")
    """The version of that model which answers where a request names none: a number, or `latest` for
    the newest that can be loaded."""
    loaded_versions: int = Field(default=2, ge=1, le=100)
    """How many of the newest versions of each model are kept loaded; an older one can still be
    loaded by its number."""
    reload_interval_s: float = Field(default=10.0, ge=0)
    """How often the models folder is looked at for versions that are new, changed or gone; with 0
    this happens at the start, at SIGHUP and when a client asks for it."""

    model_control: bool = True
    """Whether clients may load and unload versions of the models folder over HTTP."""

    max_header_bytes: int = Field(default=64 * 1024, ge=1024)
    """How many bytes a request may have before its body, its address included, and behind its body
    as trailers; one with more is refused with 431 before any key is looked at."""
    max_header_fields: int = Field(default=100, ge=8)
    """How many header fields a request may have; one with more is refused with 431."""
    max_body_bytes: int = Field(default=64 * MIB, ge=1024)
    """The largest request body that is accepted, also once it is unpacked, and the largest single
    file of a batch; a whole batch has a limit of its own."""
    max_batch_bytes: int = Field(default=256 * MIB, ge=1024)
    """The largest body of a batch that is accepted, also once it is unpacked."""
    max_volume_bytes: int = Field(default=512 * MIB, ge=1024)
    """The largest body of a volume that is accepted, also once it is unpacked, and the most bytes
    that its values may take."""
    max_volume_slices: int = Field(default=2000, ge=1, le=100_000)
    """How many slices one volume may have at most."""
    max_buffered_bytes: int = Field(default=1024 * MIB, ge=1024)
    """How many bytes of request bodies are held in memory at most, as they came and unpacked, those
    of all requests together and until the last thread lets them go; a request that would exceed
    this is refused with 503."""
    max_pixels: int = Field(default=4096 * 4096, ge=1)
    """The largest slice that is accepted, as rows times columns; a larger one is refused before it
    is decoded."""
    max_batch_items: int = Field(default=64, ge=1)
    """How many slices one batch, or one request of the Open Inference Protocol, may hold at
    most."""
    allow_non_ct: bool = False
    """Whether DICOM images are accepted that are no CT slices: those of another Modality,
    localizers, secondary captures, and those that name neither a Modality nor a storage class of
    CT. Where they are not, a single request can still ask for it. A CT storage class without a
    Modality is always accepted. All of these get the flag `not_ct`."""

    workers: int = Field(default=0, ge=0, le=256)
    """How many slices are computed at a time, each in a thread of its own; 0 takes one thread for
    each processor core."""
    queue_size: int = Field(default=32, ge=0)
    """How many requests may wait for a free thread; the next one is refused at once with 503 and
    `Retry-After`."""
    deadline_s: float = Field(default=30.0, gt=0)
    """How long a request may take from its arrival to its answer; what is not ready by then is
    answered with 504."""
    volumes: int = Field(default=1, ge=1, le=256)
    """How many volumes are computed at a time; as many more may wait, and the next one is refused
    at once with 503 and `Retry-After`. They stand back behind slices, which have threads of their
    own."""
    volume_threads: int = Field(default=0, ge=0, le=256)
    """How many threads compute one volume; 0 takes one for each processor core."""
    volume_deadline_s: float = Field(default=300.0, gt=0)
    """How long a request for a volume may take from its arrival to its answer; what is not ready by
    then is answered with 504."""
    header_timeout_s: float = Field(default=10.0, gt=0)
    """How long the headers of a request may take, from its first byte or, on a new connection, from
    the connection; what is not there by then is refused with 408."""
    first_load_s: float = Field(default=10.0, ge=0)
    """How long the start waits for the models before the service accepts connections; after that it
    listens all the same, and `/readyz` says 503 until a model is loaded."""
    drain_s: float = Field(default=20.0, ge=0)
    """How long the requests in flight may take to finish after SIGTERM, before the process ends."""
    linger_s: float = Field(default=1.0, ge=0)
    """How long new work is still accepted after SIGTERM while `/readyz` already says 503, so that a
    load balancer has time to turn away and no connection is reset; with 0 new work is refused at
    once, and the last connections may be reset."""

    decoders: int = Field(default=0, ge=0, le=256)
    """How many compressed DICOM files are decoded at a time, each in a process of its own, which a
    damaged file may end without harm to the service; 0 takes as many as `LUNGSEG_WORKERS`."""
    decoder_timeout_s: float = Field(default=15.0, gt=0)
    """How long one compressed DICOM file may take to decode; its decoder is then killed, and the
    file refused as undecodable."""
    decoder_memory_bytes: int = Field(default=512 * MIB, ge=16 * MIB)
    """How much memory one decoder of compressed DICOM may take on Linux, beyond what it starts
    with; a file that needs more is refused as undecodable."""

    providers: Annotated[tuple[str, ...], NoDecode] = ("CPUExecutionProvider",)
    """The execution providers of ONNX Runtime that run the network, separated by commas, the first
    choice first; the service does not start where one of them is missing."""
    intra_op_threads: int = Field(default=1, ge=0, le=256)
    """How many threads compute one inference; 0 takes one for each processor core."""
    alone_threads: int = Field(default=4, ge=1, le=256)
    """How many threads compute an inference while no other request is being computed, at most one
    for each processor core; it has no effect where `LUNGSEG_INTRA_OP_THREADS` is as large, where
    `LUNGSEG_BATCHING` is not `off`, and on other processors than CPUs."""
    batching: Literal["off", "waiting", "window"] = "off"
    """Whether slices of several requests share one inference: never (`off`), those that wait
    already (`waiting`), or also those that come within a short window (`window`)."""
    batch_max_size: int = Field(default=8, ge=1, le=1024)
    """How many slices share one inference at most, where `LUNGSEG_BATCHING` is not `off`."""
    batch_window_ms: float = Field(default=2.0, ge=0, le=1000)
    """How long a batch that is not full waits for more slices, where `LUNGSEG_BATCHING` is
    `window`."""

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """The keys of which every caller must send one, separated by commas, each as it is or as
    `sha256:` and its hash; where no key is set, everybody may call."""
    api_keys_file: Path | None = None
    """A file of further keys, one a line and in the same two forms; empty lines are skipped, and so
    is whatever follows a # at the beginning of a line or behind a blank. The file must hold a key,
    and it is read again whenever the models folder is looked at."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """The origins of web pages whose scripts may call the service, separated by commas; `*` allows
    all, and none means that only pages of this server may."""

    page: bool = True
    """Whether browsers find a page at `/` that shows the lungs of what is dropped on it; where it
    is off, they get what programs get there."""

    integrations: Annotated[tuple[Literal["monailabel", "labelstudio"], ...], NoDecode] = ()
    """The programs that the service also answers in their own way, separated by commas:
    `monailabel` for 3D Slicer, `labelstudio` for Label Studio; of those not named nothing is
    loaded."""
    monailabel_session_s: float = Field(default=3600.0, gt=0)
    """How long a volume that a client of MONAI Label uploaded is kept after its last use."""
    monailabel_session_bytes: int = Field(default=512 * MIB, ge=MIB)
    """How many bytes of uploaded volumes are kept in memory for clients of MONAI Label, all
    together; a new one takes the place of those that were not used for longest."""
    labelstudio_url: str | None = Field(default=None, pattern=WEB_ADDRESS)
    """The address of the Label Studio from which tasks' images may be fetched; from any other, and
    where none is set, they are refused."""
    labelstudio_token: SecretStr | None = None
    """The legacy token that is sent to that Label Studio and to nobody else."""

    log_format: Literal["json", "console"] = Field(default_factory=_log_format)
    """Whether the log has JSON lines for machines or short text for people; by default text where
    standard error is a terminal, else JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level of which messages are written to the log."""
    tracing: bool = False
    """Whether a span of each request is exported by OpenTelemetry to where the `OTEL_*` variables
    say; this needs the extra `otel`."""

    @field_validator("providers", "api_keys", "cors_origins", "integrations", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not (items := tuple(item.strip() for item in value.split(",") if item.strip())):
            # Of keys, none would mean that everybody may call.
            raise ValueError("expected at least one item, received commas and blanks only")
        return items

    @field_validator("cors_origins")
    @classmethod
    def _comparable(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if all(origin in {"*", "null"} or ORIGIN.fullmatch(origin) for origin in origins):
            return origins
        raise ValueError(
            "expected * or origins as browsers send them, such as https://viewer.example, in lower "
            "case and without a path or a / at the end, received others"
        )

    @cached_property
    def cores(self) -> int:
        """Processor cores that this process may use."""
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


def expectation(name: str) -> str:
    """What may be set, in words: the kind or the choices, and the range."""
    field = Settings.model_fields[name]
    for item in field.metadata:
        if pattern := getattr(item, "pattern", None):
            return PATTERNS[pattern]
    several = get_origin(field.annotation) is tuple
    if choices := get_args(get_args(field.annotation)[0] if several else field.annotation):
        return " or ".join(map(str, choices))
    limits = [
        text.format(getattr(item, bound))
        for item in field.metadata
        for bound, text in BOUNDS.items()
        if getattr(item, bound, None) is not None
    ]
    kind = next((text for kind, text in KINDS.items() if field.annotation is kind), "text")
    return f"{kind}, {' and '.join(limits)}" if limits else kind


def unknown_variables() -> dict[str, str]:
    """Variables with the prefix that nothing reads, and the nearest name that something does.

    Raises:
        ValueError: the file ``.env`` is no text.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | set(OTHERS)
    unknown = sorted(name for name, _ in _given() if name not in known)
    return {name: next(iter(difflib.get_close_matches(name, known)), "") for name in unknown}


def empty_key_variables() -> list[str]:
    """The sources of keys that are named without a value: nobody means to let everybody call."""
    sources = (f"{PREFIX}API_KEYS", f"{PREFIX}API_KEYS_FILE")
    given = dict(_given())
    return [name for name in sources if name in given and not given[name]]


def _given() -> Iterator[tuple[str, str]]:
    """Name and value of all variables with the prefix; of equal names the one that counts last."""
    try:
        lines = dotenv_values(ENV_FILE) if Path(ENV_FILE).is_file() else {}
    except UnicodeDecodeError:
        raise ValueError("expected text in the file .env, received other bytes") from None
    for source in (lines, os.environ):
        for name, value in source.items():
            if name.upper().startswith(PREFIX):
                yield name.upper(), value or ""
