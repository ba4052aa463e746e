"""Command line: ``lungseg segment`` and ``lungseg serve``.

Exit codes: 0 = every file was segmented, 1 = some were refused (standard error says which and
why), 2 = nothing could be done: wrong usage, no files, no model, no server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx

from lungseg.client import AsyncClient, File, ServiceError

OK, SOME_FAILED, UNUSABLE = 0, 1, 2
SUFFIXES = {
    "json": ".json",
    "png": ".mask.png",
    "overlay": ".overlay.png",
    "probability": ".probability.png",
    "npy": ".mask.npy",
    "dicom-seg": ".seg.dcm",
}
STREAM = "-"
BAR_WIDTH = 30
AHEAD = 2
"""Requests under way per processor: one computes while the next is read."""
_LOCAL_URL = "http://in-process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One slice: where it is, and its name for outputs and tables."""

    path: Path | None
    name: str

    def read(self) -> bytes:
        """The content; standard input where there is no path."""
        return sys.stdin.buffer.read() if self.path is None else self.path.read_bytes()


class UsageError(Exception):
    """What was asked for can't be done at all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            return _serve(options)
        inputs = _inputs(options.files)
        _check_outputs(options, inputs)
        return asyncio.run(_segment(options, inputs))
    except (UsageError, ServiceError, httpx.TransportError, OSError) as error:
        print(f"lungseg: {error or type(error).__name__}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lungseg", description=(__doc__ or "").partition("\n\n")[2]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    segment = commands.add_parser(
        "segment", help="segment CT slices, here or by a server", description=__doc__
    )
    add = segment.add_argument
    add("files", nargs="+", help="files or folders (searched recursively); - is standard input")
    add("-o", "--output", help="folder for results and statistics.csv; - or none: standard output")
    add("--format", choices=SUFFIXES, default="json", help="form of the results (default: json)")
    add("--csv", type=Path, help="write a table of statistics there")
    add("--url", help="of a server; without it the model runs in this process")
    add("--models-dir", type=Path, help="folder of models for running here")
    add("--model", help="name of the model")
    add("--version", help="version of the model")
    add("--encoding", help="of the mask within JSON (default: coco_rle)")
    add("--threshold", type=float, help="lung is where the probability is at least this")
    add("--spacing-mm", help="row,column spacing of pictures that carry none")
    add("--window-hu", help="low,high: HU of black and white in pictures")
    add("--largest-components", type=int, help="most connected regions to keep, 0 = all")
    add("--allow-non-ct", action="store_true", default=None, help="accept DICOM that is not CT")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    serve = commands.add_parser("serve", help="run the server; LUNGSEG_* variables set the rest")
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=int, help="TCP port")
    serve.add_argument("--models-dir", type=Path, help="folder of models")
    return parser


def _serve(options: argparse.Namespace) -> int:
    """Becomes the server's process, so that signals reach it."""
    for name in ("host", "port", "models_dir"):
        value = getattr(options, name)
        if value is not None:
            os.environ[f"LUNGSEG_{name.upper()}"] = str(value)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "lungseg"])  # noqa: S606 - ourselves


def _inputs(names: Sequence[str]) -> list[Input]:
    found: list[Input] = []
    for name in names:
        path = Path(name)
        if name == STREAM:
            found.append(Input(path=None, name="stdin"))
        elif path.is_dir():
            files = (file for file in sorted(path.rglob("*")) if file.is_file())
            found += [
                Input(path=file, name=str(file.relative_to(path)))
                for file in files
                if not file.name.startswith(".")
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


async def _segment(options: argparse.Namespace, inputs: list[Input]) -> int:
    rows: list[tuple[str, dict[str, Any]]] = []
    async with _client(options) as client:
        parameters = _parameters(options)
        progress = _Progress(len(inputs), shown=not options.quiet)
        async for item, answer in _answers(client, inputs, options.format, parameters):
            if isinstance(answer, File):
                rows.append((item.name, answer.summary))
                _write(options, item, answer.content)
            else:
                rows.append((item.name, {"error": {"code": answer[0]}}))
                progress.say(f"{item.name}: {answer[1]}")
            progress.step()
        progress.end()
    _write_table(options, rows)
    return SOME_FAILED if any("error" in row for _, row in rows) else OK


async def _answers(
    client: AsyncClient, inputs: list[Input], form: str, parameters: dict[str, Any]
) -> AsyncGenerator[tuple[Input, File | tuple[str, str]]]:
    """Answers in the order of the inputs; a refusal as its code and sentence."""
    pending: deque[tuple[Input, asyncio.Task[File | tuple[str, str]]]] = deque()
    waiting = iter(inputs)
    limit = AHEAD * (os.cpu_count() or 1)
    try:
        while True:
            while len(pending) < limit and (item := next(waiting, None)) is not None:
                work = _answer(client, item, form, parameters)
                pending.append((item, asyncio.create_task(work)))
            if not pending:
                return
            item, task = pending.popleft()
            yield item, await task
    finally:
        for _, task in pending:
            task.cancel()


async def _answer(
    client: AsyncClient, item: Input, form: str, parameters: dict[str, Any]
) -> File | tuple[str, str]:
    try:
        content = item.read()
    except OSError:
        return "unreadable", "the file cannot be read"
    try:
        return await client.fetch(content, form, **parameters)
    except ServiceError as error:
        if error.code in ("unauthorized", "unknown_model", "model_not_ready"):
            raise  # no file will fare better
        return error.code, error.detail


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    names = ("encoding", "threshold", "spacing_mm", "window_hu", "largest_components")
    chosen = {name: getattr(options, name) for name in (*names, "allow_non_ct")}
    return chosen | {"model": options.model, "version": options.version}


@asynccontextmanager
async def _client(options: argparse.Namespace) -> AsyncGenerator[AsyncClient]:
    if options.url:
        key = os.environ.get("LUNGSEG_API_KEY")
        async with AsyncClient(options.url, api_key=key) as client:
            yield client
        return
    from lungseg.local import in_process

    async with (
        in_process(options.models_dir, options.model) as transport,
        AsyncClient(_LOCAL_URL, transport=transport, retries=0) as client,
    ):
        yield client


def _write(options: argparse.Namespace, item: Input, content: bytes) -> None:
    if options.output in (None, STREAM):
        if options.format == "json":
            answer = {"filename": item.name, **json.loads(content)}
            content = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    target = Path(options.output) / f"{item.name}{SUFFIXES[options.format]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _write_table(options: argparse.Namespace, rows: list[tuple[str, dict[str, Any]]]) -> None:
    from lungseg.formats.table import statistics_csv

    places = [options.csv] if options.csv else []
    if options.output not in (None, STREAM):
        places.append(Path(options.output) / "statistics.csv")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(statistics_csv(rows), encoding="utf-8")


class _Progress:
    """A bar on standard error, where that is a terminal."""

    def __init__(self, total: int, *, shown: bool, stream: TextIO | None = None) -> None:
        self._total, self._done = total, 0
        self._stream = stream or sys.stderr
        self._shown = shown and self._stream.isatty()

    def step(self) -> None:
        self._done += 1
        if self._shown:
            filled = BAR_WIDTH * self._done // self._total
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            print(f"\r[{bar}] {self._done}/{self._total}", end="", file=self._stream, flush=True)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        print(f"\r\033[K{line}" if self._shown else line, file=self._stream)

    def end(self) -> None:
        if self._shown:
            print(file=self._stream)


if __name__ == "__main__":
    sys.exit(main())
