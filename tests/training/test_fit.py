"""Fitting, through the functions that the commands call: repeatable, resumable, transferable."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungseg.core.preprocess import to_grey
from tests.training.conftest import tiny
from training.__main__ import main
from training.config import read_config, write_config
from training.data.cache import cache_pieces, load_piece
from training.data.dataset import data_hash, list_pairs
from training.data.material import read_material
from training.data.sources import Source
from training.data.split import split_hash
from training.errors import DataError
from training.fitting.state import RunState, read_state
from training.fitting.train import train
from training.release.folds import cross_validate
from training.release.target import Release
from training.synthetic.phantom_set import write_phantom_set

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.training


def weights_of(run: Path, name: str = "last.keras") -> list[np.ndarray]:
    from training.fitting.checkpoints import load_network

    return load_network(run / name).get_weights()


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(a, b, strict=True))


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def unbroken(phantoms: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of three epochs, with dropout, a schedule and averaged weights."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train([phantoms], out, REPEATED, cache=cache)
    return out


REPEATED = tiny(
    epochs=3,
    dropout=0.3,
    schedule="cosine",
    warmup_epochs=1.0,
    loss="bce_dice",
    average_momentum=0.6,
)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    phantoms: Path, cache: Path, unbroken: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the second epoch of another process: message, code 130, the same weights later.

    To the bit: the same seed gives the same weights, whoever computes them in however many goes.
    """
    out = tmp_path / "runs" / "run"
    recipe = tmp_path / "recipe.toml"
    write_config(REPEATED, recipe)
    command = [sys.executable, "-u", "-m", "training", "run", "--data", str(phantoms)]
    with subprocess.Popen(
        [*command, "--out", str(out), "--config", str(recipe), "--models", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 - before any thread of the child
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopped; the same command goes on from the last whole epoch" in errors
    assert json.loads((out / "state.json").read_text())["epochs_done"] in (1, 2)
    assert not list(out.glob("*part*"))
    train([phantoms], out, REPEATED, cache=cache)
    assert [row["epoch"] for row in history(out)] == ["1", "2", "3"]
    assert same(weights_of(unbroken), weights_of(out))


def test_what_is_validated_and_saved_is_the_average_of_the_weights() -> None:
    """As by hand from the weights after each step, in each of two epochs."""
    from training.fitting.average import AveragedWeights

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    network.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7), "mse")
    steps: list[float] = []
    kept: list[float] = []

    def note(into: list[float]) -> None:
        into.append(float(network.get_weights()[0][0, 0]))

    x = np.linspace(-1, 1, 6)[:, None]
    network.fit(
        x,
        3 * x,
        batch_size=2,
        epochs=2,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: note(steps)),
            AveragedWeights(resumed=False),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: note(kept)),
        ],
    )
    averages = [steps[0]]
    for step in steps[1:]:
        averages.append(0.7 * averages[-1] + 0.3 * step)
    assert kept == pytest.approx([averages[2], averages[5]], rel=1e-4)


