"""Slices or volumes worked on a few at a time, in the order in which they are named."""

from __future__ import annotations

import argparse
import errno
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lungseg.answers import File
from lungseg.calling import ServiceError
from lungseg.cli.bar import Bar
from lungseg.cli.errors import OK, SOME_FAILED, UsageError, in_words
from lungseg.cli.outputs import Outputs
from lungseg.cli.places import Place, Question, place_of
from lungseg.cli.streams import say
from lungseg.core.errors import LungsegError

UNREADABLE, UNWRITABLE = "unreadable", "unwritable"


class Refusal(NamedTuple):
    """Why an input has no answer."""

    code: str
    sentence: str


class Input(Protocol):
    """A slice or a volume."""

    @property
    def name(self) -> str:
        """What it is called in outputs and tables."""
        ...

    def read(self) -> Any:
        """Its content, or where that is."""
        ...


def run_all(
    options: argparse.Namespace,
    inputs: tuple[Sequence[Input], Sequence[Path]],
    outputs: Outputs,
    question: Callable[[Bar], Question],
) -> int:
    """Computes and writes what is not done yet; returns the exit code.

    Args:
        options: those of outputs and place.
        inputs: what is to be computed, and all files that it is read from.
        outputs: where results go.
        question: what is asked; the bar hears how far the answer is.

    Raises:
        UsageError, KeyboardInterrupt: nothing can be done at all, or no more.
    """
    items, sources = inputs
    outputs.check(sources, keep=options.skip_existing or options.force)
    done = outputs.keep_done() if options.skip_existing else frozenset[str]()
    left = [item for item in items if item.name not in done]
    bar = Bar(len(left), quiet=options.quiet)
    asked = question(bar)
    if done and not options.quiet:
        say(f"lungseg: {len(done)} of {len(items)} {asked.things} are done already")
    if not left:
        outputs.begin()
        return OK
    with place_of(options, asked) as place, bar:
        return _work(left, place, outputs, bar)


def _work(inputs: Sequence[Input], place: Place, outputs: Outputs, bar: Bar) -> int:
    finished = refused = 0
    try:
        for item, answer in answers(inputs, place):
            refused += not _put(outputs, item, answer)
            finished += 1
            bar.finish()
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, UsageError, OSError) as stopped:
        more = "; the same command with --skip-existing goes on" if outputs.folder else ""
        said = f"{finished} of {len(inputs)} {place.things} are done{more}"
        if isinstance(stopped, KeyboardInterrupt):
            raise KeyboardInterrupt(said) from None
        reason = in_words(stopped) if isinstance(stopped, OSError) else str(stopped)
        raise UsageError(f"{reason}; {said}" if finished else reason) from None
    return SOME_FAILED if refused else OK


def answers(
    inputs: Sequence[Input], place: Place
) -> Generator[tuple[Input, Sequence[File] | Refusal]]:
    """Answers in the order of the inputs; no more are read than are worked on.

    Raises:
        UsageError: no further one can be answered.
    """
    pool = ThreadPoolExecutor(place.at_a_time, thread_name_prefix="lungseg-cli")
    begun = ((item, pool.submit(answer_of, item, place)) for item in inputs)
    try:
        pending = deque(islice(begun, place.at_a_time))
        while pending:
            item, answer = pending.popleft()
            yield item, answer.result()
            pending.extend(islice(begun, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def answer_of(item: Input, place: Place) -> Sequence[File] | Refusal:
    """The files of an answer, or why there are none."""
    try:
        return place.fetch(item.read())
    except LungsegError as error:
        detail = error.detail if isinstance(error, ServiceError) else str(error)
        return Refusal(error.code, detail)
    except OSError as error:
        if str(error.filename).endswith(item.name):  # which stands before the sentence already
            error.filename = None
        return Refusal(UNREADABLE, f"the file cannot be read: {in_words(error)}")
    except MemoryError:
        return Refusal(UNREADABLE, "the file cannot be read: it is larger than the memory")


def _put(outputs: Outputs, item: Input, answer: Sequence[File] | Refusal) -> bool:
    """Writes what came of one input; whether it is a result."""
    if not isinstance(answer, Refusal):
        try:
            result = outputs.write(item.name, answer)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # all else would befall the other files too
                raise
            answer = Refusal(UNWRITABLE, "the name of its result is too long")
        else:
            outputs.add(item.name, {**answer[0].summary, "result": result})
            return True
    outputs.add(item.name, {"error": {"code": answer.code}})
    say(f"{item.name}: {answer.sentence}")
    return False
