"""Threads of the network: more of them where nothing else is computed, and never another answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from lungseg.core.types import FloatArray
from lungseg.inference.model import Model
from lungseg.inference.runner import Runner
from lungseg.inference.session import Engine
from lungseg.inference.timing import Stopwatch

BUNDLE = Path("models/lung-unet/3")
RUNS = 40
GREY: FloatArray = np.random.default_rng(0).uniform(0, 255, (1, 256, 256, 1)).astype(np.float32)


def spent_s() -> dict[int, float]:
    """Processor time of each thread of this process, Python's or not."""
    return {thread.id: thread.user_time for thread in psutil.Process().threads()}


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_is_alone_takes_more_threads_and_gives_the_same_bytes(alone: bool) -> None:
    """Threads that ONNX Runtime started for such runs compute in these and in no others."""
    before = set(spent_s())
    model = Model.load(BUNDLE, Engine(alone_threads=3))
    started = set(spent_s()) - before
    assert len(started) == 2
    expected = Model.load(BUNDLE, Engine()).session.run(GREY)
    runner, idle = Runner(alone=lambda: alone), spent_s()
    for _ in range(RUNS):
        assert np.array_equal(runner.infer(model, GREY, Stopwatch()), expected)
    busy = spent_s()
    assert any(busy[thread] > idle[thread] for thread in started) is alone


@pytest.mark.parametrize(
    ("engine", "wider"),
    [
        (Engine(alone_threads=2), 2),
        (Engine(intra_op_threads=2, alone_threads=3), 3),
        (Engine(intra_op_threads=2, alone_threads=2), None),
        (Engine(), None),
        (Engine(providers=("CUDAExecutionProvider",), alone_threads=4), None),
        (
            Engine(providers=("CUDAExecutionProvider", "CPUExecutionProvider"), alone_threads=4),
            None,
        ),
    ],
)
def test_a_graph_is_opened_twice_only_where_that_gives_more_threads(
    engine: Engine, wider: int | None
) -> None:
    """Never on other processors, whose memory holds a model once."""
    assert (engine.wider and engine.wider.intra_op_threads) == wider
    assert engine.wider is None or engine.wider.wider is None


def test_onnx_runtime_reports_to_nobody(tmp_path: Path, models: Path) -> None:
    """It would keep an id of the machine in the home folder, and there what it is going to send."""
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")  # the first one by this process
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    code = f"import lungseg; lungseg.load('standin', models={str(models)!r})"
    home = environment | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert not list(tmp_path.rglob("*"))
