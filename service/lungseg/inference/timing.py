"""How long a request may still take, and where its time went."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lungseg.inference.errors import DeadlineExceeded


@dataclass(slots=True)
class Deadline:
    """The moment by which an answer must be ready; can be brought forward to now."""

    at_s: float
    """On the clock of ``time.monotonic``."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Deadline:
        """There is as much time as it takes."""
        return cls(math.inf)

    @property
    def remaining_s(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at_s - time.monotonic()

    def check(self) -> None:
        """Stops work whose answer would come too late.

        Raises:
            DeadlineExceeded: the time is used up, or nobody waits any more.
        """
        if self.remaining_s <= 0:
            raise DeadlineExceeded("the time for this request is used up")

    def give_up(self) -> None:
        """Nobody waits any more: work stops at its next check."""
        self.at_s = -math.inf


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds spent in each stage of one piece of work, which ends at a deadline."""

    deadline: Deadline | None = None
    """Looked at before each stage; None = there is as much time as it takes."""
    _spent_ms: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def spent_ms(self) -> dict[str, float]:
        """Each stage's time so far: a copy, since a thread may go on when its request is over."""
        return self._spent_ms.copy()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Adds the time of a ``with`` block to a stage.

        Raises:
            DeadlineExceeded: it is too late to begin.
        """
        if self.deadline:
            self.deadline.check()
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - begun) * 1000)

    def add(self, name: str, spent_ms: float) -> None:
        """Adds to a stage."""
        self._spent_ms[name] = self._spent_ms.get(name, 0.0) + spent_ms
