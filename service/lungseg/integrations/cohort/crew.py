"""Workers that may die: each has one task in hand, and is watched.

Who is killed, or late, loses that task, which is given to another once more. A worker, a process
here or an actor of Ray, has three verbs: ``give`` begins a task, ``result`` is what came of it
once it is ready, or ``Lost``, and ``end`` kills the worker whatever it does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

ATTEMPTS = 2
"""How often a task is begun that its worker does not survive."""
Open = Callable[[], Callable[[Any], Any]]
"""Opens what does tasks, in the worker: a model, or the connection to a server."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Lost(NamedTuple):
    """Why a task has no result: what became of its worker."""

    reason: str


class Crew(NamedTuple):
    """How workers are made, and waited for: who of some is ready, or no more, within seconds."""

    start: Callable[[], Any]
    wait: Callable[[Sequence[Any], float], Sequence[Any]]


class Hand:
    """What works inside a worker; it is opened by its first task."""

    def __init__(self, opened: Open) -> None:
        self._open = opened
        self._work: Callable[[Any], Any] | None = None

    def do(self, task: Any) -> Any:
        """The result of a task, or the exception that ends all of them."""
        try:
            self._work = self._work or self._open()
            return self._work(task)
        except Exception as error:  # noqa: BLE001 - it is raised where the tasks come from
            return error


def work_through(
    tasks: Iterable[Any], crew: Crew, *, workers: int, patience_s: float
) -> Generator[tuple[Any, Any]]:
    """Each task with its result, or ``Lost``, as they are finished.

    Args:
        tasks: in the order in which they are begun; what is tried again comes last.
        crew: makes workers.
        workers: how many work at a time.
        patience_s: how long a task may take before its worker is ended.

    Raises:
        Exception: what a worker could not go on after.
    """
    waiting = deque((task, 1) for task in tasks)
    idle: list[Any] = []
    in_hand: dict[Any, tuple[Any, int, float]] = {}
    try:
        while waiting or in_hand:
            while waiting and len(in_hand) < workers:
                worker = idle.pop() if idle else crew.start()
                in_hand[worker] = (*waiting.popleft(), time.monotonic() + patience_s)
                worker.give(in_hand[worker][0])
            first = min(until for _, _, until in in_hand.values())
            ready = crew.wait([*in_hand], max(0.0, first - time.monotonic()))
            late = [] if ready else [one for one, held in in_hand.items() if held[2] <= first]
            for worker in (*ready, *late):
                result = Lost(f"it took over {patience_s:g} s") if late else worker.result()
                if isinstance(result, Exception):
                    raise result
                task, attempt, _ = in_hand.pop(worker)
                if not isinstance(result, Lost):
                    idle.append(worker)
                    yield task, result
                    continue
                worker.end()
                if attempt < ATTEMPTS:
                    waiting.append((task, attempt + 1))
                else:
                    yield task, result
    finally:
        for worker in (*idle, *in_hand):
            worker.end()


def processes(opened: Open) -> Crew:
    """Processes of this machine, started afresh, in which arithmetic has one thread."""
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    return Crew(partial(Process, opened), _ready)


def _ready(workers: Sequence[Process], timeout_s: float) -> list[Process]:
    ready = wait([worker.connection for worker in workers], timeout_s)
    return [worker for worker in workers if worker.connection in ready]


class Process:
    """A worker that is a process; when this one ends, in whatever way, it ends after its task."""

    def __init__(self, opened: Open) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, opened), daemon=True)
        self._process.start()
        theirs.close()  # so that its end shows

    def give(self, task: Any) -> None:
        """Sends a task; one that cannot be sent is lost when its result is asked for."""
        with contextlib.suppress(OSError):
            self.connection.send(task)

    def result(self) -> Any:
        """What was sent back."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with {code}"
            return Lost(f"its worker {how}")

    def end(self) -> None:
        """Kills the process; files are whole at any moment."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, opened: Open) -> None:
    """What the process does; signals to the whole group are for the one that gives tasks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    hand = Hand(opened)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(hand.do(connection.recv()))
