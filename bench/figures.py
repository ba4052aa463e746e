"""``python -m bench``: start, memory, throughput, latency, stages, all in one run."""

from __future__ import annotations

import asyncio
import io
import json
import os
import statistics
from pathlib import Path

import numpy as np
from PIL import Image

from bench import host, inprocess, wire
from lungseg.inference.timing import Stopwatch
from training.synthetic.phantom import dicom_bytes, make_phantom

ROUNDS = 3
"""Each figure is the median of so many turns, in alternation: neighbours disturb all alike."""


def slices() -> dict[str, bytes]:
    """A 512 × 512 phantom as 16-bit PNG and as DICOM."""
    phantom = make_phantom()
    stream = io.BytesIO()
    Image.fromarray((phantom.hu + 1024).astype(np.uint16)).save(stream, "PNG")
    return {"png": stream.getvalue(), "dicom": dicom_bytes(phantom)}


def percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


def run(models: Path, model: str, seconds: float) -> None:
    bundle = newest(models / model)
    contents = slices()
    threads = int(os.environ.get("LUNGSEG_INTRA_OP_THREADS", "1"))
    pipeline = inprocess.Pipeline(bundle, threads)
    print(f"model {bundle}, {os.cpu_count()} cores, intra-op threads {threads}")
    print_stages(pipeline, contents)
    with host.service(models, model) as service:
        print(f"process start to /readyz 200: {service.start_s:.2f} s")
        warm(service.port, contents, 200)
        print(f"resident memory after 200 requests: {service.rss_mb():.0f} MB")
        throughput(service.port, pipeline, contents, seconds)
        latency(service.port, pipeline, contents["png"], seconds)
        profile(service)
    compare(models, model, bundle, contents["png"], seconds)


def newest(folder: Path) -> Path:
    versions = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
    return max(versions, key=lambda entry: int(entry.name))


def warm(port: int, contents: dict[str, bytes], count: int) -> None:
    async def send() -> None:
        connection = await wire.Connection.open(port)
        for index in range(count):
            name = ("png", "dicom")[index % 2]
            form = ("png", "json")[index // 2 % 2]
            message = wire.request(f"/segment?format={form}", contents[name])
            status, body = await connection.exchange(message)
            assert status == 200, body
        connection.transport.close()

    asyncio.run(send())


def print_stages(pipeline: inprocess.Pipeline, contents: dict[str, bytes]) -> None:
    print("\nstages of one slice alone, median ms")
    for name, content in contents.items():
        for form in ("json", "png"):
            turns: list[dict[str, float]] = []
            for _ in range(40):
                watch = Stopwatch()
                pipeline.segment(content, form, watch)
                turns.append(watch.spent_ms)
            medians = {key: statistics.median(t[key] for t in turns[5:]) for key in turns[0]}
            around = sum(medians.values()) - medians["inference"]
            text = ", ".join(f"{key} {value:.2f}" for key, value in medians.items())
            print(f"  {name} → {form}: {text}; all but inference {around:.2f}")


def throughput(
    port: int, pipeline: inprocess.Pipeline, contents: dict[str, bytes], seconds: float
) -> None:
    cores = os.cpu_count() or 1
    for name, form in (("png", "png"), ("png", "json"), ("dicom", "png"), ("dicom", "json")):
        content = contents[name]
        message = wire.request(f"/segment?format={form}", content)
        rates: dict[str, list[float]] = {"http": [], "in-process": [], "bare": []}
        for _ in range(ROUNDS):
            tally = asyncio.run(wire.closed_loop(port, message, 8, seconds))
            rates["http"].append(len(tally.ok()) / seconds)
            calls = inprocess.closed_loop(
                lambda content=content, form=form: pipeline.segment(content, form, Stopwatch()),
                cores,
                seconds,
            )
            rates["in-process"].append(len(calls) / seconds)
            rates["bare"].append(
                len(inprocess.closed_loop(pipeline.bare, cores, seconds)) / seconds
            )
        http, direct, bare = (statistics.median(values) for values in rates.values())
        print(
            f"\n{name} → {form}, requests/s: HTTP at concurrency 8 {http:.1f}, in-process "
            f"({cores} threads) {direct:.1f}, bare session {bare:.1f}\n"
            f"  HTTP / in-process {http / direct:.3f}, HTTP / bare {http / bare:.3f}"
        )


def latency(port: int, pipeline: inprocess.Pipeline, content: bytes, seconds: float) -> None:
    message = wire.request("/segment?format=png", content)
    found: dict[str, list[float]] = {"http": [], "in-process": [], "bare": []}
    for _ in range(ROUNDS):
        found["http"] += asyncio.run(wire.closed_loop(port, message, 1, seconds)).ok()
        found["in-process"] += inprocess.closed_loop(
            lambda: pipeline.segment(content, "png", Stopwatch()), 1, seconds
        )
        found["bare"] += inprocess.closed_loop(pipeline.bare, 1, seconds)
    print("\nlatency at concurrency 1, png → png, ms")
    for name, values in found.items():
        ordered = sorted(values)
        print(f"  {name}: p50 {percentile(ordered, 50):.2f}, p99 {percentile(ordered, 99):.2f}")


def profile(service: host.Host) -> None:
    """What the service itself measured of its stages, and what HTTP adds."""
    _, text = service.get("/metrics")
    values = {}
    for line in text.decode().splitlines():
        if line.startswith(("lungseg_stage_seconds", "lungseg_request_seconds")):
            key, _, value = line.rpartition(" ")
            values[key] = float(value)
    print("\nwhat a request is made of under these loads, mean ms (all forms)")
    total = mean(values, "request", 'route="/segment"')
    stages = {
        stage: mean(values, "stage", f'stage="{stage}"')
        for stage in (
            "queue",
            "decode",
            "fit",
            "inference",
            "restore",
            "label",
            "measure",
            "encode",
        )
    }
    for stage, spent in stages.items():
        print(f"  {stage} {spent:.2f}")
    print(f"  all else in the service (HTTP, routing, log) {total - sum(stages.values()):.2f}")


def mean(values: dict[str, float], kind: str, label: str) -> float:
    family = f"lungseg_{kind}_seconds"
    count = values.get(f"{family}_count{{{label}}}", 0.0)
    return values.get(f"{family}_sum{{{label}}}", 0.0) / count * 1000 if count else 0.0


def compare(models: Path, model: str, bundle: Path, content: bytes, seconds: float) -> None:
    """Ours against the plain endpoint at concurrency 16, same file, same slice."""
    message = wire.request("/segment?format=png", content)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    with host.service(models, model) as ours, host.plain(bundle) as plain:
        for _ in range(ROUNDS):
            for name, port in (("ours", ours.port), ("plain", plain.port)):
                tally = asyncio.run(wire.closed_loop(port, message, 16, seconds))
                rates[name].append(len(tally.ok()) / seconds)
                times[name] += tally.ok()
    print("\nagainst a plain FastAPI endpoint on the same ONNX file, concurrency 16, png → png")
    for name, turns in rates.items():
        ordered = sorted(times[name])
        print(
            f"  {name}: {statistics.median(turns):.1f} requests/s, "
            f"p50 {percentile(ordered, 50):.0f} ms, p99 {percentile(ordered, 99):.0f} ms"
        )
    print(json.dumps({name: statistics.median(values) for name, values in rates.items()}))
