"""Hostile bytes: an error of the contract or an answer, never anything else, never for long."""

from __future__ import annotations

import os
import resource
import time

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungseg.core.errors import LungsegError
from lungseg.formats.archive import ArchiveLimits, open_archive
from lungseg.formats.decoders import DecoderLimits, Decoders
from lungseg.formats.read import read_scan
from lungseg.web.errors import PROBLEMS
from tests.properties.mutations import coded_seeds, mutate, mutate_frame, seeds

SHORT, SHORT_FRAMES = 500, 200
PATIENCE_S = 2.0
DECODERS = Decoders(DecoderLimits(processes=2, timeout_s=1.0))
"""Some mutants would keep a decoder busy for as long as it may be."""
MAX_PIXELS = 1 << 20
GROWTH_MB = 96
"""What a run of any length may add to the peak: slices at the limit of pixels, and caches."""
SEEDS = seeds()
LIMITS = ArchiveLimits(max_items=8, max_item_bytes=1 << 20, max_total_bytes=4 << 20)


def inputs(short: int = SHORT) -> int:
    """How many: set by ``make fuzz``."""
    return int(os.environ.get("LUNGSEG_FUZZ_INPUTS", short))


def attempt(content: bytes, name: str) -> str:
    """Reads as the service does; returns the error's code, or ``ok``."""
    begun = time.perf_counter()
    try:
        if name == "zip":
            for member in open_archive(content, LIMITS):
                member.read()
        else:
            allowed = bool(len(content) % 2)
            scan = read_scan(
                content, max_pixels=MAX_PIXELS, allow_non_ct=allowed, decode=DECODERS.decode
            )
            assert scan.values.dtype == np.float32
            assert np.isfinite(scan.values).all()
            assert scan.values.size <= MAX_PIXELS
        code = "ok"
    except LungsegError as error:
        code = error.code
        assert PROBLEMS[code][0] < 500
    assert time.perf_counter() - begun < PATIENCE_S
    return code


def test_mutated_files_give_an_answer_or_a_documented_error() -> None:
    random = np.random.default_rng(int(os.environ.get("LUNGSEG_FUZZ_SEED", "20260101")))
    names = list(SEEDS)
    outcomes: dict[str, int] = {}
    peak = 0
    for number in range(inputs()):
        name = names[number % len(names)]
        code = attempt(mutate(SEEDS[name], random), name)
        outcomes[code] = outcomes.get(code, 0) + 1
        if number == 200:  # by then every decoder is loaded
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    assert grown_mb < GROWTH_MB, outcomes
    assert len(outcomes) > 3, outcomes


def test_mutated_frames_cost_themselves_alone() -> None:
    """Inside sound headers, where native decoders meet them; sound files decode in between."""
    random = np.random.default_rng(int(os.environ.get("LUNGSEG_FUZZ_SEED", "20260101")))
    coded = coded_seeds()
    names = list(coded)
    outcomes: dict[str, int] = {}
    for number in range(inputs(SHORT_FRAMES)):
        name = names[number % len(names)]
        code = attempt(mutate_frame(coded[name], random), name)
        outcomes[code] = outcomes.get(code, 0) + 1
        if number % 100 == 0:
            assert attempt(coded[name], name) == "ok"
    print(outcomes)
    assert set(outcomes) == {"ok", "undecodable_image"}


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_themselves_are_read(name: str) -> None:
    assert attempt(SEEDS[name], name) == "ok"


@settings(max_examples=SHORT, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    head=st.sampled_from([b"", *(seed[:200] for seed in SEEDS.values())]),
    tail=st.binary(max_size=300),
)
def test_anything_behind_a_valid_beginning(head: bytes, tail: bytes) -> None:
    attempt(head + tail, "anything")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_the_service_never_fails(client: httpx.Client, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SEEDS)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    content = mutate(SEEDS[name], np.random.default_rng(seed))
    path = "/segment/batch" if name == "zip" else "/segment"
    form = data.draw(st.sampled_from(["", "?encoding=polygon", "?format=dicom-seg"]))
    answer = client.post(path + (form if name != "zip" else ""), content=content)
    assert answer.status_code < 500
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] in PROBLEMS
