"""Publishing: whole bundles that the service accepts, a gate, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from lungseg.inference.contract import Golden
from lungseg.inference.model import Model
from lungseg.inference.session import Engine, Session
from training.config import TrainConfig
from training.data.dataset import Pair, list_pairs
from training.data.learnt import Learnt, learnt_record
from training.data.material import Material
from training.errors import DataError
from training.evaluation.evaluate import evaluate, summarise
from training.networks.convert import to_onnx
from training.networks.unet import build_unet
from training.release.publish import Trained, publish
from training.release.quantize import (
    GOLDEN_DIFFERENCE,
    Int8Cost,
    calibration_views,
    quantize_int8,
)
from training.release.target import Release
from training.synthetic.phantom import make_phantom, write_png

MODELS = Path(__file__).parents[2] / "models"
CONFIG = TrainConfig(grid=32, width=2, depth=2)


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


def test_a_bundle_is_whole_and_the_service_loads_it(trained: Trained, tmp_path: Path) -> None:
    """Every promised file is there, named as Triton expects, with metadata in the graph."""
    folder = publish(trained, Release(models=tmp_path, name="tiny"))
    assert folder == tmp_path / "tiny" / "1"
    model = Model.load(folder, Engine())
    assert (model.contract.name, model.contract.version) == ("tiny", "1")
    graph = onnx.load(folder / "model.onnx")
    assert [node.name for node in graph.graph.input] == ["image"]
    assert [node.name for node in graph.graph.output] == ["mask"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {item.key for item in graph.metadata_props} >= {"model", "version", "config"}
    assert 'name: "tiny"' in (tmp_path / "tiny" / "config.pbtxt").read_text()
    held_out = json.loads((folder / "provenance.json").read_text())["validation"]
    assert held_out == sorted(f"{pair.source}/{pair.name}" for pair in trained.material.validation)
    assert not list(tmp_path.glob(".staging*"))


def test_the_card_says_what_was_measured(trained: Trained, tmp_path: Path) -> None:
    """Figures of the card are those of an evaluation of the published file."""
    foreword = tmp_path / "foreword.md"
    foreword.write_text("Worse than the one before where nobody looks.")
    folder = publish(trained, Release(models=tmp_path, name="tiny", foreword=foreword))
    card = (folder / "CARD.md").read_text()
    assert card.split("\n\n")[2] == "Worse than the one before where nobody looks."
    again = summarise(
        "v", list(evaluate(Model.load(folder, Engine()), trained.material.validation))
    )
    assert f"| validation | 2 | {again.means['dice']:.4f}" in card
    assert "not a medical device" in card
    assert "outside_body: for the card" in card
    assert "grid = 32" in card


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


def test_a_new_name_needs_a_floor(trained: Trained, tmp_path: Path) -> None:
    """There is no version to be worse than; the card says what force overruled."""
    with pytest.raises(DataError, match=r"the mean Dice of 0\.\d+ is below 0\.9 \(--minimum-dice"):
        publish(trained, Release(models=tmp_path, name="tiny", minimum_dice=0.9))
    assert not (tmp_path / "tiny").exists()
    folder = publish(trained, Release(models=tmp_path, name="tiny", minimum_dice=0.9, force=True))
    assert "Published by force although the mean Dice" in (folder / "CARD.md").read_text()


def test_int8_agrees_or_is_refused(trained: Trained, tmp_path: Path) -> None:
    """The quantised sibling has int8 weights and its loss stands in the card."""
    folder = publish(_biased(trained, 30.0), Release(models=tmp_path, name="tiny8", int8=True))
    graph = onnx.load(folder / "model.onnx")
    assert "QuantizeLinear" in {node.op_type for node in graph.graph.node}
    card = (folder / "CARD.md").read_text()
    assert "Quantised to int8" in card
    assert "masks with the float model's: 1.0000 on average" in card
    assert not (folder / "model.keras").exists()  # the float model's, and with that model
    Model.load(folder, Engine())


def test_another_processors_rounding_is_no_reason_to_refuse_int8(
    trained: Trained, tmp_path: Path
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
    folder = publish(_biased(trained, 30.0), Release(models=tmp_path, name="tiny8", int8=True))
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


def test_int8_is_calibrated_on_every_view_of_training_slices(pairs: tuple[Pair, ...]) -> None:
    """As stored, as HU and through three windows; they differ, and there are no more."""
    views = list(calibration_views(pairs[:2], CONFIG))
    assert len(views) == 2 * 5
    assert len({view.tobytes() for view in views}) == len(views)
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
