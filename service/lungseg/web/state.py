"""What handlers share: the application's state, and one exchange for each request."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.types import Scope

from lungseg.core.errors import LungsegError
from lungseg.inference.errors import ModelNotReady
from lungseg.inference.registry import Registry
from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.inference.workers import Workers
from lungseg.pipeline import Pipeline
from lungseg.settings import Settings
from lungseg.volumes import VolumePipeline
from lungseg.web.errors import Draining
from lungseg.web.held import Ledger, Share
from lungseg.web.keys import Keys
from lungseg.web.layers.metrics import Metrics
from lungseg.web.surface import Surface


@dataclass(slots=True)
class Lifecycle:
    """Whether new work is taken, and how much is under way.

    Attributes:
        ledger: the bytes of request bodies in memory.
        draining: SIGTERM came: not ready, and no new work.
        lingering: for a moment, new work is taken although SIGTERM came.
        in_flight: requests that are being answered, health and metrics not counted.
    """

    ledger: Ledger
    draining: bool = False
    lingering: bool = False
    in_flight: int = 0

    @property
    def buffered_bytes(self) -> int:
        """Request bodies in memory, as they came and unpacked."""
        return self.ledger.held_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Built once in the lifespan of the application.

    Attributes:
        keys: the API keys that are known now; none = everybody may call.
    """

    registry: Registry
    pipeline: Pipeline
    workers: Workers
    volumes: VolumePipeline
    volume_workers: Workers
    metrics: Metrics
    settings: Settings
    keys: Keys
    lifecycle: Lifecycle

    def workers_of(self, surface: Surface) -> Workers:
        """The threads that compute what a surface takes."""
        return self.volume_workers if surface.takes == "volumes" else self.workers

    @property
    def unreadiness(self) -> LungsegError | None:
        """Why no work should be sent; None when it may be."""
        if self.lifecycle.draining:
            return Draining("the service is shutting down")
        try:
            self.registry.get()
        except ModelNotReady as error:
            return error
        return None


@dataclass(slots=True)
class Arrival:
    """How a request comes in, as its connection sees it; the layers look at it.

    Attributes:
        refusal: why the rest of the body will not come.
    """

    refusal: LungsegError | None = None


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and what is learnt of it on its way, for the log and the metrics.

    ``key_id`` tells whose key it carries, where keys are asked for. It is ``finished`` with the
    last bytes of its answer; one that was only ``answered`` had a caller who left a stream.
    """

    request_id: str
    surface: Surface
    deadline: Deadline
    held: Share
    trace_id: str = ""
    key_id: str = ""
    model: str = ""
    version: str = ""
    code: str = "ok"
    status: int = 500
    answered: bool = False
    finished: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    watch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.deadline)


def state_of(scope: Scope) -> State:
    """The application's state, which its lifespan yields and the server puts into each scope."""
    return scope["state"]["lungseg"]


def arrival_of(scope: Scope) -> Arrival:
    """How this request comes in; without our own connection, as nothing is wrong with it."""
    return scope["state"].get("arrival") or Arrival()


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of this request."""
    return scope["state"]["exchange"]
