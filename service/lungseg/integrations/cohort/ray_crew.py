"""The workers of a cohort as actors of Ray, on this machine or on the cluster of RAY_ADDRESS.

Volumes never pass through Ray: tasks carry paths, and actors read and write by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from lungseg.cli.errors import UsageError
from lungseg.integrations.cohort.crew import Crew, Hand, Lost, Open

SPARE_CPUS = 1
"""Left to Ray's own tasks: a pool that takes all of them may wait for ever."""


@contextmanager
def ray_crew(opened: Open, workers: int) -> Generator[Crew]:
    """A crew of actors of one CPU each; Ray is told to make no calls home.

    Raises:
        UsageError: Ray is not there, does not start, or has not enough processors.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers + SPARE_CPUS}
    try:
        ray: Any = import_module("ray")
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False, **own)
    except ImportError:
        raise UsageError('--engine ray: expected Ray: pip install "lungseg[ray]"') from None
    except Exception as error:  # whatever its start ends in
        raise UsageError(f"--engine ray: expected Ray to start, it does not: {error}") from error
    try:
        most = int(ray.cluster_resources().get("CPU", 0)) - SPARE_CPUS
        if workers > most:
            raise UsageError(f"--workers: expected at most {most}, so that one CPU stays free")
        kind = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Hand)
        yield Crew(lambda: RayWorker(ray, kind.remote(opened)), partial(_ready, ray))
    finally:
        ray.shutdown()


def _ready(ray: Any, workers: Sequence[RayWorker], timeout_s: float) -> list[RayWorker]:
    ready, _ = ray.wait([worker.task for worker in workers], timeout=timeout_s)
    return [worker for worker in workers if worker.task in ready]


class RayWorker:
    """A worker that is an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self.task: Any = None

    def give(self, task: Any) -> None:
        """Begins a task."""
        self.task = self._actor.do.remote(task)

    def result(self) -> Any:
        """What came of it."""
        try:
            return self._ray.get(self.task)
        except self._ray.exceptions.RayActorError:
            return Lost("its actor died")

    def end(self) -> None:
        """Kills the actor."""
        self._ray.kill(self._actor)
