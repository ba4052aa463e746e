"""Publishing: whole bundles that the service accepts, a gate, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from lungseg.core.preprocess import fit
from lungseg.inference.contract import Golden
from lungseg.inference.model import Model
from lungseg.inference.session import Engine, Session
from tests.standin import write_bundle
from training.config import TrainConfig
from training.data.dataset import Pair, list_pairs, read_sample
from training.data.learnt import Learnt, learnt_record
from training.data.material import Material
from training.errors import DataError
from training.evaluation.evaluate import evaluate, predict, summarise
from training.evaluation.metrics import compare_masks
from training.networks.convert import parity, to_onnx
from training.networks.unet import build_unet
from training.release.credits import renew_card
from training.release.publish import Trained, publish
from training.release.quantize import (
    GOLDEN_DIFFERENCE,
    Int8Cost,
    calibration_views,
    int8_cost,
    quantize_int8,
)
from training.release.target import Release, expect_publishable, latest, next_version
from training.synthetic.phantom import make_phantom, write_png
from training.synthetic.views import STANDARD_WINDOWS_HU, through_window

MODELS = Path(__file__).parents[2] / "models"
CONFIG = TrainConfig(
    grid=32,
    width=2,
    depth=2,
    seed=3,
    threshold=0.45,
    largest_components=2,
    grid_covers="body",
    window_low_hu=-1100.0,
    white_percentile=99.0,
)
"""Differs from the defaults in all that a contract takes over."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, ...]:
    """Six phantoms of different patients as PNGs with masks."""
    folder = tmp_path_factory.mktemp("phantoms")
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for seed in range(6):
        phantom = make_phantom((72, 80), seed=seed)
        write_png(phantom, folder / "images" / f"patient-{seed}-0.png")
        mask = phantom.lungs.astype(np.uint8) * 255
        Image.fromarray(mask).save(folder / "masks" / f"patient-{seed}-0.png")
    return list_pairs(folder).pairs


@pytest.fixture(scope="module")
def trained(pairs: tuple[Pair, ...]) -> Trained:
    """A network that has seen the phantoms for a moment."""
    import keras

    keras.utils.set_random_seed(0)
    network = build_unet(CONFIG)
    return Trained(
        network=network,
        config=CONFIG,
        material=Material(
            training=pairs[:4],
            validation=pairs[4:],
            dropped=((pairs[0], "outside_body: for the card"),),
            unmatched=(),
        ),
        provenance={"data_sha256": "0" * 64, "versions": {"keras": keras.__version__}},
        external=pairs[:2],
    )


def _biased(trained: Trained, bias: float) -> Trained:
    """The same network with another bias of its logits: another share of lung."""
    import keras

    network = keras.models.clone_model(trained.network)
    network.set_weights(trained.network.get_weights())
    logits = network.get_layer("logits")
    logits.bias.assign(np.full(logits.bias.shape, bias, np.float32))
    return replace(trained, network=network)


