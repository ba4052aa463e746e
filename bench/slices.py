"""``python -m bench slices``: how fast, beside what others would write, and where the time goes.

All ratios are of one run: turns of each figure alternate, so that neighbours disturb all alike.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import host, inprocess, samples, wire
from bench.aims import Aim, print_aims
from lungseg.inference.timing import Stopwatch

ROUNDS = 3
CONCURRENCY = 16
BATCH = 64
WARM_REQUESTS = 200
STAGE_TURNS = 60
AIMS = (
    Aim(
        "png_ratio", "requests/s against naive, 16 at a time, PNG → PNG", 1.15, more_is_better=True
    ),
    Aim(
        "json_ratio",
        "requests/s against naive, 16 at a time, PNG → JSON",
        1.15,
        more_is_better=True,
    ),
    Aim(
        "plain_ratio", "requests/s against plain, 16 at a time, PNG → PNG", 1.0, more_is_better=True
    ),
    Aim("p99_ratio", "p99 against naive, 16 at a time", 0.7),
    Aim("alone_ratio", "p50 against naive, alone", 1.05),
    Aim("png_rate", "slices/s over HTTP, PNG", 150, more_is_better=True),
    Aim("raw_rate", "slices/s over HTTP, raw DICOM", 170, more_is_better=True),
    Aim("JPEG-LS_rate", "slices/s over HTTP, JPEG-LS", 120, more_is_better=True),
    Aim("JPEG 2000_rate", "slices/s over HTTP, JPEG 2000", 60, more_is_better=True),
    Aim("png_share", "HTTP against in-process, PNG", 0.93, more_is_better=True),
    Aim("added_ms", "ms that HTTP adds to a request alone", 1.0),
    Aim(
        "batch_ratio",
        f"slices/s of a batch of {BATCH} against single requests",
        1.1,
        more_is_better=True,
    ),
    Aim("memory_mb", f"MB resident after {WARM_REQUESTS} requests", 250),
    Aim("ready_s", "s from start to /readyz", 1.2),
)


@dataclass(slots=True)
class Turns:
    """What one server did in all its turns."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def percentile_ms(self, percent: float) -> float:
        return wire.percentile(sorted(self.seconds), percent)


def run(models: Path, model: str, seconds: float) -> None:
    bundle = host.newest(models / model)
    picture, dicoms = samples.picture(), samples.dicoms()
    print(f"model {bundle}, {os.cpu_count()} cores, PNG of {len(picture) / 1000:.0f} KB")
    pipeline = inprocess.Pipeline(bundle)
    print_stages(pipeline, {"png": picture, **{f"dicom {k}": v for k, v in dicoms.items()}})
    figures: dict[str, float] = {}
    with (
        host.service(models, model) as ours,
        host.endpoint("bench.naive", bundle) as naive,
        host.endpoint("bench.plain", bundle) as plain,
    ):
        figures["ready_s"] = ours.start_s
        warm(ours.port, picture, dicoms["raw"])
        figures["memory_mb"] = ours.rss_mb()
        others = {
            "naive": (naive, wire.form("/segment", picture)),
            "plain": (plain, wire.request("/segment", picture)),
        }
        figures |= compare(ours, others, picture, seconds)
        figures |= rates(ours, pipeline, {"png": picture, **dicoms}, seconds)
        figures |= batches(ours, picture, seconds)
    print_aims(AIMS, figures)


