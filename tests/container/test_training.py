"""Retraining in a container: a version is published, and the running replicas pick it up."""

from pathlib import Path

import pytest

from tests.container.engine import run
from tests.container.stack import IMAGE_TAG, Stack, wait_until

pytestmark = pytest.mark.container
TINY = (
    "--epochs",
    "1",
    "--width",
    "4",
    "--depth",
    "2",
    "--grid",
    "64",
    "--no-augment",
    "--force",
)


@pytest.fixture(scope="module")
def training_image(docker: None) -> str:
    image = f"lungseg-training:{IMAGE_TAG}"
    flags = "DOCKER_BUILD_FLAGS=--quiet --network host"
    run("make", "training-image", f"TRAINING_IMAGE={image}", flags, timeout_s=1500)
    return image


def test_a_training_run_publishes_what_the_replicas_then_serve(
    stack: Stack, bundle: Path, training_image: str, tmp_path: Path, png: bytes
) -> None:
    """From slices to the next version with one command, without a network, on a read-only root."""
    runs = tmp_path / "runs"
    runs.mkdir()
    mount = f"{runs}:/runs"
    owner = f"{runs.stat().st_uid}:{runs.stat().st_gid}"
    run(
        "docker", "run", "--rm", "--user", owner, "--volume", mount, training_image,
        "phantom", "--out", "/runs/slices", "--count", "20", "--patients", "10", "--size", "128",
    )  # fmt: skip
    trainer = Stack(
        name=stack.name, folder=stack.folder, nginx_image=stack.nginx_image,
        overrides=(*stack.overrides, "docker/compose.training.yml"),
        environment={"DATA": str(runs / "slices"), "RUNS": str(runs), "TRAINING_USER": owner},
    )  # fmt: skip
    said = trainer.compose(
        "run", "--rm", "training", "run", "--data", "/data", "--out", "/runs/run",
        "--models", "/models", "--name", "lung-unet", *TINY,
    )  # fmt: skip
    print(said[-500:])
    after = str(int(bundle.name) + 1)
    assert stack.versions_on_disk() == [bundle.name, after]
    wait_until("the new version by both", lambda: stack.served() == [after, after], timeout_s=30)
    with stack.client() as client:
        answer = client.post("/segment", content=png)
    assert (answer.status_code, answer.json()["model"]["version"]) == (200, after)