@pytest.fixture(scope="module")
def published(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as version 1 of a new model, with a foreword."""
    models = tmp_path_factory.mktemp("published")
    foreword = models.with_suffix(".md")
    foreword.write_text("Worse than the one before where nobody looks.")
    folder = publish(trained, Release(models=models, name="tiny", foreword=foreword))
    assert folder == models / "tiny" / "1"
    return folder


def test_a_bundle_is_whole_and_the_service_loads_it(trained: Trained, published: Path) -> None:
    """Every promised file is there, named as Triton expects, with metadata in the graph."""
    folder, models = published, published.parents[1]
    model = Model.load(folder, Engine())
    assert (model.contract.name, model.contract.version) == ("tiny", "1")
    graph = onnx.load(folder / "model.onnx")
    assert [node.name for node in graph.graph.input] == ["image"]
    assert [node.name for node in graph.graph.output] == ["mask"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [item.version for item in graph.opset_import if not item.domain] == [18]
    facts = {item.key: item.value for item in graph.metadata_props}
    assert json.loads(facts.pop("config")) == asdict(CONFIG)
    assert facts == {"model": "tiny", "version": "1", "license": "research use only"}
    assert model.session.run(np.zeros((3, 32, 32, 1), np.float32)).shape == (3, 32, 32, 1)
    contract = model.contract
    assert (contract.opset, contract.grid, contract.intensity) == (18, "body", CONFIG.intensity)
    assert (contract.mask.threshold, contract.mask.largest_components) == (0.45, 2)
    assert contract.golden == Golden()
    for prefix, measured in (
        ("validation", trained.material.validation),
        ("external", trained.external),
    ):
        dice = [item.metrics.dice for item in evaluate(model, measured)]
        assert contract.metrics[f"{prefix}.dice"] == pytest.approx(np.mean(dice), abs=6e-5)
        assert contract.metrics[f"{prefix}.dice_min"] == pytest.approx(min(dice), abs=6e-5)
    triton = (models / "tiny" / "config.pbtxt").read_text()
    for line in ('name: "tiny"', "max_batch_size: 16", "dims: [32, 32, 1]", "dynamic_batching"):
        assert line in triton
    held_out = json.loads((folder / "provenance.json").read_text())["validation"]
    assert held_out == sorted(f"{pair.source}/{pair.name}" for pair in trained.material.validation)
    assert not list(models.glob(".staging*"))


def test_the_card_says_what_was_measured(trained: Trained, published: Path) -> None:
    """Figures of the card are those of an evaluation of the published file."""
    folder = published
    card = (folder / "CARD.md").read_text()
    assert card.split("\n\n")[2] == "Worse than the one before where nobody looks."
    again = summarise(
        "v", list(evaluate(Model.load(folder, Engine()), trained.material.validation))
    )
    assert f"| validation | 2 | {again.means['dice']:.4f}" in card
    model = Model.load(folder, Engine())
    for low, high in STANDARD_WINDOWS_HU:
        shown = evaluate(model, trained.material.validation, vary=through_window(low, high))
        dice = np.mean([item.metrics.dice for item in shown])
        assert f"| validation, 8 bit, window [{low:g}, {high:g}] | 2 | {dice:.4f}" in card
    dice = np.mean([item.metrics.dice for item in evaluate(model, trained.external)])
    assert f"(external) | 2 | {dice:.4f}" in card
    content = (folder / "model.onnx").read_bytes()
    seen = [
        fit(read_sample(pair).scan, (32, 32), CONFIG.intensity, covers="body").grey
        for pair in trained.material.validation
    ]
    difference = parity(trained.network, content, seen)
    assert difference > 0
    assert f"Keras and ONNX Runtime on validation slices: {difference:.1e}" in card
    size = f"{len(content) / 1e6:.1f} MB, {trained.network.count_params():,} parameters, opset 18"
    assert f"{size}, SHA-256 `{hashlib.sha256(content).hexdigest()}`" in card
    assert f"SHA-256 of all used files: `{'0' * 64}`" in card
    assert "4 slices to learn from, 2 of other patients held out for validation" in card
    assert "seed 3." in card
    assert "not a medical device" in card
    assert "outside_body: for the card" in card
    recipe = card.split("```toml\n")[1].split("```")[0]
    assert TrainConfig(**tomllib.loads(recipe)) == CONFIG
    assert "epochs" not in recipe  # as by default
    # Also what the record alone tells, as `python -m training card` writes it.
    name = trained.external[0].source
    assert f"| `{name}` | not described | for measuring only | unknown: not stated by" in card
    assert "The commit that it was trained on is not known." in card
    renew_card(folder)
    assert (folder / "CARD.md").read_text() == card


def test_networks_that_onnx_computes_otherwise_are_not_published(
    trained: Trained, tmp_path: Path
) -> None:
    """Here one whose Python a graph does not hold; 1e-4 of probability is the limit."""
    import keras
    import tensorflow as tf

    class Eager(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs * (0.9 if tf.executing_eagerly() else 1.0)

    image = keras.Input((32, 32, 1), name="image")
    network = keras.Model(image, Eager(name="mask")(trained.network(image)))
    with pytest.raises(DataError, match=r"Keras and ONNX Runtime differ by 0\.\d+, expected at mo"):
        publish(replace(trained, network=network), Release(models=tmp_path, name="tiny"))
    assert list(tmp_path.iterdir()) == []
    grey = np.full((1, 32, 32, 1), 128, np.float32)
    bias = float(trained.network.get_layer("logits").bias[0])
    content = to_onnx(_biased(trained, bias).network, {})
    near, far = (_biased(trained, bias + change).network for change in (2e-4, 1e-3))
    assert 1e-5 < parity(near, content, [grey, grey * 0]) < 1e-4
    with pytest.raises(DataError, match="not published"):
        parity(far, content, [grey, grey])
    with pytest.raises(DataError, match="differ by nan"):
        parity(_biased(trained, float("nan")).network, content, [grey])


def test_what_the_service_refuses_is_not_published(trained: Trained, tmp_path: Path) -> None:
    """The whole bundle is loaded once more: here with a card that is larger than any may be."""
    foreword = tmp_path / "foreword.md"
    with foreword.open("wb") as stream:
        stream.truncate(64 * 1024 * 1024)
    models = tmp_path / "models"
    with pytest.raises(DataError, match=r"the service refuses the exported model: CARD\.md is"):
        publish(trained, Release(models=models, name="tiny", foreword=foreword))
    assert list(models.iterdir()) == []


def test_a_worse_version_is_refused_unless_forced(
    trained: Trained, pairs: tuple[Pair, ...], tmp_path: Path
) -> None:
    """All background scores Dice 0 and may not replace all foreground; ``test_gate`` has the rest.

    The newest version is what the next one is compared with, on what neither has learnt from.
    """
    all_lung, no_lung = _biased(trained, 30.0), _biased(trained, -30.0)
    release = Release(models=tmp_path, name="tiny")
    publish(all_lung, release)
    with pytest.raises(DataError, match="version 1 is better"):
        publish(no_lung, release)
    assert not (tmp_path / "tiny" / "2").exists()
    folder = publish(no_lung, replace(release, force=True))
    assert folder.name == "2"
    card = (folder / "CARD.md").read_text()
    assert "**Published by force although version 1 is better" in card
    assert "B must not replace A on 2 slices of 2 patients" in card
    began = learnt_record(pairs[4:5], (), None)  # what the candidate knows from its start
    again = replace(
        no_lung,
        material=replace(trained.material, training=pairs[:1], validation=pairs[2:]),
        seen=Learnt(**{name: frozenset(digests) for name, digests in began.items()}),
    )
    folder = publish(again, release)
    assert folder.name == "3"
    card = (folder / "CARD.md").read_text()
    assert "B may replace A on 1 slices of 1 patients" in card
    assert "3 validation slices that one of both has learnt from are left out" in card
    assert "| validation | 4 |" in card
    assert "| as stored | 1 |" in card
    assert "Published by force" not in card
    record = json.loads((folder / "provenance.json").read_text())["learnt"]
    assert set(began["slices"]) < set(record["slices"])


@pytest.fixture(scope="module")
def quantised(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 version whose masks are the float model's: all lung."""
    models = tmp_path_factory.mktemp("int8")
    return publish(_biased(trained, 30.0), Release(models=models, name="tiny8", int8=True))


def test_int8_agrees_or_is_refused(quantised: Path) -> None:
    """The quantised sibling has int8 weights and its loss stands in the card."""
    folder = quantised
    graph = onnx.load(folder / "model.onnx")
    assert "QuantizeLinear" in {node.op_type for node in graph.graph.node}
    card = (folder / "CARD.md").read_text()
    assert "Quantised to int8" in card
    assert "masks with the float model's: 1.0000 on average" in card
    assert not (folder / "model.keras").exists()  # the float model's, and with that model
    Model.load(folder, Engine())


def test_another_processors_rounding_is_no_reason_to_refuse_int8(
    quantised: Path, tmp_path: Path
) -> None:
    """A last bit in the float input layer moves some activations by a whole step of int8.

    The shipped model, its input changed by no more than that, strays from its golden output by
    far more than a float model may.
    """
    shipped = MODELS / "lung-unet-int8" / "1"
    with np.load(shipped / "golden.npz") as golden:
        image, mask = golden["image"], golden["mask"]
    session = Session((shipped / "model.onnx").read_bytes(), Engine())
    strayed = float(np.abs(session.run(image * np.float32(1 + 1e-5)) - mask).max())
    print(f"shipped int8 model: {strayed:.3f} of probability")
    assert Golden().max_abs_difference < strayed <= GOLDEN_DIFFERENCE
    folder = Path(shutil.copytree(quantised, tmp_path / "tiny8" / "1"))
    contract = json.loads((folder / "contract.json").read_text())
    assert contract["golden"]["max_abs_difference"] == GOLDEN_DIFFERENCE
    with np.load(folder / "golden.npz") as golden:
        image, mask = golden["image"], golden["mask"]
    np.savez_compressed(folder / "golden.npz", image=image, mask=mask + 0.04)
    Model.load(folder, Engine())


@pytest.mark.parametrize(
    ("loss", "agreement", "said"),
    [(0.0021, 0.999, "costs 0.0021 Dice"), (0.0, 0.9949, "to 0.9949 Dice")],
)
def test_a_quantised_model_that_is_another_one_is_refused(
    loss: float, agreement: float, said: str
) -> None:
    Int8Cost(dice_loss=0.002, agreement=0.995, least_agreement=0.5).expect_small()
    with pytest.raises(DataError, match=said):
        Int8Cost(dice_loss=loss, agreement=agreement, least_agreement=0.5).expect_small()


def test_int8_means_the_same_on_every_processor(trained: Trained) -> None:
    """Weights keep to seven bits: two products of eight overflow where a processor adds in 16."""
    image = np.zeros((1, 32, 32, 1), np.float32)
    content = quantize_int8(to_onnx(trained.network, {}), [image, image + 255])
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(content).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert weights
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) <= 64


