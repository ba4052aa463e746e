"""``python -m bench load``: four times the sustainable rate for a minute, and what became of it.

Then the largest slices, as ``bench.memory`` says.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from pathlib import Path

from bench import host, memory, samples, wire

OVERLOAD = 4.0
DEADLINE_S = 5.0
MIN_GOODPUT = 0.9
MEMORY_TOLERANCE = 0.1
RECOVERY_S = 2.0
ALLOWED = {200, 503, 504}


def run(models: Path, model: str, seconds: float) -> None:
    message = wire.request("/segment?format=png", samples.picture())
    with host.service(models, model, DEADLINE_S=str(DEADLINE_S)) as service:
        asyncio.run(wire.closed_loop(service.port, message, 8, 5.0))  # warm
        calm = asyncio.run(wire.closed_loop(service.port, message, 8, 10.0))
        sustainable = len(calm.ok()) / 10.0
        alone = asyncio.run(wire.closed_loop(service.port, message, 1, 3.0)).ok()
        alone_ms = wire.percentile(alone, 50)
        print(f"sustainable {sustainable:.1f} requests/s, alone p50 {alone_ms:.1f} ms")
        rate = OVERLOAD * sustainable
        held_mb, tally = storm(service, message, rate, seconds)
        recovery = recovery_s(service.port, message, alone_ms / 1000)
    held = report(tally, held_mb, recovery, rate, sustainable, seconds)
    sys.exit(0 if memory.run(models, model) and held else 1)


def storm(
    service: host.Host, message: bytes, rate: float, seconds: float
) -> tuple[list[float], wire.Tally]:
    """Sends the storm; returns resident memory of each second, and the tally."""
    held_mb: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            held_mb.append(service.rss_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    tally = asyncio.run(wire.open_loop(service.port, message, rate, seconds, 400))
    over.set()
    watcher.join()
    return held_mb, tally


def recovery_s(port: int, message: bytes, normal_s: float) -> float:
    """Seconds after the storm until three answers in a row take at most twice the normal time."""

    async def ask() -> float:
        begun = time.perf_counter()
        connection = await wire.Connection.open(port)
        in_a_row = 0
        while in_a_row < 3 and time.perf_counter() - begun < 30:
            asked = time.perf_counter()
            status, _ = await connection.exchange(message)
            quick = time.perf_counter() - asked <= 2 * normal_s
            in_a_row = in_a_row + 1 if status == 200 and quick else 0
        return time.perf_counter() - begun

    return asyncio.run(ask())


def report(
    tally: wire.Tally,
    held_mb: list[float],
    recovery: float,
    rate: float,
    sustainable: float,
    seconds: float,
) -> bool:
    counts = {status: len(values) for status, values in sorted(tally.seconds.items())}
    goodput = counts.get(200, 0) / seconds
    accepted = tally.ok()
    codes = {
        status: json.loads(body)["code"] for status, body in tally.bodies.items() if status != 200
    }
    # The first quarter fills caches and queues; flat means from then on.
    settled = held_mb[len(held_mb) // 4 :]
    middle = statistics.median(settled)
    swing = max(abs(value - middle) for value in settled) / middle
    p99 = wire.percentile(accepted, 99)
    print(f"storm of {rate:.0f} requests/s for {seconds:.0f} s: {counts}, broken {tally.broken}")
    print(f"codes of refusals: {codes}")
    checks = {
        f"only {sorted(ALLOWED)} and nothing broken": set(counts) <= ALLOWED and not tally.broken,
        f"goodput {goodput:.1f}/s = {goodput / sustainable:.2f} of sustainable": goodput
        >= MIN_GOODPUT * sustainable,
        f"p99 of accepted {p99:.0f} ms under the deadline": p99 < DEADLINE_S * 1000,
        f"memory {middle:.0f} MB ± {swing:.1%}": swing <= MEMORY_TOLERANCE,
        f"normal again after {recovery:.2f} s": recovery <= RECOVERY_S,
    }
    for text, held in checks.items():
        print(f"{'ok  ' if held else 'MISS'} {text}")
    return all(checks.values())
