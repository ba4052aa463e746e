"""What handlers share: the application's state, and one exchange for each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from starlette.types import Scope

from lungseg.inference.registry import Registry
from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.inference.workers import Workers
from lungseg.pipeline import Pipeline
from lungseg.web.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request may have. Sizes in bytes, times in seconds.

    Attributes:
        key_hashes: SHA-256 of the API keys; none = everybody may call.
    """

    max_body_bytes: int
    max_batch_bytes: int
    max_buffered_bytes: int
    max_pixels: int
    max_batch_items: int
    deadline_s: float
    allow_non_ct: bool
    model_control: bool
    key_hashes: tuple[bytes, ...]


@dataclass(slots=True)
class Lifecycle:
    """Whether new work is taken, and how much is under way.

    Attributes:
        draining: SIGTERM came: not ready, and no new work.
        lingering: for a moment, new work is taken although SIGTERM came.
        in_flight: requests that are being answered, health and metrics not counted.
        buffered_bytes: request bodies in memory.
    """

    draining: bool = False
    lingering: bool = False
    in_flight: int = 0
    buffered_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Built once in the lifespan of the application.

    Attributes:
        trace: hears of each finished request, see ``Tracer.record``; None = tracing is off.
    """

    registry: Registry
    pipeline: Pipeline
    workers: Workers
    metrics: Metrics
    limits: Limits
    lifecycle: Lifecycle
    trace: Callable[[Exchange, str, str, int], None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the configured model serves and new work is taken."""
        family = self.registry.families().get(self.registry.policy.model)
        return not self.lifecycle.draining and bool(family and family.serving)


class LifespanState(TypedDict):
    """What the lifespan yields, and the server puts into every scope."""

    lungseg: State


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and what is learnt of it on its way, for the log and the metrics."""

    request_id: str
    path: str
    deadline: Deadline
    traceparent: str = ""
    model: str = ""
    version: str = ""
    code: str = "ok"
    status: int = 500
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    watch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.deadline)


def state_of(scope: Scope) -> State:
    """The application's state."""
    return _state(scope)["lungseg"]


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of this request."""
    return _state(scope)["exchange"]


def _state(scope: Scope) -> dict[str, Any]:
    return scope["state"]
