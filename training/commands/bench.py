"""Measures training on this machine: seconds an epoch, input wait, memory, evaluation speed."""

from __future__ import annotations

import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.config import TrainConfig, read_config, write_config
from training.data.dataset import list_pairs
from training.data.material import read_material
from training.errors import DataError
from training.fitting.state import HISTORY
from training.fitting.train import train
from training.synthetic.phantom_set import write_phantom_set

EPOCHS = 3
"""The first of them, which builds the graph, is not counted."""
PATIENTS_SHARE = 5
"""Slices a patient."""
GROWTH = 4
"""How many times more slices the run has that must not need more memory."""
EVALUATED = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one training showed.

    Attributes:
        slices: trained on.
        epoch_s: median seconds an epoch, validation included.
        input_wait: largest share of an epoch in which the network waited for a batch.
        peak_mib: largest resident memory of the process.
    """

    slices: int
    epoch_s: float
    input_wait: float
    peak_mib: float


def bench(*, slices: int, grid: int, json_file: Path | None = None) -> None:
    """Prints the figures of the published recipe's network on phantoms.

    Args:
        slices: of the data set, a fifth of them to validate.
        grid: side of the network's input.
        json_file: where to write the figures too.
    """
    config = TrainConfig(grid=grid, stem="half", decoder="transpose", epochs=EPOCHS)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "some", slices)
        _write(folder / "many", slices * GROWTH)
        for title, data, augment in (
            ("with augmentation", "some", True),
            ("without augmentation", "some", False),
            (f"{GROWTH} times the slices", "many", True),
        ):
            measured = _in_own_process(
                folder / data, folder / "runs" / title, config, augment=augment
            )
            figures[title] = asdict(measured)
            print(
                f"{title:22s} {measured.slices:5d} slices  {measured.epoch_s:6.1f} s an epoch  "
                f"{measured.slices / measured.epoch_s:6.1f} slices/s  input wait "
                f"{measured.input_wait:5.1%}  peak {measured.peak_mib:6.0f} MiB",
                flush=True,
            )
        figures |= _evaluation(folder / "some")
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


def measure_training(data: Path, out: Path, config: TrainConfig) -> Figures:
    """Trains once in this process and reads what the run logged."""
    train([data], out, config)
    with (out / HISTORY).open(newline="") as stream:
        rows = list(csv.DictReader(stream))[1:]
    return Figures(
        slices=len(read_material(out).training),
        epoch_s=statistics.median(float(row["seconds"]) for row in rows),
        input_wait=max(float(row["input_wait"]) for row in rows),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _in_own_process(data: Path, out: Path, config: TrainConfig, *, augment: bool) -> Figures:
    """In a fresh process, for memory once taken is not always given back."""
    recipe = out.with_suffix(".toml")
    recipe.parent.mkdir(exist_ok=True)
    write_config(replace(config, augment=augment), recipe)
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-m", "training.commands.bench", str(data), str(out), str(recipe)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DataError(f"the training that is measured failed:\n{done.stderr[-2000:]}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def _write(folder: Path, slices: int) -> None:
    write_phantom_set(folder, count=slices, patients=max(2, slices // PATIENTS_SHARE), side=256)


def _evaluation(data: Path) -> dict[str, float]:
    """Slices a second through the service's pipeline, with the newest published model."""
    # Not where a training's memory is measured
    from lungseg.inference.model import Model
    from lungseg.inference.session import Engine
    from training.evaluation.evaluate import evaluate

    contracts = Path("models").glob("*/*/contract.json")
    newest = max(contracts, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        print("evaluation: no model under models/ to measure with")
        return {}
    model = Model.load(newest.resolve().parent, Engine())
    pairs = list_pairs(data).pairs[:EVALUATED]
    began = time.monotonic()
    count = sum(1 for _ in evaluate(model, pairs))
    rate = count / (time.monotonic() - began)
    print(f"evaluation of {newest.parent}: {rate:.1f} slices/s")
    return {"evaluated_slices_per_s": rate}


if __name__ == "__main__":
    _data, _out, _recipe = (Path(argument) for argument in sys.argv[1:])
    print(json.dumps(asdict(measure_training(_data, _out, read_config(_recipe, {})))))