def test_a_network_that_quantisation_changes_is_not_published(
    trained: Trained, tmp_path: Path
) -> None:
    """One whose probabilities all lie about the threshold: its masks follow the last bit."""
    grey = next(calibration_views(trained.material.validation[:1], CONFIG))
    probability = np.asarray(trained.network(grey))
    middle = float(np.median(np.log(probability / (1 - probability))))
    with pytest.raises(DataError, match=r"not published: quanti"):
        publish(_biased(trained, -middle), Release(models=tmp_path, name="tiny8", int8=True))
    assert not (tmp_path / "tiny8").exists()


def test_int8_is_calibrated_on_training_slices_alone(trained: Trained, tmp_path: Path) -> None:
    """One of them that can't be read stops it; those that validate are only measured."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    pair = replace(trained.material.training[0], image=bad)
    material = replace(trained.material, training=(pair,))
    with pytest.raises(DataError, match=r"bad\.png"):
        publish(
            replace(_biased(trained, 30.0), material=material),
            Release(models=tmp_path / "models", name="tiny8", int8=True),
        )
    published = publish(
        replace(_biased(trained, 30.0), material=material), Release(models=tmp_path, name="tiny")
    )
    assert published.name == "1"


@pytest.mark.parametrize("network", ["classic", "light"])
def test_int8_has_as_many_probabilities_as_a_caller_may_want(network: str) -> None:
    """Logits and sigmoid are computed in float: a threshold does not move in steps."""
    import keras

    keras.utils.set_random_seed(0)
    config = TrainConfig(network=network, grid=64, width=8, depth=2)
    random = np.random.default_rng(0)
    images = [random.uniform(0, 255, (1, 64, 64, 1)).astype(np.float32) for _ in range(3)]
    content = quantize_int8(to_onnx(build_unet(config), {}), images)
    assert len(np.unique(Session(content, Engine()).run(images[0]))) > 512  # twice a byte's
    graph = onnx.load_from_string(content).graph
    makers = {name: node for node in graph.node for name in node.output}
    node, passed = makers["mask"], []
    while node.op_type not in ("Conv", "ConvTranspose"):
        passed.append(node.op_type)
        node = makers[node.input[0]]
    assert "Sigmoid" in passed
    assert "QuantizeLinear" not in passed
    quantised = [
        any(makers[name].op_type == "DequantizeLinear" for name in one.input if name in makers)
        for one in graph.node
        if one.op_type in ("Conv", "ConvTranspose") and one.name != node.name
    ]
    assert quantised
    assert all(quantised)
    assert not any(name in makers for name in node.input[1:])  # the last one's weights are float
    readers = [one.op_type for one in graph.node if "image" in one.input]
    assert readers
    assert "QuantizeLinear" not in readers  # grey levels of 0…255 are scaled in float first
    steps = [item for item in graph.initializer if item.name.endswith("_scale") and item.dims]
    assert any(item.dims[0] > 1 for item in steps)  # each channel has its own


def test_int8_is_calibrated_on_every_view_of_training_slices(pairs: tuple[Pair, ...]) -> None:
    """As stored, as HU and through three windows; they differ, and there are no more."""
    views = list(calibration_views(pairs[:2], CONFIG))
    assert len(views) == 2 * 5
    assert len({view.tobytes() for view in views}) == len(views)
    first = read_sample(pairs[0]).scan
    assert np.array_equal(views[0], fit(first, (32, 32), CONFIG.intensity, covers="body").grey)
    many = list(calibration_views(pairs[:1] * 200, CONFIG))
    assert 5 * 64 <= len(many) <= 5 * 128


def test_a_full_disk_leaves_nothing_half_written(trained: Trained, tmp_path: Path) -> None:
    """Files can't grow beyond 4 kB: the export fails with its remedy and cleans up."""
    trained.network.save(tmp_path / "net.keras")
    script = (
        "import resource, sys, keras, pathlib\n"
        "import test_publish as t\n"
        "import tensorflow, tf2onnx, onnx\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "pairs = t.list_pairs(pathlib.Path(sys.argv[2])).pairs\n"
        "net = keras.saving.load_model(folder / 'net.keras', compile=False)\n"
        "material = t.Material(\n"
        "    training=pairs[:4], validation=pairs[4:], dropped=(), unmatched=())\n"
        "run = t.Trained(network=net, config=t.CONFIG, material=material, provenance={})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    t.publish(run, t.Release(models=folder / 'models', name='tiny'))\n"
        "except t.DataError as error:\n"
        "    print(error)\n"
    )
    data = trained.material.training[0].image.parents[1]
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    outcome = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path), str(data)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{here}:{root}:{root / 'service'}", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert "could not be written" in outcome.stdout, outcome.stderr[-2000:]
    assert list((tmp_path / "models").iterdir()) == []


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Model]:
    """Small graphs that call lung what is darker than a grey level, by that level."""
    folder = tmp_path_factory.mktemp("standins")
    return {
        cut: Model.load(write_bundle(folder, name=f"at{cut:g}", cut=cut, size=(64, 64)), Engine())
        for cut in (100.0, 100.5, 120.0)
    }


