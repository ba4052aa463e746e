"""Slices worked on a few at a time, in the order in which they are named."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from lungseg.answers import File
from lungseg.calling import ServiceError
from lungseg.cli.errors import in_words
from lungseg.cli.inputs import Input
from lungseg.cli.places import Place
from lungseg.core.errors import LungsegError

Refusal = tuple[str, str]
"""Why a slice has no answer: code and sentence."""
UNREADABLE = "unreadable"


def answers(inputs: Sequence[Input], place: Place) -> Generator[tuple[Input, File | Refusal]]:
    """Answers in the order of the inputs; no more are read than are worked on.

    Raises:
        UsageError: no further one can be answered.
    """
    pool = ThreadPoolExecutor(place.at_a_time, thread_name_prefix="lungseg-cli")
    begun = ((item, pool.submit(_answer, item, place)) for item in inputs)
    try:
        pending = deque(islice(begun, place.at_a_time))
        while pending:
            item, answer = pending.popleft()
            yield item, answer.result()
            pending.extend(islice(begun, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(item: Input, place: Place) -> File | Refusal:
    try:
        content = item.read()
    except OSError as error:
        error.filename = None  # the name stands before the sentence already
        return UNREADABLE, f"the file cannot be read: {in_words(error)}"
    except MemoryError:
        return UNREADABLE, "the file cannot be read: it is larger than the memory"
    try:
        return place.fetch(content)
    except LungsegError as error:
        return error.code, error.detail if isinstance(error, ServiceError) else str(error)
