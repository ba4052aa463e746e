"""Settings: environment variables with the prefix ``LUNGSEG_``, or a ``.env`` file.

Units are in the names: ``_S`` seconds, ``_MS`` milliseconds, ``_BYTES`` bytes.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lungseg.packaged import models_folder

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Everything an operator can set; read once at start and never changed."""

    model_config = SettingsConfigDict(
        env_prefix="LUNGSEG_", env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port; 0 = any free one.")
    root_path: str = Field(default="", description="Path that a gateway publishes under.")
    keep_alive_s: int = Field(default=75, ge=1, description="How long an idle connection is kept.")

    models_dir: Path = Field(
        default_factory=models_folder, description="Folder of `name/version` bundles."
    )
    model: str = Field(default="lung-unet", description="Model used where a request names none.")
    model_version: str = Field(
        default="latest", pattern=r"^(latest|[1-9][0-9]{0,8})$", description="`latest` or a number."
    )
    loaded_versions: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Newest versions of each model that are loaded.",
    )
    reload_interval_s: float = Field(
        default=10.0,
        ge=0,
        description="How often the folder is looked at; 0 = when told.",
    )

    model_control: bool = Field(
        default=True, description="Let clients load and unload versions of the models folder."
    )

    max_body_bytes: int = Field(default=64 * MIB, ge=1024, description="Largest body of one slice.")
    max_batch_bytes: int = Field(default=256 * MIB, ge=1024, description="Largest body of a batch.")
    max_buffered_bytes: int = Field(
        default=512 * MIB,
        ge=1024,
        description="Bodies in memory, of all requests together.",
    )
    max_pixels: int = Field(default=4096 * 4096, ge=1, description="Largest slice, rows x columns.")
    max_batch_items: int = Field(default=64, ge=1, description="Most slices in one request.")
    allow_non_ct: bool = Field(default=False, description="Accept DICOM that is not CT.")

    workers: int = Field(
        default=0, ge=0, le=256, description="Computing threads; 0 = one per core."
    )
    queue_size: int = Field(default=32, ge=0, description="Requests that may wait for a worker.")
    deadline_s: float = Field(default=30.0, gt=0, description="Time for an answer, from arrival.")
    first_load_s: float = Field(
        default=10.0,
        ge=0,
        description="How long nobody can connect because models are still being loaded.",
    )
    drain_s: float = Field(default=20.0, ge=0, description="Time to finish work after SIGTERM.")
    linger_s: float = Field(
        default=0.0,
        ge=0,
        description="How long new work is still taken after SIGTERM, not ready already.",
    )

    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("CPUExecutionProvider",), description="ONNX Runtime providers, first choice first."
    )
    intra_op_threads: int = Field(
        default=1, ge=0, le=256, description="Threads of one inference; 0 = one per core."
    )
    batching: Literal["off", "waiting", "window"] = Field(
        default="off", description="Join slices that wait, or that come within the window."
    )
    batch_max_size: int = Field(default=8, ge=1, le=1024, description="Slices in one inference.")
    batch_window_ms: float = Field(default=2.0, ge=0, le=1000, description="How long one is open.")

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Keys, or `sha256:` and their hash, comma-separated.",
    )
    api_keys_file: Path | None = Field(default=None, description="File with one such key a line.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of web pages whose scripts may call, comma-separated; `*` = all.",
    )

    log_format: Literal["json", "console"] = Field(default="json", description="Form of the log.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest."
    )
    tracing: bool = Field(
        default=False, description="OpenTelemetry export (extra `otel`, OTEL_* variables)."
    )

    @field_validator("providers", "api_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value

    @cached_property
    def cores(self) -> int:
        """Processor cores that this process may use."""
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )

    def key_hashes(self) -> tuple[bytes, ...]:
        """SHA-256 of each API key, from the environment and the file.

        Raises:
            OSError: the file cannot be read.
            ValueError: a ``sha256:`` entry is not followed by 64 hexadecimal digits.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            keys += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return tuple(_hash(key) for key in keys)


def _hash(key: str) -> bytes:
    if not key.startswith("sha256:"):
        return hashlib.sha256(key.encode()).digest()
    digest = bytes.fromhex(key.removeprefix("sha256:"))
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("expected 64 hexadecimal digits after sha256: in an API key")
    return digest
