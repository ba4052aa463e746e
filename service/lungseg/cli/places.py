"""Where slices and volumes are computed, here or by a server; what is said where they cannot be."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

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
    from lungseg.library import Segmenter
    from lungseg.settings import Settings

T = TypeVar("T")
AHEAD = 2
"""Slices under way per processor: one computes while the next is read."""
KEY = "LUNGSEG_API_KEY"
INSTALL = 'pip install "lungseg[dicom-seg]"'
_NOISE = re.compile(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$")
"""Numbers and names by which Python's errors are known to programmers."""
_PASSING = (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.TOO_MANY_REQUESTS)
"""Statuses by which something before the service refuses one file alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of each input.

    Attributes:
        ask: asks a segmenter or a client of the content of an input, with parameters by name.
        forms: of the results.
        parameters: by name; None where nothing is said.
        volumes: whether inputs are volumes: each takes all processors, and a gigabyte.
    """

    ask: Callable[..., Sequence[File]]
    forms: Sequence[str]
    parameters: dict[str, Any]
    volumes: bool = False

    @property
    def things(self) -> str:
        """What inputs are called."""
        return "volumes" if self.volumes else "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where inputs are computed.

    Attributes:
        fetch: makes the results for the content of an input; raises ``LungsegError`` where this
            one is refused, and ``UsageError`` where no other will fare better.
        at_a_time: how many inputs are worked on at a time.
        things: what inputs are called.
        model: the SHA-256 of the model that would answer now; raises ``UsageError``.
    """

    fetch: Callable[[Any], Sequence[File]]
    at_a_time: int
    things: str
    model: Callable[[], str]


@contextmanager
def place_of(options: argparse.Namespace, question: Question, **given: Any) -> Generator[Place]:
    """The server that the options name, or this process; ``given`` goes before its settings.

    Raises:
        UsageError: see ``here`` and ``there``.
    """
    if options.url is None:
        yield here(question, models_dir=options.models_dir, **given)
    else:
        with there(question, url=options.url) as place:
            yield place


def here(question: Question, *, models_dir: Path | None, **given: Any) -> Place:
    """This process, as its settings say: model, version, providers, threads and limits.

    Args:
        question: what is asked.
        models_dir: folder of models; None for that of the settings.
        given: settings that go before theirs.

    Raises:
        UsageError: a setting is wrong, or there is no such model.
    """
    folder = {} if models_dir is None else {"models_dir": models_dir}
    settings = configured({**NO_KEYS, **folder, **given})
    if any(form.startswith("dicom-") for form in question.forms):
        try:
            check_installed()
        except InvalidParameter as error:
            raise UsageError(f"{error}: {INSTALL}") from None
    segmenter, others = _segmenter(question, settings)
    return Place(
        fetch=partial(question.ask, segmenter, **others),
        at_a_time=1 if question.volumes else settings.workers or AHEAD * settings.cores,
        things=question.things,
        model=lambda: segmenter.model.contract.sha256,
    )


def _segmenter(question: Question, settings: Settings) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter of the model that is asked for, and the other parameters."""
    # ONNX Runtime, which a server's caller spares
    from lungseg.library import LOCAL_LIMITS, Segmenter
    from lungseg.pipeline import Pipeline
    from lungseg.volumes import VolumePipeline

    others = {**question.parameters}
    name, version = others.pop("model"), others.pop("version")
    # The slabs of a volume have threads of their own.
    threads = 1 if question.volumes else settings.cores
    model = _model(settings, name or settings.model, version, threads)
    pipeline = Pipeline(max_pixels=settings.max_pixels, allow_non_ct=settings.allow_non_ct)
    limits = replace(
        LOCAL_LIMITS,
        max_slices=settings.max_volume_slices,
        max_bytes=settings.max_volume_bytes,
        max_pixels=settings.max_pixels,
    )
    volumes = VolumePipeline(threads=settings.volume_threads or settings.cores, limits=limits)
    return Segmenter(model, pipeline, volumes), others


def _model(settings: Settings, name: str, version: str | None, threads: int) -> Model:
    from lungseg.inference.session import ProviderMissing
    from lungseg.library import load

    if version is None and name == settings.model and settings.model_version != "latest":
        version = settings.model_version
    try:
        return load(
            name,
            version=version,
            models=settings.models_dir,
            threads=settings.intra_op_threads or threads,
            providers=settings.providers,
        ).model
    except ProviderMissing as error:
        raise UsageError(f"LUNGSEG_PROVIDERS: {error}") from None
    except LungsegError as error:
        raise UsageError(str(error)) from None


@contextmanager
def there(question: Question, *, url: str) -> Generator[Place]:
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

    def fetch(content: Any) -> Sequence[File]:
        return answered(lambda: question.ask(client, content, **question.parameters))

    def answered(ask: Callable[[], T]) -> T:
        try:
            with calls.one():
                return ask()
        except ServiceError as error:
            if reason := _fatal(error, question):
                raise UsageError(f"{shown} {reason}") from None
            raise
        except httpx.TransportError as error:
            reason = _NOISE.sub("", str(error)) or type(error).__name__
            raise UsageError(f"{shown} cannot be reached: {reason}") from None

    with calls.one():
        yield Place(
            fetch=fetch,
            at_a_time=1 if question.volumes else AHEAD * (os.cpu_count() or 1),
            things=question.things,
            model=lambda: _sha256(partial(answered, client.models), question, shown),
        )


def _sha256(models: Callable[[], list[dict[str, Any]]], question: Question, shown: str) -> str:
    """That of the model which answers what is asked; raises ``UsageError`` where there is none."""
    name, number = question.parameters["model"], question.parameters["version"]
    try:
        found = models()
    except ServiceError as error:  # of a gateway, for one, whose service is about to start
        raise UsageError(f"{shown}: {error}") from None
    for model in found:
        if model["name"] == name if name else model["default"]:
            for version in model["versions"]:
                asked = version["version"] == number if number else version["serving"]
                if asked and version["sha256"]:
                    return version["sha256"]
    raise UsageError(f"{shown} has no {name or 'model'} that could answer")


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


def _fatal(error: ServiceError, question: Question) -> str:
    """What a server's refusal means for all files; empty where it means this one alone."""
    if error.code == "unauthorized":
        return f"expects an API key that it knows: {KEY} holds none, or another"
    if error.code in ("unknown_model", "model_not_ready"):
        parameters = question.parameters
        asked = [f"{name} {parameters[name]}" for name in ("model", "version") if parameters[name]]
        return f"has no {', '.join(asked) or 'model'} that could answer: {error.detail}"
    if error.detail == NOT_INSTALLED:
        wanted = [form for form in question.forms if form.startswith("dicom-")]
        return f"cannot write {', '.join(wanted)}: {NOT_INSTALLED}"
    strange = error.code == "unknown" and error.status < 500 and error.status not in _PASSING
    if strange or error.code == "not_found":
        return f"is not where lungseg answers: received status {error.status}"
    return ""
