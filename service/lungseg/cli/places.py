"""Where slices are computed, here or by a server, and what is said where that cannot be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import httpx

from lungseg.answers import File
from lungseg.calling import ServiceError, check_url
from lungseg.cli.configured import NO_KEYS, configured
from lungseg.cli.errors import UsageError
from lungseg.client import Client
from lungseg.core.errors import InvalidParameter, LungsegError
from lungseg.formats.dicom_derived import NOT_INSTALLED, check_installed

if TYPE_CHECKING:
    from lungseg.inference.model import Model
    from lungseg.settings import Settings

AHEAD = 2
"""Slices under way per processor: one computes while the next is read."""
KEY = "LUNGSEG_API_KEY"
INSTALL = 'pip install "lungseg[dicom-seg]"'
_NOISE = re.compile(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$")
"""Numbers and names by which Python's errors are known to programmers."""
_PASSING = (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.TOO_MANY_REQUESTS)
"""Statuses by which something before the service refuses one file alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where slices are computed.

    Attributes:
        fetch: makes the answer for a slice's content; raises ``LungsegError`` where this slice
            is refused, and ``UsageError`` where no other will fare better.
        at_a_time: how many slices are worked on at a time.
    """

    fetch: Callable[[bytes], File]
    at_a_time: int


def here(form: str, parameters: dict[str, Any], *, models_dir: Path | None) -> Place:
    """This process, as its settings say: model, version, providers, threads and limits.

    Raises:
        UsageError: a setting is wrong, or there is no such model.
    """
    settings = configured(NO_KEYS | ({} if models_dir is None else {"models_dir": models_dir}))
    if form == "dicom-seg":
        try:
            check_installed()
        except InvalidParameter as error:
            raise UsageError(f"{error}: {INSTALL}") from None
    from lungseg.library import Segmenter  # ONNX Runtime, which a server's caller spares
    from lungseg.pipeline import Pipeline

    others = {name: value for name, value in parameters.items() if name not in ("model", "version")}
    model = _model(settings, parameters["model"] or settings.model, parameters["version"])
    pipeline = Pipeline(max_pixels=settings.max_pixels, allow_non_ct=settings.allow_non_ct)
    return Place(
        fetch=partial(Segmenter(model, pipeline).fetch, form=form, **others),
        at_a_time=settings.workers or AHEAD * settings.cores,
    )


def _model(settings: Settings, name: str, version: str | None) -> Model:
    from lungseg.inference.session import ProviderMissing
    from lungseg.library import load

    if version is None and name == settings.model and settings.model_version != "latest":
        version = settings.model_version
    try:
        return load(
            name,
            version=version,
            models=settings.models_dir,
            threads=settings.intra_op_threads or settings.cores,
            providers=settings.providers,
        ).model
    except ProviderMissing as error:
        raise UsageError(f"LUNGSEG_PROVIDERS: {error}") from None
    except LungsegError as error:
        raise UsageError(str(error)) from None


@contextmanager
def there(form: str, parameters: dict[str, Any], *, url: str) -> Generator[Place]:
    """The server at a URL.

    Raises:
        UsageError: the URL, or the key that the environment holds, cannot be one.
    """
    named = "--url"
    try:
        check_url(url)
        named = KEY
        client = Client(url, api_key=os.environ.get(KEY))
    except InvalidParameter as error:
        raise UsageError(f"{named}: {error}") from None
    shown = str(httpx.URL(url).copy_with(userinfo=b""))

    calls = _Calls(client)

    def fetch(content: bytes) -> File:
        try:
            with calls.one():
                return client.fetch(content, form=form, **parameters)
        except ServiceError as error:
            if reason := _fatal(error, parameters):
                raise UsageError(f"{shown} {reason}") from None
            raise
        except httpx.TransportError as error:
            reason = _NOISE.sub("", str(error)) or type(error).__name__
            raise UsageError(f"{shown} cannot be reached: {reason}") from None

    with calls.one():
        yield Place(fetch=fetch, at_a_time=AHEAD * (os.cpu_count() or 1))


class _Calls:
    """Closes a client when the last one lets go of it.

    A run that ends early does not wait for its threads, and a client that is closed while one of
    them is about to connect forgets that connection without closing it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._count = 0
        self._lock = Lock()

    @contextmanager
    def one(self) -> Generator[None]:
        with self._lock:
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                last = self._count == 0
            if last:
                self._client.close()


def _fatal(error: ServiceError, parameters: dict[str, Any]) -> str:
    """What a server's refusal means for all files; empty where it means this one alone."""
    if error.code == "unauthorized":
        return f"expects an API key that it knows: {KEY} holds none, or another"
    if error.code in ("unknown_model", "model_not_ready"):
        asked = [f"{name} {parameters[name]}" for name in ("model", "version") if parameters[name]]
        return f"has no {', '.join(asked) or 'model'} that could answer: {error.detail}"
    if error.detail == NOT_INSTALLED:
        return f"cannot write dicom-seg: {NOT_INSTALLED}"
    strange = error.code == "unknown" and error.status < 500 and error.status not in _PASSING
    if strange or error.code == "not_found":
        return f"is not where lungseg answers: received status {error.status}"
    return ""