def warm(port: int, *contents: bytes) -> None:
    async def send() -> None:
        connection = await wire.Connection.open(port)
        for index in range(WARM_REQUESTS):
            form = ("png", "json")[index // len(contents) % 2]
            message = wire.request(f"/segment?format={form}", contents[index % len(contents)])
            status, body = await connection.exchange(message)
            assert status == 200, body
        connection.transport.close()

    asyncio.run(send())


def print_stages(pipeline: inprocess.Pipeline, contents: dict[str, bytes]) -> None:
    """Processor time of this thread; what a decoder process spends is not in it."""
    print("\nprocessor time of one slice alone in one thread, ms (tenth percentile)")
    for name, content in contents.items():
        for form in ("json", "png") if name == "png" else ("json",):
            turns: list[dict[str, float]] = []
            for _ in range(STAGE_TURNS):
                watch = inprocess.ProcessorWatch()
                pipeline.segment(content, form, watch)
                turns.append(watch.spent_ms)
            least = {
                stage: statistics.quantiles([turn[stage] for turn in turns[5:]], n=10)[0]
                for stage in turns[0]
            }
            text = ", ".join(f"{stage} {spent:.2f}" for stage, spent in least.items())
            print(f"  {name} → {form}: {text}; sum {sum(least.values()):.2f}")


def turn(served: host.Host, message: bytes, callers: int, seconds: float, into: Turns) -> None:
    """Adds one turn of a server."""
    before = psutil.Process(served.pid).cpu_times()
    tally = asyncio.run(wire.closed_loop(served.port, message, callers, seconds))
    after = psutil.Process(served.pid).cpu_times()
    answered = tally.ok()
    spent_s = after.user + after.system - before.user - before.system
    into.rates.append(len(answered) / seconds)
    into.cpu_ms.append(spent_s / len(answered) * 1000)
    into.seconds += answered


def compare(
    ours: host.Host,
    others: dict[str, tuple[host.Host, bytes]],
    picture: bytes,
    seconds: float,
) -> dict[str, float]:
    """Ours beside endpoints that do less, on the same ONNX file and slice."""
    servers = {
        f"ours → {form}": (ours, wire.form(f"/segment?format={form}", picture))
        for form in ("png", "json")
    } | others
    found: dict[int, dict[str, Turns]] = {}
    for callers in (CONCURRENCY, 1):
        found[callers] = {name: Turns() for name in servers}
        for _ in range(ROUNDS):
            for name, (served, message) in servers.items():
                turn(served, message, callers, seconds, found[callers][name])
        print(f"\nPNG in a form, {callers} at a time: requests/s, processor ms each, p50, p99 ms")
        for name, turns in found[callers].items():
            cpu_ms = statistics.median(turns.cpu_ms)
            p50, p99 = turns.percentile_ms(50), turns.percentile_ms(99)
            print(f"  {name:12} {turns.rate:6.1f} {cpu_ms:6.1f} {p50:6.1f} {p99:6.1f}")
    many, alone = found[CONCURRENCY], found[1]
    naive = many["naive"]
    return {
        "png_ratio": many["ours → png"].rate / naive.rate,
        "json_ratio": many["ours → json"].rate / naive.rate,
        "p99_ratio": many["ours → png"].percentile_ms(99) / naive.percentile_ms(99),
        "plain_ratio": many["ours → png"].rate / many["plain"].rate,
        "alone_ratio": alone["ours → png"].percentile_ms(50) / alone["naive"].percentile_ms(50),
    }


def rates(
    ours: host.Host, pipeline: inprocess.Pipeline, contents: dict[str, bytes], seconds: float
) -> dict[str, float]:
    """Slices/s over HTTP and without it, and what a request costs beside the same work here."""
    cores = os.cpu_count() or 1
    found: dict[str, float] = {}
    print(f"\nslices/s → json over HTTP, 8 at a time, and in {cores} threads of this process")
    for name, content in contents.items():
        message = wire.request("/segment?format=json", content)

        def work(content: bytes = content) -> None:
            pipeline.segment(content, "json", Stopwatch())

        http, direct = Turns(), Turns()
        for _ in range(ROUNDS):
            turn(ours, message, 8, seconds, http)
            direct.rates.append(len(inprocess.closed_loop(work, cores, seconds)) / seconds)
        found[f"{name}_rate"] = http.rate
        found[f"{name}_share"] = http.rate / direct.rate
        print(
            f"  {name:10} {http.rate:6.1f} {direct.rate:6.1f}  ratio {http.rate / direct.rate:.2f}"
        )
    found["added_ms"] = added_ms(ours, pipeline, contents["png"], seconds)
    return found


def added_ms(
    ours: host.Host, pipeline: inprocess.Pipeline, content: bytes, seconds: float
) -> float:
    """What HTTP adds to one request alone: p50 of both, with as many threads for the network."""
    message, http, direct = wire.request("/segment?format=json", content), Turns(), Turns()

    def work() -> None:
        pipeline.segment(content, "json", Stopwatch(), alone=True)

    for _ in range(ROUNDS):
        turn(ours, message, 1, seconds, http)
        direct.seconds += inprocess.closed_loop(work, 1, seconds)
    return http.percentile_ms(50) - direct.percentile_ms(50)


def batches(ours: host.Host, picture: bytes, seconds: float) -> dict[str, float]:
    """Many slices in one request beside as many requests."""
    single, many = Turns(), Turns()
    batch = wire.form("/segment/batch", *[picture] * BATCH)
    for _ in range(ROUNDS):
        turn(ours, wire.request("/segment?format=json", picture), 8, seconds, single)
        turn(ours, batch, 1, seconds, many)
    rate = many.rate * BATCH
    print(f"\n{BATCH} slices in one request: {rate:.1f} slices/s; one by one {single.rate:.1f}")
    return {"batch_ratio": rate / single.rate}