def _heed_interrupts() -> None:
    """A shell that starts the tests in the background would have its children ignore ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_run_records_how_it_was_made(unbroken: Path) -> None:
    """Recipe, split, hashes, seeds, versions and the commit; figures as CSV and for TensorBoard."""
    assert read_config(unbroken / "config.toml", {}) == REPEATED
    facts = json.loads((unbroken / "provenance.json").read_text())
    assert facts["seed"] == 0
    material = read_material(unbroken)
    sides = (material.training, material.validation)
    assert facts["data_sha256"] == data_hash([*material.training, *material.validation])
    assert facts["split_sha256"] == split_hash(*sides)
    assert facts["versions"]["keras"] == keras.__version__
    assert facts["sources"][0]["training"] == 16
    assert set(facts["git"]) <= {"commit", "modified"}
    last = history(unbroken)[-1]
    assert {"loss", "dice", "val_loss", "val_dice", "input_wait", "seconds"} <= set(last)
    assert logged_values(unbroken / "tensorboard", "val_dice") == pytest.approx(
        [float(row["val_dice"]) for row in history(unbroken)], rel=1e-4
    )


def dice_on_validation(run: Path, name: str, data: Path, cache: Path) -> float:
    """The Dice over all held-out pixels, as they are, of a network that the run keeps."""
    from training.fitting.losses import Dice

    config = read_config(run / "config.toml", {})
    with (run / "split.csv").open(newline="") as stream:
        held_out = {row["name"] for row in csv.DictReader(stream) if row["remark"] == "validation"}
    pairs = [pair for pair in list_pairs(data).pairs if pair.name in held_out]
    pieces = [load_piece(path) for path in cache_pieces(pairs, config.grid, cache)]
    grey = np.stack([to_grey(piece.hu, "HU", config.intensity) for piece in pieces])[..., None]
    dice = Dice()
    dice.update_state(
        np.stack([piece.target for piece in pieces])[..., None],
        np.asarray(load(run / name)(grey, training=False)),
    )
    return float(dice.result())


def test_what_is_kept_scores_what_the_history_says(
    unbroken: Path, phantoms: Path, cache: Path
) -> None:
    """The last network and the best one, on the held-out slices unvaried; each kept as it was."""
    scores = [float(row["val_dice"]) for row in history(unbroken)]
    state = json.loads((unbroken / "state.json").read_text())
    assert state["epochs_done"] == 3
    assert state["best_dice"] == pytest.approx(max(scores), rel=1e-4)
    assert state["best_epoch"] == 1 + int(np.argmax(scores))
    for name, score in (("last.keras", scores[-1]), ("best.keras", max(scores))):
        found = dice_on_validation(unbroken, name, phantoms, cache)
        assert found == pytest.approx(score, abs=1e-4)
    optimizer = load(unbroken / "last.keras", for_fitting=True).optimizer
    assert optimizer.use_ema
    assert optimizer.ema_momentum == REPEATED.average_momentum
    assert int(optimizer.iterations) == 3 * 2  # 16 slices in two batches


def test_the_best_epoch_is_the_first_of_the_highest_dice(tmp_path: Path) -> None:
    """A later one that equals it replaces nothing; patience is counted from it."""
    from training.fitting.checkpoints import Keeper

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    keeper = Keeper(tmp_path, patience=2)
    keeper.set_model(network)
    network.stop_training = False
    saved = []
    for epoch, dice in enumerate((0.5, 0.7, 0.7, 0.6)):
        network.set_weights([np.full((1, 1), epoch, np.float32), np.zeros(1, np.float32)])
        assert not network.stop_training
        keeper.on_epoch_begin(epoch)
        keeper.on_epoch_end(epoch, {"dice": 1.0, "val_dice": dice})
        saved.append([weights_of(tmp_path, f"{name}.keras")[0].item() for name in ("best", "last")])
    assert saved == [[0, 0], [1, 1], [1, 2], [1, 3]]
    assert network.stop_training
    state = read_state(tmp_path)
    assert state == RunState(epochs_done=4, best_dice=0.7, best_epoch=2, stopped=True)
    again = Keeper(tmp_path, patience=2)
    again.set_model(network)
    again.on_epoch_begin(3)
    again.on_epoch_end(3, {"dice": 1.0, "val_dice": 0.9})  # the epoch that a crash repeats
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3", "4"]
    assert history(tmp_path)[-1]["val_dice"] == "0.9"
    keeper.on_train_end()
    again.on_train_end()


def test_the_commit_and_changes_of_a_checkout_are_recorded(tmp_path: Path) -> None:
    """Whether tracked files differ; a new one that git does not know changes no result."""
    from training.fitting.provenance import git_state, provenance

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert git_state(tmp_path) == {}
    git("init", "-q")
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "-q", "-m", text)
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "modified": False}
    (tmp_path / "new").write_text("unknown")
    assert not git_state(tmp_path)["modified"]
    (tmp_path / "file").write_text("three")
    assert git_state(tmp_path) == {"commit": commit, "modified": True}
    facts = provenance(tiny(seed=7))
    assert facts["seed"] == 7
    assert facts["git"] == git_state(Path(__file__).parents[2] / "training")
    assert {"python", "keras", "numpy"} <= set(facts["versions"])


def logged_values(folder: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        float(value.tensor.float_val[0])
        for path in sorted(folder.iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def test_a_run_is_not_continued_with_another_recipe_or_other_data(
    phantoms: Path, cache: Path, unbroken: Path
) -> None:
    """Each refusal says what changed."""
    with pytest.raises(DataError, match=r"another recipe \(other learning_rate, loss\)"):
        train(
            [phantoms], unbroken, tiny(**(asdict(REPEATED) | {"loss": "bce", "learning_rate": 1.0}))
        )
    renamed = Source(name="elsewhere", path=phantoms)
    with pytest.raises(DataError, match="entries of the split changed"):
        train([renamed], unbroken, REPEATED, cache=cache)


def test_early_stopping_ends_the_run_for_good(phantoms: Path, cache: Path, tmp_path: Path) -> None:
    """A rate that destroys the network: no better epoch, and no epoch after a second start."""
    config = tiny(epochs=30, early_stopping=1, learning_rate=1e6, augment=False)
    train([phantoms], tmp_path / "run", config, cache=cache)
    epochs = len(history(tmp_path / "run"))
    assert epochs < 30
    train([phantoms], tmp_path / "run", config, cache=cache)
    assert len(history(tmp_path / "run")) == epochs


def test_weights_start_from_an_earlier_network(
    phantoms: Path, cache: Path, unbroken: Path, tmp_path: Path
) -> None:
    """From a run, with the encoder frozen: only the decoder learns; another size is refused."""
    config = tiny(
        epochs=1,
        init_from=str(unbroken),
        freeze="encoder",
        learning_rate=1e-4,
        dropout=0.3,
        average_momentum=0.999,
        loss="focal",
    )
    table = tmp_path / "pairs.csv"
    rows = [f"{pair.image},{pair.mask},2" for pair in list_pairs(phantoms).pairs]
    table.write_text("\n".join(["image,mask,weight", *rows]))
    source = Source(name="phantoms", path=table, weight=2.0)
    train([source], tmp_path / "run", config, cache=cache)
    fitted = load(tmp_path / "run" / "last.keras", for_fitting=True)
    assert fitted.loss.name == "focal_loss"
    assert int(fitted.optimizer.iterations) == 16 * 2 * 2 // 8  # each slice is drawn four times
    before, after = (
        {weight.path: weight.numpy() for weight in load(folder).weights}
        for folder in (unbroken / "best.keras", tmp_path / "run" / "best.keras")
    )
    encoder = [path for path in before if path.startswith("encoder") and "seed" not in path]
    decoder = [path for path in before if path.startswith("decoder")]
    assert all(np.array_equal(before[path], after[path]) for path in encoder)
    kernels = [path for path in decoder if path.endswith("kernel")]
    # The average of eight steps has hardly left the first of them.
    assert 0 < max(np.abs(before[path] - after[path]).max() for path in kernels) < 2e-4
    with pytest.raises(DataError, match=r"best\.keras: its network has .* parameters"):
        train([phantoms], tmp_path / "wide", tiny(width=3, init_from=str(unbroken)), cache=cache)
    with pytest.raises(DataError, match=r"expected a \.keras file, .* found 0"):
        train([phantoms], tmp_path / "none", tiny(init_from=str(tmp_path / "x")), cache=cache)


def load(path: Path, *, for_fitting: bool = False) -> Any:
    from training.fitting.checkpoints import load_network

    return load_network(path, for_fitting=for_fitting)


def test_a_published_encoder_brings_its_weights_from_a_file(tmp_path: Path) -> None:
    """MobileNetV2 from a weight file of its own: in place, frozen, under our decoder."""
    from training.fitting.transfer import freeze_encoder
    from training.networks.unet import build_unet

    source = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    file = tmp_path / "backbone.weights.h5"
    source.save_weights(file)
    network = build_unet(tiny(encoder="mobilenetv2", encoder_weights=str(file)))
    kept = network.get_layer("encoder").get_layer("Conv1").get_weights()[0]
    np.testing.assert_array_equal(kept, source.get_layer("Conv1").get_weights()[0])
    assert freeze_encoder(network) == 1
    assert not [w.path for w in network.trainable_weights if not w.path.startswith(("dec", "log"))]
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 1)).astype("float32")
    assert network(image).shape == (1, 32, 32, 1)
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(other)
    with pytest.raises(DataError, match=r"other\.weights\.h5: expected weights of mobilenetv2"):
        build_unet(tiny(encoder="mobilenetv2", encoder_weights=str(other)))
    with pytest.raises(DataError, match="no such file of encoder weights"):
        build_unet(tiny(encoder="mobilenetv2", encoder_weights=str(tmp_path / "none.h5")))


def test_the_light_network_learns_and_exports(phantoms: Path, cache: Path, tmp_path: Path) -> None:
    """Its loss falls; ONNX Runtime agrees with Keras; grids that it can't halve are refused."""
    from training.fitting.checkpoints import load_network
    from training.networks.convert import parity, to_onnx

    recipe = tiny(network="light", grid=64, epochs=3, learning_rate=0.01)
    train([phantoms], tmp_path / "light", recipe, cache=cache)
    losses = [float(row["loss"]) for row in history(tmp_path / "light")]
    assert losses[-1] < losses[0]
    network = load_network(tmp_path / "light" / "best.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 1, 64, 64, 1)).astype(np.float32)
    assert parity(network, to_onnx(network, {}), images) < 1e-4
    with pytest.raises(DataError, match="expected a multiple of 64"):
        tiny(network="light", grid=96)
    with pytest.raises(DataError, match="light network has its own"):
        tiny(network="light", grid=64, encoder="mobilenetv2")


@pytest.mark.parametrize(
    ("loss", "schedule", "mixed_precision"),
    [("focal", "step", "bfloat16"), ("dice", "exponential", "none")],
)
def test_choices_of_the_recipe_train(
    phantoms: Path, cache: Path, tmp_path: Path, loss: str, schedule: str, mixed_precision: str
) -> None:
    """Each loss and schedule lowers its loss; the probabilities stay float32."""
    config = tiny(
        epochs=3,
        loss=loss,
        schedule=schedule,
        mixed_precision=mixed_precision,
        learning_rate=0.02,
        warmup_epochs=0.5,
        augment=False,
    )
    train([phantoms], tmp_path / "run", config, cache=cache)
    losses = [float(row["loss"]) for row in history(tmp_path / "run")]
    assert losses[-1] < losses[0]
    network = load(tmp_path / "run" / "last.keras")
    assert network.output.dtype == "float32"
    wanted = "float32" if mixed_precision == "none" else mixed_precision
    assert network.get_layer("logits").compute_dtype == wanted
    assert keras.config.dtype_policy().name == "float32"


def test_cross_validation_runs_every_fold(tmp_path: Path) -> None:
    """One command: a folder and a model a fold, other patients each time, and their mean."""
    phantoms = tmp_path / "few"
    write_phantom_set(phantoms, count=4, patients=4, side=48)
    release = Release(models=tmp_path / "models", name="cv", minimum_dice=1.0)  # not the folds'
    recipe = tiny(epochs=1, folds=2, augment=False)
    result = cross_validate([phantoms], tmp_path / "cv", recipe, release)
    assert len(result["validation_dice"]) == 2
    assert json.loads((tmp_path / "cv" / "folds.json").read_text()) == result
    assert cross_validate([phantoms], tmp_path / "cv", recipe, release) == result  # all is there
    assert sorted((tmp_path / "cv" / "models").glob("fold-*/*/contract.json")) == [
        tmp_path / "cv" / "models" / fold / "1" / "contract.json" for fold in ("fold-1", "fold-2")
    ]
    assert not (tmp_path / "models").exists()
    held_out = []
    for fold in ("fold-1", "fold-2"):
        with (tmp_path / "cv" / fold / "split.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        held_out += [row["patient"] for row in rows if row["remark"] == "validation"]
    assert sorted(set(held_out)) == sorted({f"patient-{n:04d}" for n in range(4)})


def test_the_last_epoch_is_published_when_the_recipe_says_so(
    unbroken: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the one of the best validation Dice, which isn't even read; and not below the floor."""
    run, foreword = tmp_path / "run", tmp_path / "foreword.md"
    shutil.copytree(unbroken, run)
    (run / "best.keras").write_bytes(b"not a network")
    write_config(replace(REPEATED, kept_epoch="last"), run / "config.toml")
    foreword.write_text("Of a test.")
    command = ["export", str(run), "--models", str(tmp_path / "models"), "--name", "kept"]
    assert main(command) == 2
    assert re.search(r"mean Dice of 0\.\d+ is below 0\.8 \(--minimum", capsys.readouterr().err)
    command += ["--minimum-dice", "0", "--foreword", str(foreword), "--external", str(phantoms)]
    assert main(command) == 0
    bundle = tmp_path / "models" / "kept" / "1"
    assert same(weights_of(bundle, "model.keras"), weights_of(unbroken))
    card = (bundle / "CARD.md").read_text()
    assert "Of a test." in card
    assert "| phantoms (external) | 20 |" in card
    assert "by force" not in card


def test_a_weight_draws_slices_more_often() -> None:
    """Systematically: twice is twice, a half is every other one, the number in all is constant."""
    from lungseg.core.preprocess import IntensityRule
    from training.fitting.batches import Batches

    weights = [2.0] * 4 + [0.5] * 8
    for epoch in range(3):
        batches = Batches([Path()] * 12, tiny(), IntensityRule(), epoch=epoch, weights=weights)
        drawn = [number for number, _ in batches.drawn]
        assert [drawn.count(number) for number in range(4)] == [2] * 4
        assert sum(number >= 4 for number in drawn) == 4
        assert len(set(batches.drawn)) == len(drawn)


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0.0, {0: 1.0, 39: 1.0}),
        ("constant", 2.0, {0: 0.0, 2: 0.25, 4: 0.5, 8: 1.0, 39: 1.0}),
        ("cosine", 0.0, {0: 1.0, 20: 0.5, 40: 0.0}),
        ("cosine", 2.0, {0: 0.0, 4: 0.5, 8: 1.0, 24: 0.5, 40: 0.0}),
        ("exponential", 0.0, {0: 1.0, 20: 0.1, 40: 0.01}),
        ("exponential", 1.0, {0: 0.0, 2: 0.5 * 0.01**0.05, 20: 0.1}),
        ("step", 0.0, {0: 1.0, 20: 1.0, 21: 0.1, 30: 0.1, 31: 0.01, 40: 0.01}),
        ("step", 0.5, {0: 0.0, 1: 0.5, 2: 1.0, 21: 0.1}),
    ],
)
def test_rates_follow_their_schedule(schedule: str, warmup: float, rates: dict[int, float]) -> None:
    """Of ten epochs of four steps: at their start, in between and at their end."""
    from training.fitting.schedules import learning_rate

    config = tiny(schedule=schedule, warmup_epochs=warmup, epochs=10, learning_rate=0.02)
    rate = learning_rate(config, 4)
    for step, share in rates.items():
        found = rate(step) if callable(rate) else rate
        assert float(found) == pytest.approx(0.02 * share, abs=1e-7), step


