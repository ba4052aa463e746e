"""The bar of progress on standard error, where that is a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tqdm import tqdm

FORMAT = "{desc}{percentage:3.0f}%|{bar}| {remaining} left"
REACHES = {"read": (0.0, 0.05), "decode": (0.05, 0.35), "segment": (0.35, 0.95)}
"""Which part of a volume's time each stage takes, roughly; writing takes the rest."""


class Bar:
    """How much is done of some inputs, the one in work included as far as it tells.

    It shows from the moment in which its context is entered.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._quiet = quiet
        self._total = total
        self._finished = 0
        self._reached = 0.0
        self._bar = tqdm(disable=True)

    def hear(self, stage: str, done: int, total: int) -> None:
        """Shows how far the only one in work is."""
        begin, end = REACHES.get(stage, (0.0, 0.0))
        part = begin + (end - begin) * done / max(1, total)
        if part > self._reached:
            self._bar.update(part - self._reached)
            self._reached = part
        self._bar.set_description_str(self._said(f", {stage} {done}/{total}"), refresh=False)

    def finish(self) -> None:
        """One is finished."""
        self._bar.update(1 - self._reached)
        self._finished, self._reached = self._finished + 1, 0.0
        self._bar.set_description_str(self._said(), refresh=False)

    def _said(self, more: str = "") -> str:
        return f"{self._finished} of {self._total}{more}: "

    def __enter__(self) -> Self:
        hidden = self._quiet or None  # None: where standard error is no terminal
        self._bar = tqdm(total=self._total, disable=hidden, bar_format=FORMAT, desc=self._said())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
