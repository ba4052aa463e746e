"""Something that is done later, unless it is called off before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """One call that is still to come, or none; to start it anew calls the former off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and not called off since."""
        return self._handle is not None

    def start(self, seconds: float, then: Callable[..., object], *arguments: object) -> None:
        """Calls something after so many seconds."""
        self.stop()
        self._handle = self._loop.call_later(seconds, then, *arguments)

    def stop(self) -> None:
        """Calls it off."""
        if self._handle:
            self._handle.cancel()
            self._handle = None
