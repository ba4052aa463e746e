"""The command: its options, what a worker is told and does, and how a run ends."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lungseg.answers import File
from lungseg.cli.bar import Bar
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.outputs import Outputs, replace_file
from lungseg.cli.places import Place, Question, here, there
from lungseg.cli.running import Refusal, answer_of
from lungseg.cli.streams import say
from lungseg.cli.volume import ask, forms_of
from lungseg.client import Client
from lungseg.formats.decoders import usable_cores
from lungseg.formats.table import VOLUMES
from lungseg.integrations.cohort import ray_crew
from lungseg.integrations.cohort.crew import Crew, Lost, processes, work_through
from lungseg.integrations.cohort.ledger import Ledger, Study, read_index, tables
from lungseg.volume_query import VolumeQuery

if TYPE_CHECKING:
    from lungseg.library import Segmenter

MODEL = ("model", "version")
LOST = "worker_lost"
PATIENCE_S = 3600.0
"""How long a study may take: the largest take minutes."""
MEBIBYTE = 1 << 20


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options; what may be asked of all studies is what ``VolumeQuery`` lists."""
    add = parser.add_argument
    text = "CSV with the columns study and path; columns named as options hold for their row"
    add("index", type=Path, help=text)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for results and tables")
    add("--format", type=forms_of, default=["nifti"], metavar="FORM,…", help="default: nifti")
    text = "the i-th of n parts of the index, from 0 (default: 0/1, all of it)"
    add("--shard", type=_shard, default=(0, 1), metavar="i/n", help=text)
    text = "how many at a time, each with one thread (default: one for each processor)"
    add("--workers", type=int, default=usable_cores(), help=text)
    add("--engine", choices=("processes", "ray"), default="processes", help="what workers are")
    add("--memory-mb", type=int, help="of one worker; a study that needs more is refused")
    add("--study-s", type=float, default=PATIENCE_S, help="seconds that a study may take")
    add("--retry-failed", action="store_true", help="try again what has no result")
    add("-q", "--quiet", action="store_true", help="no progress bar")
    add_place(parser)
    add_parameters(parser, VolumeQuery)
    parser.set_defaults(run=run)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected i/n with i from 0 to n - 1, received {text!r}")
    return int(found[1]), int(found[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What a worker is told."""

    question: Question
    ledger: Ledger
    url: str | None
    models_dir: Path | None
    memory_mb: int | None

    def place(self, stack: ExitStack) -> Place:
        """Where studies are computed; here by one thread."""
        if self.url is not None:
            return stack.enter_context(there(self.question, url=self.url))
        return here(self.question, models_dir=self.models_dir, volume_threads=1)

    def open(self) -> Any:
        """In the worker: bounds its memory, and opens the place."""
        if self.memory_mb is not None:
            import resource

            limit = self.memory_mb * MEBIBYTE
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        stack = ExitStack()  # the end of the process closes it
        try:
            return partial(_compute, self.ledger, self.place(stack), stack)
        except MemoryError:
            raise UsageError("--memory-mb: expected more, a worker does not even start") from None


def _compute(
    ledger: Ledger, place: Place, _open: ExitStack, task: tuple[Study, str]
) -> dict[str, Any]:
    """In the worker: computes and writes one study, and its marker after that."""
    study, stem = task
    try:
        answer = answer_of(study, place)
    except (UsageError, OSError):  # which would befall the others too
        raise
    except Exception as error:  # noqa: BLE001 - a bug costs its study alone
        answer = Refusal("internal_error", f"the study ended in a {type(error).__name__}")
    if isinstance(answer, Refusal):
        refused = {"error": {"code": answer.code}}
        return ledger.mark(study, stem, refused, answer.sentence)
    summary = answer[0].summary
    if summary["model"]["sha256"] != ledger.model:
        raise UsageError("another model answers than when the command began")
    names = {study.name: ledger.targets(stem)}
    outputs = Outputs(folder=ledger.folder, prints=False, table=VOLUMES, tables=(), targets=names)
    result = outputs.write(study.name, answer)
    return ledger.mark(study, stem, {**summary, "result": result})


def _ask(
    place: Segmenter | Client, content: Any, forms: Sequence[str], **parameters: Any
) -> list[File]:
    source, own = content
    return ask(place, source, forms, **{**parameters, **own})


def run(options: argparse.Namespace) -> int:
    """Segments what is left of the shard; returns the exit code.

    Raises:
        UsageError: nothing can be done at all, or no more.
        KeyboardInterrupt: SIGINT or SIGTERM came; what was written is whole.
    """
    check_place(options)
    if options.workers < 1:
        raise UsageError("--workers: expected at least one")
    studies = _studies(options)
    job = _job(options)
    tasks = [(study, job.ledger.stem(study)) for study in studies]
    records = {stem: job.ledger.find(stem) for _, stem in tasks}
    if options.retry_failed:
        records |= {stem: None for stem, found in records.items() if found and found["reason"]}
    left = [task for task in tasks if records[task[1]] is None]
    if len(left) < len(tasks) and not options.quiet:
        say(f"lungseg: {len(tasks) - len(left)} of {len(tasks)} studies are done already")
    begun = len(left)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with closing(_results(options, job, left)) as results:
            for (_, stem), record in results:
                records[stem] = record
                begun -= 1
    except (KeyboardInterrupt, UsageError) as stopped:
        said = f"{len(left) - begun} of {len(left)} studies are done; the same command goes on"
        if isinstance(stopped, KeyboardInterrupt):
            raise KeyboardInterrupt(said) from None
        raise UsageError(f"{stopped}; {said}") from None
    finally:
        found = [record for _, stem in tasks if (record := records[stem])]
        for name, content in tables(found, options.shard).items():
            replace_file(options.out / name, content)
    return SOME_FAILED if any(record["reason"] for record in found) else OK


def _studies(options: argparse.Namespace) -> list[Study]:
    """Those of the shard."""
    names = [name for name in VolumeQuery.model_fields if name not in MODEL]
    try:
        studies, others = read_index(options.index, names)
    except ValueError as error:
        raise UsageError(f"{options.index}: {error}") from None
    if others and not options.quiet:
        say(f"lungseg: columns that ask nothing: {', '.join(others)}")
    number, shards = options.shard
    return studies[number::shards]


def _job(options: argparse.Namespace) -> _Job:
    """What is asked, of the one model that answers now."""
    asked = parameters_of(options, VolumeQuery)
    parameters = {**asked, "forms": options.format}
    job = _Job(
        question=Question(ask=_ask, forms=options.format, parameters=parameters, volumes=True),
        ledger=Ledger(folder=options.out, model="", parameters=asked, forms=options.format),
        url=options.url,
        models_dir=options.models_dir,
        memory_mb=options.memory_mb,
    )
    with ExitStack() as stack:
        return replace(job, ledger=replace(job.ledger, model=job.place(stack).model()))


def _results(
    options: argparse.Namespace, job: _Job, tasks: Sequence[tuple[Study, str]]
) -> Generator[tuple[tuple[Study, str], dict[str, Any]]]:
    """Each study with its record, as they are finished."""
    if not tasks:
        return
    workers = min(options.workers, len(tasks))
    with ExitStack() as stack:
        crew = stack.enter_context(_crew(options.engine, job, workers))
        stack.enter_context(_terminable())
        bar = stack.enter_context(Bar(len(tasks), quiet=options.quiet))
        done = work_through(tasks, crew, workers=workers, patience_s=options.study_s)
        for task, result in stack.enter_context(closing(done)):
            record = result
            if isinstance(result, Lost):
                reason = f"{result.reason}, the second time that it was tried"
                record = job.ledger.mark(*task, {"error": {"code": LOST}}, reason)
            if record["reason"]:
                say(f"{task[0].name}: {record['reason']}")
            bar.finish()
            yield task, record


@contextmanager
def _crew(engine: str, job: _Job, workers: int) -> Generator[Crew]:
    if engine == "processes":
        yield processes(job.open)
        return
    if not ray_crew.can_run():
        raise UsageError('--engine ray: expected Ray: pip install "lungseg[ray]"')
    try:
        with ray_crew.ray_crew(job.open, workers) as crew:
            yield crew
    except ValueError as error:
        raise UsageError(f"--engine ray: {error}") from None


@contextmanager
def _terminable() -> Generator[None]:
    """SIGTERM, by which schedulers announce an end, is taken as Ctrl-C is."""

    def stop(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
