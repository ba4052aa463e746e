"""The workers of a cohort as actors of Ray, on this machine or on the cluster of RAY_ADDRESS.

Volumes never pass through Ray: tasks carry paths, and actors read and write by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lungseg.integrations.cohort.crew import Crew, Hand, Lost, Open

SPARE_CPUS = 1
"""Left to Ray's own tasks: a pool that takes all of them may wait for ever."""


def can_run() -> bool:
    """Whether Ray is installed."""
    return find_spec("ray") is not None


@contextmanager
def ray_crew(opened: Open, workers: int) -> Generator[Crew]:
    """A crew of Ray's, which is told to make no calls home.

    Raises:
        ValueError: Ray does not start, or has not enough processors.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = import_module("ray")
    own: dict[str, Any] = {"num_cpus": workers + SPARE_CPUS, "_node_ip_address": "127.0.0.1"}
    if "RAY_ADDRESS" in os.environ:
        own = {}
    try:
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False, **own)
    except Exception as error:  # whatever Ray's start ends in
        raise ValueError(f"expected Ray to start, it does not: {error}") from error
    try:
        there = int(ray.cluster_resources().get("CPU", 0)) - SPARE_CPUS
        if workers > there:
            raise ValueError(
                f"expected at most {there} workers on this cluster: one CPU stays free"
            )
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
