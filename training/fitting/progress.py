"""A bar for people, lines for logs, and how long the network waited for its input."""

from __future__ import annotations

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from training.fitting.batches import Batches

PACE_STEPS = 10
"""Steps after the first, which builds the graph, that tell how long an epoch will take."""


class InputWait(keras.callbacks.Callback):
    """Adds ``input_wait``, the share of an epoch in which a step had no batch ready, to its logs.

    A batch that was finished before the step that uses it began was waited for by nobody.
    """

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches
        self._epoch_began = self._step_began = self._step_ended = 0.0
        self._waited_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the time."""
        self._epoch_began, self._waited_s = time.monotonic(), 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the time."""
        self._step_began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Adds what the step had to wait for its batch."""
        self._step_ended = time.monotonic()
        ready = self._batches.ready_s.get(batch, self._step_began)
        self._waited_s += max(0.0, ready - self._step_began)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Says which share of the epoch's steps that was."""
        if logs is not None:
            spent = self._step_ended - self._epoch_began
            logs["input_wait"] = self._waited_s / max(1e-9, spent)


class EpochReport(keras.callbacks.Callback):
    """Shows loss, Dice and the time left of the whole run, and a line for each epoch."""

    def __init__(self, epochs: int, *, shown: bool) -> None:
        """Args: epochs of the run, and whether this process is the one that speaks of them."""
        super().__init__()
        self._epochs, self._shown = epochs, shown
        self._bar: Progress | None = None
        self._seconds: list[float] = []
        self._best = -1.0
        self._first_step_ended = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Opens the epoch's bar, on a terminal."""
        self._began, self._epoch = time.monotonic(), epoch
        console = Console(stderr=True)
        if not self._shown or not console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=console, transient=True)
        self._bar.start()
        self._bar.add_task(f"epoch {epoch + 1}/{self._epochs}", total=self._steps(), text="")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Moves the bar on; says early in the first epoch how long all of it will take."""
        self._say_pace(batch)
        if self._bar is None or logs is None:
            return
        share = (batch + 1) / self._steps()
        left = self._left_s(share)
        self._bar.update(
            self._bar.task_ids[0],
            completed=batch + 1,
            text=f"loss {logs['loss']:.4f}, dice {logs['dice']:.4f}, {duration(left)} left",
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Closes the bar and says the epoch's figures."""
        self._seconds.append(time.monotonic() - self._began)
        self._close()
        if not self._shown or logs is None:
            return
        self._best = max(self._best, logs["val_dice"])
        left = (self._epochs - epoch - 1) * self._usual_s()
        print(
            f"epoch {epoch + 1}/{self._epochs}: loss {logs['loss']:.4f}, dice {logs['dice']:.4f}, "
            f"validation dice {logs['val_dice']:.4f} (best {self._best:.4f}), "
            f"{duration(left)} left"
        )

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leaves the terminal as it was."""
        self._close()

    def start_from(self, best_dice: float) -> None:
        """Continues a run whose best validation Dice is known."""
        self._best = best_dice

    def _say_pace(self, batch: int) -> None:
        if self._seconds or not self._shown:
            return
        if batch == 0:
            self._first_step_ended = time.monotonic()
        if batch != PACE_STEPS or batch + 1 >= self._steps():
            return
        epoch_s = (time.monotonic() - self._first_step_ended) / PACE_STEPS * self._steps()
        epochs = self._epochs - self._epoch
        print(
            f"about {duration(epoch_s)} an epoch, {duration(epochs * epoch_s)} for {epochs} epochs"
        )

    def _steps(self) -> int:
        params: Any = self.params
        return max(1, params.get("steps") or 1)

    def _usual_s(self) -> float:
        return sorted(self._seconds)[len(self._seconds) // 2]

    def _left_s(self, share: float) -> float:
        """Of the whole run, from earlier epochs or, in the first, from its own pace."""
        spent = time.monotonic() - self._began
        epoch_s = self._usual_s() if self._seconds else spent / share
        return max(0.0, epoch_s - spent) + (self._epochs - self._epoch - 1) * epoch_s

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """``3 s``, ``4 min`` or ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
