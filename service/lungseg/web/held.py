"""What request bodies hold in memory, counted until the last who needs them lets go.

A request and the worker thread that computes for it end at different times: after a 504 the thread
goes on for a while, and holds the body as long.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from lungseg.inference.errors import Overloaded


@dataclass(slots=True)
class Ledger:
    """The bytes of all requests together; safe to use from any thread."""

    limit_bytes: int
    held_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size_bytes: int) -> None:
        """Counts bytes, or discounts them where the number is negative."""
        with self._lock:
            self.held_bytes += size_bytes


@dataclass(slots=True)
class Share:
    """What one request holds; ``with`` it whoever may use the bytes holds them."""

    ledger: Ledger
    held_bytes: int = 0
    _holders: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self.ledger.add(self.held_bytes)
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self.ledger.add(-self.held_bytes)

    def take(self, size_bytes: int) -> None:
        """Counts bytes before they are kept.

        Raises:
            Overloaded: all requests together would hold too many.
        """
        self._count(size_bytes)
        if self.ledger.held_bytes > self.ledger.limit_bytes:
            raise Overloaded("requests hold too many bytes, try again later")

    def let_go(self, size_bytes: int) -> None:
        """Discounts bytes that nobody holds any more."""
        self._count(-size_bytes)

    @contextmanager
    def holding(self, size_bytes: int) -> Generator[None]:
        """Counts bytes that are held within a ``with`` block alone.

        Raises:
            Overloaded: all requests together would hold too many.
        """
        try:
            self.take(size_bytes)
            yield
        finally:
            self.let_go(size_bytes)

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self.held_bytes += size_bytes
            if self._holders:
                self.ledger.add(size_bytes)