def test_the_cost_of_int8_is_measured_on_known_pixels(
    pairs: tuple[Pair, ...], standins: dict[float, Model], tmp_path: Path
) -> None:
    """What it loses against the truth, and how far its masks agree with the float model's."""
    ignoring = []
    for number, pair in enumerate(pairs[:3]):
        mask = np.array(Image.open(pair.mask))
        mask[: 12 * number] = 128
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        ignoring.append(replace(pair, mask=tmp_path / f"{number}.png"))
    as_float, as_int8 = standins[100.0], standins[100.5]
    results = list(evaluate(as_int8, ignoring))
    before = [item.metrics.dice for item in evaluate(as_float, ignoring)]
    agreement = []
    for pair in ignoring:
        sample = read_sample(pair)
        one, other = (predict(model, sample.scan).mask[0] for model in (as_float, as_int8))
        agreement.append(compare_masks(other, one, ignored=sample.ignored).dice)
    cost = int8_cost(as_float, as_int8, results)
    assert cost is not None
    loss = np.mean(before) - np.mean([item.metrics.dice for item in results])
    assert cost.dice_loss == pytest.approx(loss)
    assert cost.dice_loss != 0
    assert cost.agreement == pytest.approx(np.mean(agreement))
    assert cost.least_agreement == pytest.approx(min(agreement)) != max(agreement)
    with pytest.raises(DataError, match="quantised masks agree with the float model's to 0"):
        int8_cost(as_float, standins[120.0], list(evaluate(standins[120.0], ignoring)))
    lost = [replace(r, metrics=replace(r.metrics, dice=r.metrics.dice - 0.01)) for r in results]
    with pytest.raises(DataError, match="quantisation costs 0"):
        int8_cost(as_float, as_int8, lost)
    assert int8_cost(None, as_int8, results) is None


def test_a_release_is_checked_before_the_training(tmp_path: Path) -> None:
    """A floor that no Dice reaches, a missing foreword; versions are numbers, and go up."""
    release = Release(models=tmp_path, name="tiny", minimum_dice=1.0)
    assert expect_publishable(release, CONFIG) == ()
    for floor in (-0.1, 1.01):
        with pytest.raises(DataError, match="minimum-dice: expected 0 to 1"):
            expect_publishable(replace(release, minimum_dice=floor), CONFIG)
    with pytest.raises(DataError, match="expected a Markdown file to begin the card with"):
        expect_publishable(replace(release, foreword=tmp_path / "none.md"), CONFIG)
    assert (next_version(tmp_path), latest(tmp_path)) == ("1", None)
    for name in ("2", "10", "3-old", "x"):
        (tmp_path / name).mkdir()
    assert (next_version(tmp_path), latest(tmp_path)) == ("11", tmp_path / "10")