def batches_of(pieces: list[Path], epoch: int | None, **changes: Any) -> Any:
    from training.fitting.batches import Batches

    config = tiny(batch_size=2, noise_hu=0.0, **changes)
    return Batches(pieces, config, config.intensity, epoch=epoch)


@pytest.fixture(scope="module")
def pieces(phantoms: Path, cache: Path) -> list[Path]:
    """Five slices as they are cached."""
    return cache_pieces(list_pairs(phantoms).pairs[:5], 32, cache)


def shown(batches: Any) -> np.ndarray:
    """Grey levels and targets of an epoch, shape (2, N, 32, 32)."""
    made = [batches[index] for index in range(batches.num_batches)]
    return np.stack([np.concatenate(part)[..., 0] for part in zip(*made, strict=True)])


def test_what_validates_is_shown_as_it_is(pieces: list[Path]) -> None:
    """In order, all of it, in the model's window, unvaried; so is training without variation."""
    window = {"window_low_hu": -1200.0, "window_high_hu": 200.0}
    rule = tiny(**window).intensity
    loaded = [load_piece(path) for path in pieces]
    expected = np.stack([
        [to_grey(piece.hu, "HU", rule) for piece in loaded],
        [piece.target for piece in loaded],
    ])  # fmt: skip
    held_out = batches_of(pieces, None, **window)
    assert held_out.num_batches == 3
    assert np.array_equal(shown(held_out), expected)
    held_out.on_epoch_end()
    assert np.array_equal(shown(held_out), expected)
    plain = batches_of(pieces, 0, augment=False, **window)
    order = [number for number, _ in plain.drawn]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert np.array_equal(shown(plain), expected[:, order])


