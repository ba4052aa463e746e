"""Thousands of schedules of joining, failing and cancelling: everybody gets their own rows."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.inference.batcher import Batcher

PATIENCE_S = 20.0
EXAMPLES = int(os.environ.get("LUNGSEG_SCHEDULES", "1000"))
POISON = 1000.0
"""Rows with this value make every batch that holds them fail."""


@dataclass(frozen=True)
class Call:
    key: int
    rows: int
    poisoned: bool
    cancelled: bool


class Graph:
    """Stands for a model: row for row, ``2 x + key``; fails on poison, may be held up."""

    def __init__(self, key: int, gate: threading.Event) -> None:
        self.key = key
        self.gate = gate
        self.sizes: list[int] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        assert self.gate.wait(PATIENCE_S)
        self.sizes.append(len(rows))
        if (rows >= POISON).any():
            raise ArithmeticError("poison")
        return rows * 2 + self.key


calls = st.builds(
    Call,
    key=st.integers(0, 2),
    rows=st.integers(1, 4),
    poisoned=st.sampled_from([False, False, False, True]),
    cancelled=st.sampled_from([False, False, True]),
)


@given(
    schedule=st.lists(calls, min_size=1, max_size=14),
    max_size=st.integers(1, 6),
    window_s=st.sampled_from([0.0, 0.0005]),
    threads=st.integers(1, 3),
    open_after=st.integers(0, 14),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_schedule_mixes_loses_or_hangs(
    schedule: list[Call], max_size: int, window_s: float, threads: int, open_after: int
) -> None:
    gate = threading.Event()
    graphs = [Graph(key, gate) for key in range(3)]
    batcher = Batcher(max_size=max_size, window_s=window_s)
    futures: dict[int, Future[np.ndarray]] = {}
    values = {
        index: np.full((call.rows, 2), POISON if call.poisoned else index, np.float32)
        for index, call in enumerate(schedule)
    }

    def submit(indices: list[int]) -> None:
        for index in indices:
            call = schedule[index]
            futures[index] = batcher.submit(call.key, graphs[call.key], values[index]).result
            if call.cancelled:
                futures[index].cancel()
            if index >= open_after:
                gate.set()

    callers = [
        threading.Thread(target=submit, args=(list(range(start, len(schedule), threads)),))
        for start in range(threads)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE_S)
    gate.set()
    done = wait(futures.values(), PATIENCE_S)
    assert not done.not_done, "a caller hangs"
    batcher.close()
    for index, call in enumerate(schedule):
        check(call, values[index], futures[index])
    assert max((size for graph in graphs for size in graph.sizes), default=0) <= max(max_size, 4)


def check(call: Call, rows: np.ndarray, future: Future[np.ndarray]) -> None:
    try:
        output = future.result(0)
    except CancelledError:
        assert call.cancelled
    except ArithmeticError:
        assert call.poisoned
    else:
        assert not call.poisoned
        assert np.array_equal(output, rows * 2 + call.key)


def test_what_waits_is_joined_up_to_the_largest_size() -> None:
    gate, sizes = threading.Event(), []
    graph = Graph(0, gate)
    batcher = Batcher(max_size=3, on_batch=sizes.append)
    pending = [batcher.submit(0, graph, np.full((1, 1), i, np.float32)) for i in range(6)]
    gate.set()
    for index, item in enumerate(pending):
        assert item.result.result(PATIENCE_S).item() == 2 * index
    batcher.close()
    assert sizes in ([1, 3, 2], [2, 3, 1], [3, 3])  # what waits when the first one begins
    assert all(item.started_s > 0 for item in pending)


def test_a_window_joins_what_comes_within_it() -> None:
    sizes: list[int] = []
    gate = threading.Event()
    gate.set()
    batcher = Batcher(max_size=2, window_s=1000.0, on_batch=sizes.append)
    pending = [batcher.submit(0, Graph(0, gate), np.ones((1, 1), np.float32)) for _ in range(2)]
    for item in pending:
        item.result.result(PATIENCE_S)
    batcher.close()
    assert sizes == [2]
    twos = [batcher_of_threes([2, 2, 2]), batcher_of_threes([1, 2])]
    assert twos == [[2, 2, 2], [3]]


def batcher_of_threes(rows: list[int]) -> list[int]:
    """The sizes of batches of at most three rows, of items of so many rows that wait together."""
    sizes, gate = list[int](), threading.Event()
    batcher = Batcher(max_size=3, on_batch=sizes.append)
    first = batcher.submit("held", Graph(0, gate), np.ones((3, 1), np.float32))
    pending = [batcher.submit(0, Graph(0, gate), np.ones((n, 1), np.float32)) for n in rows]
    gate.set()
    for item in (first, *pending):
        item.result.result(PATIENCE_S)
    batcher.close()
    return sizes[1:]


def test_other_keys_do_not_wait_for_a_window() -> None:
    gate = threading.Event()
    gate.set()
    batcher = Batcher(max_size=8, window_s=1000.0)
    first = batcher.submit(0, Graph(0, gate), np.ones((1, 1), np.float32))
    second = batcher.submit(1, Graph(1, gate), np.ones((1, 1), np.float32))
    assert first.result.result(PATIENCE_S).item() == 2
    third = batcher.submit(0, Graph(0, gate), np.ones((1, 1), np.float32))
    assert second.result.result(PATIENCE_S).item() == 3
    batcher.close()
    assert third.result.result(PATIENCE_S).item() == 2


def test_closing_finishes_what_waits() -> None:
    """Whoever was let in gets its rows, and no thread is left."""
    gate = threading.Event()
    batcher = Batcher(max_size=1)
    pending = [batcher.submit(0, Graph(0, gate), np.ones((1, 1), np.float32)) for _ in range(3)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.set()
    closing.join(PATIENCE_S)
    assert [item.result.result(0).item() for item in pending] == [2, 2, 2]


def test_a_closed_batcher_takes_nothing() -> None:
    batcher = Batcher(max_size=1)
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(0, lambda rows: rows, np.ones((1, 1), np.float32))


def test_a_graph_that_returns_too_few_rows_fails_its_callers() -> None:
    batcher = Batcher(max_size=4)
    item = batcher.submit(0, lambda rows: rows[:0], np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="expected 2 output rows"):
        item.result.result(PATIENCE_S)
    batcher.close()
