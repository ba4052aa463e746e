"""The command: its options, what a worker does, and how a run ends."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.answers import File
from lungseg.cli.bar import Bar
from lungseg.cli.errors import OK, SOME_FAILED, UsageError
from lungseg.cli.options import add_parameters, add_place, check_place, parameters_of
from lungseg.cli.outputs import Outputs, replace_file
from lungseg.cli.places import Place, Question, here, there
from lungseg.cli.running import Refusal, answer_of
from lungseg.cli.streams import say
from lungseg.cli.volume import ask, forms_of
from lungseg.formats.decoders import usable_cores
from lungseg.formats.table import VOLUMES
from lungseg.integrations.cohort.crew import Lost, processes, work_through
from lungseg.integrations.cohort.ledger import Ledger, Record, Study, read_index, tables
from lungseg.integrations.cohort.ray_crew import ray_crew
from lungseg.volume_query import VolumeQuery

if TYPE_CHECKING:
    from lungseg.client import Client
    from lungseg.library import Segmenter

LOST = "worker_lost"
PATIENCE_S = 3600.0
"""How long a study may take: the largest take minutes."""
Task = tuple[Study, str]
"""A study, and what its results are called before their endings."""


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


def run(options: argparse.Namespace) -> int:
    """Segments what is left of the shard; returns the exit code.

    Raises:
        UsageError: nothing can be done at all, or no more.
        KeyboardInterrupt: SIGINT or SIGTERM came; what was written is whole.
    """
    check_place(options)
    if options.workers < 1:
        raise UsageError("--workers: expected at least one")
    asked = parameters_of(options, VolumeQuery)
    try:
        studies = read_index(options.index)[options.shard[0] :: options.shard[1]]
    except ValueError as error:
        raise UsageError(f"{options.index}: {error}") from None
    forms = options.format
    question = Question(ask=_ask, forms=forms, parameters={**asked, "forms": forms}, volumes=True)
    with ExitStack() as stack:
        model = _place(options, question, stack).model()
    ledger = Ledger(folder=options.out, model=model, parameters=asked, forms=forms)
    tasks = [(study, ledger.stem(study)) for study in studies]
    known = {stem: ledger.find(stem, failed=not options.retry_failed) for _, stem in tasks}
    left = [task for task in tasks if known[task[1]] is None]
    if len(left) < len(known) and not options.quiet:
        say(f"lungseg: {len(known) - len(left)} of {len(known)} studies are done already")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        _work(options, left, known, (question, ledger))
    except (KeyboardInterrupt, UsageError) as stopped:
        done = sum(known[stem] is not None for _, stem in left)
        said = f"{done} of {len(left)} studies are done; the same command goes on"
        raise type(stopped)("; ".join([*map(str, stopped.args), said])) from None
    finally:
        found = [record for record in known.values() if record]
        for name, content in tables(found, options.shard).items():
            replace_file(options.out / name, content)
    return SOME_FAILED if any(record["reason"] for record in found) else OK


def _work(
    options: argparse.Namespace,
    tasks: Sequence[Task],
    records: dict[str, Record | None],
    told: tuple[Question, Ledger],
) -> None:
    """Does the tasks, and keeps the record of each."""
    if not tasks:
        return
    workers = min(options.workers, len(tasks))
    opened = partial(_open, options, *told)
    with ExitStack() as stack:
        by_ray = options.engine == "ray"
        crew = stack.enter_context(ray_crew(opened, workers)) if by_ray else processes(opened)
        # Schedulers announce an end by SIGTERM: it is taken as Ctrl-C is.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        bar = stack.enter_context(Bar(len(tasks), quiet=options.quiet))
        done = work_through(tasks, crew, workers=workers, patience_s=options.study_s)
        for task, result in stack.enter_context(closing(done)):
            record = result
            if isinstance(result, Lost):
                reason = f"{result.reason}, the second time that it was tried"
                record = told[1].mark(task, {"error": {"code": LOST}}, reason)
            if record["reason"]:
                say(f"{task[0].name}: {record['reason']}")
            records[task[1]] = record
            bar.finish()


def _place(options: argparse.Namespace, question: Question, stack: ExitStack) -> Place:
    """Where studies are computed; here by one thread."""
    if options.url is not None:
        return stack.enter_context(there(question, url=options.url))
    return here(question, models_dir=options.models_dir, volume_threads=1)


def _open(
    options: argparse.Namespace, question: Question, ledger: Ledger
) -> Callable[[Task], Record]:
    """In the worker: bounds its memory, and opens the place, which its end closes."""
    if options.memory_mb is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (options.memory_mb << 20,) * 2)
    try:
        return partial(_compute, ledger, _place(options, question, stack := ExitStack()), stack)
    except MemoryError:
        raise UsageError("--memory-mb: expected more, a worker does not even start") from None


def _compute(ledger: Ledger, place: Place, _open: ExitStack, task: Task) -> Record:
    """In the worker: computes and writes one study, and its marker after that."""
    try:
        answer = answer_of(task[0], place)
    except (UsageError, OSError):  # which would befall the others too
        raise
    except Exception as error:  # noqa: BLE001 - a bug costs its study alone
        answer = Refusal("internal_error", f"the study ended in a {type(error).__name__}")
    if isinstance(answer, Refusal):
        return ledger.mark(task, {"error": {"code": answer.code}}, answer.sentence)
    summary = answer[0].summary
    if summary["model"]["sha256"] != ledger.model:
        raise UsageError("another model answers than when the command began")
    names = {task[0].name: ledger.targets(task[1])}
    outputs = Outputs(folder=ledger.folder, prints=False, table=VOLUMES, tables=(), targets=names)
    return ledger.mark(task, {**summary, "result": outputs.write(task[0].name, answer)})


def _ask(
    place: Segmenter | Client, content: Any, forms: Sequence[str], **parameters: Any
) -> list[File]:
    source, own = content
    return ask(place, source, forms, **{**parameters, **own})