def test_every_epoch_varies_every_slice_anew(pieces: list[Path]) -> None:
    """Order and variation follow from seed, epoch and slice, and from nothing else."""
    first = batches_of(pieces, 0)
    seen = shown(first)
    assert np.array_equal(seen, shown(batches_of(pieces, 0)))
    window = {"window_probability": 0.0, "raw_probability": 0.0}
    for changes in ({"seed": 1}, window):
        assert not np.array_equal(seen, shown(batches_of(pieces, 0, **changes)))
    low, usual = (
        shown(batches_of(pieces, 0, window_low_hu=hu, **window))[0] for hu in (-1600.0, -1000.0)
    )
    assert low.mean() > usual.mean() + 10  # the model's own window is the recipe's
    first.on_epoch_end()
    order, second = [number for number, _ in first.drawn], shown(first)
    resumed = batches_of(pieces, 1)
    assert order == [number for number, _ in resumed.drawn]
    assert np.array_equal(second, shown(resumed))
    orders = {
        tuple(number for number, _ in batches_of(pieces, epoch, seed=seed).drawn)
        for epoch in range(3)
        for seed in range(3)
    }
    assert len(orders) > 6
    same = [pieces[0]] * 6  # one slice six times, in two epochs of two seeds: never the same
    varied = [
        plane.tobytes()
        for epoch in range(2)
        for seed in range(2)
        for plane in shown(batches_of(same, epoch, seed=seed))[0]
    ]
    assert len(set(varied)) == len(varied)


