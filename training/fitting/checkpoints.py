"""What a run keeps of each epoch: networks, state and logs, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import tempfile
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
from tensorboard.summary import Writer

from training.errors import DataError
from training.fitting.state import BEST, HISTORY, LAST, STATE, RunState, read_state

TENSORBOARD = "tensorboard"


def load_network(path: Path, *, for_fitting: bool = False) -> keras.Model:
    """Reads a saved network.

    Args:
        path: a ``.keras`` file.
        for_fitting: with its optimiser's state.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    for module in ("training.fitting.losses", "training.fitting.schedules"):
        import_module(module)  # registers what a saved network names
    try:
        network: Any = keras.saving.load_model(path, compile=for_fitting)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a Keras network ({error})") from error
    return network


class Keeper(keras.callbacks.Callback):
    """Saves the last and the best network and the logs after each epoch; stops when told to."""

    def __init__(self, run: Path, *, patience: int = 0, writes: bool = True) -> None:
        """Continues what the run's folder holds.

        Args:
            run: folder of the run.
            patience: epochs without a better validation Dice to stop after, 0 for never.
            writes: False for the workers that only help: they save, for saving may need all of
                them, but throw it away.
        """
        super().__init__()
        self._run, self._patience, self._writes = run, patience, writes
        self.state = read_state(run)
        self._started = 0.0
        self._board: Writer | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Takes the time."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves networks first and the state last: a crash in between repeats the epoch."""
        row = {key: float(value) for key, value in (logs or {}).items()}
        dice, before = row["val_dice"], self.state
        better = dice > before.best_dice
        best_epoch = epoch + 1 if better else before.best_epoch
        self.state = RunState(
            epochs_done=epoch + 1,
            best_dice=dice if better else before.best_dice,
            best_epoch=best_epoch,
            stopped=bool(self._patience) and epoch + 1 - best_epoch >= self._patience,
        )
        if better:
            self._save(BEST)
        self._save(LAST)
        if self._writes:
            row = {"epoch": epoch + 1, "seconds": time.monotonic() - self._started} | row
            _log_csv(self._run / HISTORY, row)
            self._log_tensorboard(row)
            _replace(self._run / STATE, json.dumps(asdict(self.state)))
        if self.state.stopped:
            network: Any = self.model
            network.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the log."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _log_tensorboard(self, row: dict[str, float]) -> None:
        if self._board is None:
            self._board = Writer(str(self._run / TENSORBOARD))
        for name, value in row.items():
            if name != "epoch":
                self._board.add_scalar(name, value, int(row["epoch"]))
        self._board.flush()

    def _save(self, name: str) -> None:
        network: Any = self.model
        if not self._writes:
            with tempfile.TemporaryDirectory() as folder:
                network.save(Path(folder) / name)
            return
        part = self._run / f"part-{name}"
        try:
            network.save(part)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise DataError(
                f"{part}: can't be written ({error.strerror}); make room and start the same "
                "command again"
            ) from error
        part.replace(self._run / name)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _log_csv(path: Path, row: dict[str, float]) -> None:
    """Adds a row; an epoch that a crash repeats replaces what was logged of it."""
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as stream:
            rows = [old for old in csv.DictReader(stream) if int(old["epoch"]) < row["epoch"]]
    rows.append({key: f"{value:.6g}" for key, value in row.items()})
    names = list(dict.fromkeys(name for old in rows for name in old))
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)
