"""What the folder of a run holds, and whether it may be continued; known without Keras."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from training.config import TrainConfig, read_config
from training.data.material import SPLIT, Material, split_rows
from training.errors import DataError

LAST, BEST, STATE, HISTORY = "last.keras", "best.keras", "state.json", "history.csv"
CONFIG = "config.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What a run has reached: written after each epoch, read to resume.

    Attributes:
        epochs_done: whole epochs.
        best_dice: highest validation Dice so far.
        best_epoch: when it was reached, from 1.
        stopped: early stopping has ended the run.
    """

    epochs_done: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    stopped: bool = False


def read_state(run: Path) -> RunState:
    """What an earlier start of this run reached; nothing for a new one.

    Raises:
        DataError: the state is damaged.
    """
    path = run / STATE
    if not path.exists():
        return RunState()
    try:
        return RunState(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: the run's state is damaged; choose another --out") from error


def expect_begun(out: Path) -> None:
    """Refuses to take a new folder for a run to resume.

    Raises:
        DataError: ``out`` holds no run.
    """
    if next(out.rglob(CONFIG), None) is None:
        raise DataError(f"{out}: holds no run to resume; leave --resume out to begin one there")


def expect_same_recipe(config: TrainConfig, out: Path) -> None:
    """Refuses to continue a run with another recipe; one without a whole epoch may change.

    Raises:
        DataError: the folder holds a run of a different recipe.
    """
    if not (out / STATE).exists() or not (out / CONFIG).exists():
        return
    before, now = asdict(read_config(out / CONFIG, {})), asdict(config)
    changed = [name for name in now if now[name] != before[name]]
    if changed:
        raise DataError(
            f"{out}: holds a run of another recipe (other {', '.join(changed)}); "
            "choose another --out"
        )


def expect_same_split(material: Material, out: Path) -> None:
    """Refuses to continue a run on other slices; one without a whole epoch may change.

    Raises:
        DataError: slices were added, removed or moved to the other side since.
    """
    if not (out / STATE).exists() or not (out / SPLIT).exists():
        return
    with (out / SPLIT).open(newline="") as stream:
        before = {tuple(row) for row in list(csv.reader(stream))[1:]}
    now = {(p.source, p.name, p.patient, side) for p, side in split_rows(material)}
    if before != now:
        raise DataError(
            f"{out}: {len(before ^ now)} entries of the split changed since this run began; "
            "restore the data, or choose another --out"
        )
