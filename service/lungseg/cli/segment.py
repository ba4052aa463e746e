"""``lungseg segment``: slices here, or by a server, to files and a table of statistics."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from lungseg.answers import File
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.client import Client, ServiceError
from lungseg.core.errors import LungsegError
from lungseg.formats.table import statistics_csv
from lungseg.forms import FORMS
from lungseg.query import OneOf, SegmentQuery, checked_query

STREAM = "-"
AHEAD = 2
"""Requests under way per processor: one computes while the next is read."""
Refusal = tuple[str, str]
"""Why a slice has no answer: code and sentence."""
FATAL = ("unauthorized", "unknown_model", "model_not_ready")
"""Codes after which no other file will fare better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One slice: where it is, and its name for outputs and tables."""

    path: Path | None
    name: str

    def read(self) -> bytes:
        """The content; standard input where there is no path."""
        return sys.stdin.buffer.read() if self.path is None else self.path.read_bytes()


def add_to(commands: Any) -> None:
    """Adds the command; what may be asked of a slice is what ``SegmentQuery`` lists."""
    text = "segment CT slices, here or by a server"
    parser = commands.add_parser("segment", help=text, description=text)
    add = parser.add_argument
    add("files", nargs="+", help="files or folders (searched recursively); - is standard input")
    add("-o", "--output", help="folder for results and statistics.csv; - or none: standard output")
    add("--format", choices=FORMS, default="json", help="form of the results (default: json)")
    add("--csv", type=Path, help="write a table of statistics there")
    add("--url", help="of a server; without it the model runs in this process")
    add("--models-dir", type=Path, help="folder of models for running here")
    for name, item in SegmentQuery.model_fields.items():
        switch: dict[str, Any] = {}
        if item.annotation is bool:
            switch = {"action": "store_true", "default": None}
        elif names := [kind.names for kind in item.metadata if isinstance(kind, OneOf)]:
            switch = {"choices": names[0], "type": str.lower}
        add(
            f"--{name.replace('_', '-')}",
            help=(item.description or "").replace("%", "%%"),
            **switch,
        )
    add("-q", "--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Segments the files; returns the exit code.

    Raises:
        UsageError: nothing can be done at all.
    """
    inputs = _inputs(options.files)
    _check_outputs(options, inputs)
    parameters = {name: getattr(options, name) for name in SegmentQuery.model_fields}
    try:
        checked_query(parameters)
        with ExitStack() as stack:
            fetch = _opened(options, parameters, stack)
            return _segment(options, inputs, fetch)
    except (LungsegError, ServiceError) as error:
        raise UsageError(str(error)) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise UsageError(
            f"{options.url} cannot be reached: {error or type(error).__name__}"
        ) from None


def _opened(
    options: argparse.Namespace, parameters: dict[str, Any], stack: ExitStack
) -> Callable[[bytes], File]:
    """What makes one answer: a server asked, or a model run here."""
    if options.url:
        key = os.environ.get("LUNGSEG_API_KEY")
        client = stack.enter_context(Client(options.url, api_key=key))
        return partial(client.fetch, form=options.format, **parameters)
    from lungseg.library import DEFAULT_MODEL, load  # ONNX Runtime, which a server's caller spares

    name = parameters.pop("model") or os.environ.get("LUNGSEG_MODEL") or DEFAULT_MODEL
    models = options.models_dir or os.environ.get("LUNGSEG_MODELS_DIR")
    segmenter = load(name, version=parameters.pop("version"), models=models)
    return partial(segmenter.fetch, form=options.format, **parameters)


def _inputs(names: Sequence[str]) -> list[Input]:
    found: list[Input] = []
    for name in names:
        path = Path(name)
        if name == STREAM:
            found.append(Input(path=None, name="stdin"))
        elif path.is_dir():
            found += [
                Input(path=file, name=str(file.relative_to(path)))
                for file in sorted(path.rglob("*"))
                if file.is_file() and not file.name.startswith(".")
            ]
        elif path.exists():
            found.append(Input(path=path, name=path.name))
        else:
            raise UsageError(f"expected a file or folder, received {name}: there is none")
    if not found:
        raise UsageError("expected slices, received folders without files")
    twice = [name for name, count in Counter(item.name for item in found).items() if count > 1]
    if twice:
        raise UsageError(f"two files are called {twice[0]}: segment their folders one by one")
    return found


def _check_outputs(options: argparse.Namespace, inputs: list[Input]) -> None:
    to_stream = options.output in (None, STREAM)
    if to_stream and options.format != "json" and len(inputs) > 1:
        raise UsageError(f"{options.format} of several files needs a folder: -o DIR")
    if sum(item.path is None for item in inputs) > 1:
        raise UsageError("standard input can be read only once")


def _segment(
    options: argparse.Namespace, inputs: list[Input], fetch: Callable[[bytes], File]
) -> int:
    rows: list[tuple[str, dict[str, Any]]] = []
    hidden = options.quiet or None  # None: where standard error is no terminal
    for item, answer in tqdm(_answers(inputs, fetch), total=len(inputs), disable=hidden):
        if isinstance(answer, File):
            rows.append((item.name, answer.summary))
            _write(options, item, answer.content)
        else:
            code, sentence = answer
            rows.append((item.name, {"error": {"code": code}}))
            tqdm.write(f"{item.name}: {sentence}", sys.stderr)
    _write_table(options, rows)
    return SOME_FAILED if any("error" in row for _, row in rows) else OK


def _answers(
    inputs: list[Input], fetch: Callable[[bytes], File]
) -> Generator[tuple[Input, File | Refusal]]:
    """Answers in the order of the inputs; a few are worked on at a time."""
    limit = AHEAD * (os.cpu_count() or 1)
    pool = ThreadPoolExecutor(limit, thread_name_prefix="lungseg-cli")
    begun = ((item, pool.submit(_answer, item, fetch)) for item in inputs)
    try:
        pending = deque(islice(begun, limit))
        while pending:
            item, answer = pending.popleft()
            yield item, answer.result()
            pending.extend(islice(begun, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(item: Input, fetch: Callable[[bytes], File]) -> File | Refusal:
    try:
        return fetch(item.read())
    except OSError:
        return "unreadable", "the file cannot be read"
    except (LungsegError, ServiceError) as error:
        if error.code in FATAL:
            raise
        return error.code, error.detail if isinstance(error, ServiceError) else str(error)


def _write(options: argparse.Namespace, item: Input, content: bytes) -> None:
    if options.output in (None, STREAM):
        if options.format == "json":
            answer = {"filename": item.name, **json.loads(content)}
            content = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    target = Path(options.output) / f"{item.name}{FORMS[options.format].suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _write_table(options: argparse.Namespace, rows: list[tuple[str, dict[str, Any]]]) -> None:
    places = [options.csv] if options.csv else []
    if options.output not in (None, STREAM):
        places.append(Path(options.output) / "statistics.csv")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(statistics_csv(rows), encoding="utf-8", errors="backslashreplace")
