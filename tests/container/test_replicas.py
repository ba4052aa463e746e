"""Replicas come and go under load, and callers don't notice."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.container.engine import run
from tests.container.stack import Stack, load, publish, wait_until
from tests.standin import write_bundle

pytestmark = pytest.mark.container


def test_killing_one_of_two_replicas_under_load_fails_nothing(stack: Stack, png: bytes) -> None:
    """What can't connect, and what was in flight on the dead one, is sent to the other."""
    with load(stack, png) as outcome:
        wait_until("load", lambda: outcome.answered > 20)
        victim = stack.replicas()[0]
        run("docker", "kill", victim)
        seen = outcome.answered
        wait_until("load on the other replica", lambda: outcome.answered > seen + 40)
    print(f"kill: {outcome.statuses}, slowest {max(outcome.seconds):.2f} s")
    run("docker", "start", victim)
    wait_until("both replicas ready", lambda: stack.ready() == 2)
    assert outcome.failures == []


def test_a_replica_that_vanishes_costs_no_new_request(stack: Stack, png: bytes) -> None:
    """Its address answers nothing, and the list of addresses changes while callers wait for it."""
    answers: list[httpx.Response] = []
    with stack.client() as client, ThreadPoolExecutor(8) as pool:
        for attempt in range(10):  # the gateway reads the list each second: at one of its tenths
            victim, network = stack.replicas()[0], f"{stack.name}_back"
            run("docker", "network", "disconnect", network, victim)
            slices = [pool.submit(client.post, "/segment", content=png) for _ in range(8)]
            lists = [pool.submit(client.get, "/models") for _ in range(8)]
            probes = [pool.submit(client.get, "/readyz") for _ in range(8)]
            answers += [request.result() for request in (*slices, *lists, *probes)]
            run("docker", "network", "connect", "--alias", "service", network, victim)
            time.sleep(2 + attempt / 10)  # until the gateway knows it again
    assert [answer.text for answer in answers if answer.status_code != 200] == []


def test_restarting_all_replicas_one_after_another_fails_nothing(stack: Stack, png: bytes) -> None:
    """SIGTERM drains: what was accepted is answered, what comes later goes elsewhere."""
    with load(stack, png) as outcome:
        wait_until("load", lambda: outcome.answered > 20)
        run("docker/rolling-restart.sh", *stack.replicas())
        seen = outcome.answered
        wait_until("load after the restarts", lambda: outcome.answered > seen + 20)
    print(f"rolling restart: {outcome.statuses}, slowest {max(outcome.seconds):.2f} s")
    assert outcome.failures == []


def test_a_stopped_replica_exits_with_status_0(stack: Stack) -> None:
    """PID 1 hears SIGTERM, drains and ends by itself, long before it would be killed."""
    victim = stack.replicas()[0]
    start = time.monotonic()
    run("docker", "stop", "--time", "30", victim)
    seconds, state = time.monotonic() - start, stack.inspect(victim)["State"]
    run("docker", "start", victim)
    wait_until("both replicas ready", lambda: stack.ready() == 2)
    assert (state["ExitCode"], seconds < 10) == (0, True)


def test_a_new_version_in_the_volume_is_served_by_every_replica(
    stack: Stack, bundle: Path, png: bytes, tmp_path: Path
) -> None:
    """Copied into the folder, served by both within the reload interval (here 2 s), under load."""
    before, after = bundle.name, str(int(bundle.name) + 1)
    assert stack.served() == [before, before]
    made = write_bundle(tmp_path, name="lung-unet", version=after)
    with load(stack, png, callers=2) as outcome:
        publish(made, stack.models / "lung-unet" / after)
        # Before the 10 s of the default, and with time to look on a busy machine.
        wait_until("the new one by both", lambda: stack.served() == [after, after], timeout_s=9)
    with stack.client() as client:
        versions = {
            client.post("/segment", content=png).json()["model"]["version"] for _ in "12345678"
        }
    shutil.rmtree(stack.models / "lung-unet" / after)
    wait_until("the old one again", lambda: stack.served() == [before, before], timeout_s=20)
    assert (outcome.failures, versions) == ([], {after})
