"""Workers that may die: processes of this machine, or actors of Ray, here or on its cluster.

Each has one task in hand. Who dies loses that task, which is given to another once more. Tasks
carry paths: volumes pass through neither pipes nor Ray. Workers end with this process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from threading import Event, Thread, local
from typing import Any

from lungseg.cli.errors import UsageError

ATTEMPTS = 2  # how often a task is begun that its worker does not survive
SPARE_CPUS = 1  # left to Ray's own tasks: a pool that takes all of them may wait for ever
Open = Callable[[], Callable[[Any], Any]]  # opens what does tasks, in the worker: model or client
Crew = tuple[Callable[[], Callable[[Any], Any]], type[Exception]]
"""Makes a worker, which is called with a task, and what it raises where it dies of one."""


def work_through(tasks: Sequence[Any], crew: Crew, workers: int) -> Generator[Any | None]:
    """The results of tasks in their order, None where no worker survives; a thread waits for each.

    What a worker raises ends it all.
    """
    pool, own, stopped, (hire, lost) = ThreadPoolExecutor(workers), local(), Event(), crew

    def survive(task: Any) -> Any | None:
        for _ in range(ATTEMPTS):
            if not stopped.is_set():
                own.worker = getattr(own, "worker", None) or hire()
            if stopped.is_set():  # perhaps only now
                break
            try:
                return own.worker(task)
            except lost:
                del own.worker
        return None

    try:
        yield from pool.map(survive, tasks)
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


_work = list[Callable[[Any], Any]]()  # what does tasks in this process, where it is a worker


def _do(opened: Open, task: Any) -> Any:
    if not _work:
        _work.append(opened())
    return _work[0](task)


@contextmanager
def processes(opened: Open, _workers: int) -> Generator[Crew]:
    """Pools of one process each, since a pool ends as a whole; arithmetic has one thread there."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context, pools = multiprocessing.get_context("spawn"), list[ProcessPoolExecutor]()

    def hire() -> Callable[[Any], Any]:
        pools.append(pool := ProcessPoolExecutor(1, context, _end_with_parent))
        # Signals are for the first process; others inherit this, which the first pool would undo.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        return lambda task: pool.submit(_do, opened, task).result()

    try:
        yield hire, BrokenExecutor
    finally:
        for pool in pools:  # also what threads have yet begun
            for process in multiprocessing.active_children():  # files are whole at any moment
                process.kill()
            pool.shutdown()


def _end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextmanager
def actors(opened: Open, workers: int) -> Generator[Crew]:
    """Actors of one CPU each, on this machine or on the cluster of RAY_ADDRESS.

    Raises:
        UsageError: Ray is not there, does not start, or has not enough processors.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
    hands = list[Any]()
    own = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers + SPARE_CPUS}
    try:
        ray: Any = import_module("ray")
        own |= {"ignore_reinit_error": True, "logging_level": "ERROR", "log_to_driver": False}
        ray.init(include_dashboard=False, **own)
    except Exception as error:  # whatever its start ends in
        raise UsageError(f'--engine ray: {error} (pip install "lungseg[ray]")') from error
    most = int(ray.cluster_resources().get("CPU", 0)) - SPARE_CPUS
    if workers > most:
        raise UsageError(f"--workers: expected at most {most}, so that one CPU stays free")
    kind = type("Worker", (), {"do": staticmethod(_do)})
    actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(kind)

    def hire() -> Callable[[Any], Any]:
        hands.append(hand := actor.remote())
        return lambda task: ray.get(hand.do.remote(opened, task))

    try:
        yield hire, ray.exceptions.RayActorError
    finally:  # Ray ends with Python, after the threads: none may ask what has shut down
        for hand in hands:
            ray.kill(hand)