def test_a_slice_that_is_drawn_twice_is_varied_twice(pieces: list[Path]) -> None:
    """Weights draw by chance what they don't draw whole, not always the same slices."""
    from training.fitting.batches import Batches

    config = tiny(batch_size=2)
    weighted = Batches(pieces[:1], config, config.intensity, epoch=0, weights=[4.0])
    assert sorted(weighted.drawn) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert len({plane.tobytes() for plane in shown(weighted)[0]}) == 4
    drawn = [
        frozenset(number for number, _ in batches.drawn)
        for batches in (
            Batches([Path()] * 6, config, config.intensity, epoch=epoch, weights=[0.5] * 6)
            for epoch in range(8)
        )
    ]
    assert {len(numbers) for numbers in drawn} == {3}
    assert frozenset.union(*drawn) == set(range(6))
    assert len(set(drawn)) > 2
    rare = [
        Batches([Path()] * 2, config, config.intensity, epoch=epoch, weights=[0.7, 0.3]).drawn
        for epoch in range(20)
    ]
    assert 0 < rare.count([(1, 0)]) < 12


def test_every_device_gets_some_of_the_last_batch() -> None:
    """All slices, and as many of them twice as make their number one of the devices'."""
    from training.fitting.batches import Batches

    config = tiny()
    batches = Batches([Path()] * 5, config, config.intensity, epoch=0, multiple=3)
    numbers = [number for number, _ in batches.drawn]
    assert len(numbers) == 6
    assert set(numbers) == set(range(5))
