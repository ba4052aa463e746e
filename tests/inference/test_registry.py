"""Versions come, are refused, swap and go; what serves is never disturbed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lungseg.inference.errors import BundleError, ModelNotReady, UnknownModel
from lungseg.inference.model import Model, read_contract
from lungseg.inference.registry import Policy, Registry, Version
from lungseg.inference.session import Engine, ProviderMissing
from tests.standin import GRID, make_graph, write_bundle


def registry(root: Path, **policy: object) -> Registry:
    engine = Engine()
    made = Registry(
        root=root,
        policy=Policy(model="standin", **policy),
        open_bundle=lambda folder: Model.load(folder, engine),
    )
    made.refresh()
    return made


def version(made: Registry, number: int) -> Version:
    return made.families()["standin"].versions[number]


def flip_a_bit(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)


def truncate(bundle: Path) -> None:
    content = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(content[: len(content) // 2])


def wrong_golden(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        image, mask = golden["image"], golden["mask"]
    np.savez(bundle / "golden.npz", image=image, mask=mask + 0.01)


def golden_of_nan(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        image, mask = golden["image"], golden["mask"]
    np.savez(bundle / "golden.npz", image=image, mask=mask * np.nan)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts something else where a file was."""

    def damage(bundle: Path) -> None:
        (bundle / name).unlink()
        make(bundle / name)

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit flipped": (flip_a_bit, "SHA-256"),
    "truncated": (truncate, "SHA-256"),
    "no graph yet": (lambda b: (b / "model.onnx").unlink(), "model.onnx is missing"),
    "no contract yet": (lambda b: (b / "contract.json").unlink(), "contract.json is missing"),
    "no golden yet": (lambda b: (b / "golden.npz").unlink(), "golden.npz is missing"),
    "golden differs": (wrong_golden, "golden output"),
    "golden is NaN": (golden_of_nan, "golden output"),
    "golden damaged": (lambda b: (b / "golden.npz").write_bytes(b"PK"), "golden.npz is damaged"),
    "a pipe for the contract": (replaced("contract.json", os.mkfifo), "no plain file"),
    "a device for the graph": (
        replaced("model.onnx", lambda at: at.symlink_to("/dev/zero")),
        "no plain file",
    ),
    "a graph of any size": (
        lambda b: os.truncate(b / "model.onnx", 2 * 1024**3 + 1),
        "model.onnx is larger",
    ),
    **{
        f"a {name} of any size": (
            lambda b, name=name: os.truncate(b / name, 64 * 1024**2 + 1),
            f"{name} is larger",
        )
        for name in ("contract.json", "golden.npz", "CARD.md")
    },
    "a folder for the card": (replaced("CARD.md", os.mkdir), "no plain file"),
    "contract damaged": (lambda b: (b / "contract.json").write_text("{"), "invalid at root"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_bundles_are_refused_and_the_old_version_serves(tmp_path: Path, name: str) -> None:
    damage, reason = DAMAGES[name]
    write_bundle(tmp_path, version="1")
    made = registry(tmp_path)
    serving = made.get()
    bundle = write_bundle(tmp_path, version="2", cut=90)
    damage(bundle)
    made.refresh()
    assert made.get() is serving
    assert reason in version(made, 2).reason
    assert version(made, 2).state == "UNAVAILABLE"
    with pytest.raises(ModelNotReady, match=reason):
        made.get("standin", "2")
    shutil.rmtree(bundle)
    write_bundle(tmp_path, version="2", cut=90)
    made.refresh()
    assert made.get().contract.version == "2"


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    """64 MiB, which no card has."""
    bundle = write_bundle(tmp_path)
    os.truncate(bundle / "CARD.md", 64 * 1024**2)
    assert len(Model.load(bundle, Engine()).card) == 64 * 1024**2


def test_what_a_contract_leaves_out(tmp_path: Path) -> None:
    """Bundles rely on these numbers, so they may never change."""
    contract = read_contract(write_bundle(tmp_path))
    assert contract.model_dump(
        include={"schema_version", "grid", "intensity", "mask", "golden"}
    ) == {
        "schema_version": 1,
        "grid": "whole",
        "intensity": {
            "window_hu": (-1000.0, 400.0),
            "grey_percentiles": (0.5, 99.5),
            "skip_padding": False,
        },
        "mask": {"threshold": 0.5, "largest_components": 0},
        "golden": {"max_abs_difference": 0.001},
    }


@pytest.mark.parametrize(
    ("place", "accepted", "refused"),
    [
        ("mask.threshold", [0.001, 0.999], [0, 1]),
        ("mask.largest_components", [0, 2], [-1]),
        ("golden.max_abs_difference", [1e-9, 0.1], [0, 0.101]),
        ("input.height", [1, 4096], [0, 4097]),
        ("output.width", [1, 4096], [0, 4097]),
        ("input.name", ["x"], [""]),
        ("sha256", ["0" * 64, "f" * 64], ["0" * 63, "0" * 65, "g" * 64, "F" * 64]),
        ("schema_version", [1], [0, 2]),
        ("grid", ["whole", "body"], ["lung"]),
        ("intensity.window_hu", [[-1, 0]], [[0, 0], [1, 0]]),
        ("intensity.gamma", [], [1]),
        ("golden.gamma", [], [1]),
        ("gamma", [], [1]),
    ],
)
def test_what_a_contract_may_say(tmp_path: Path, place: str, accepted: list, refused: list) -> None:
    """Each member up to its ends and not beyond; a refusal names the member."""
    bundle = write_bundle(tmp_path)
    path, (*outer, name) = bundle / "contract.json", place.split(".")
    whole = json.loads(path.read_text())
    inner = functools.reduce(lambda part, key: part.setdefault(key, {}), outer, whole)
    for value in accepted:
        inner[name] = value
        path.write_text(json.dumps(whole))
        assert read_contract(bundle)
    named = "intensity" if place == "intensity.window_hu" else place
    for value in refused:
        inner[name] = value
        path.write_text(json.dumps(whole))
        with pytest.raises(BundleError, match=f"invalid at {named}"):
            read_contract(bundle)


@pytest.mark.parametrize("name", ["0", "01", "1a", "1234567890", "-1"])
def test_versions_are_numbers_of_up_to_nine_digits(tmp_path: Path, name: str) -> None:
    """In contracts, folders and requests."""
    bundle = write_bundle(tmp_path, version=name)
    with pytest.raises(BundleError, match="version"):
        read_contract(bundle)
    assert registry(tmp_path).families() == {}
    shutil.rmtree(bundle)
    write_bundle(tmp_path, version="123456789")
    made = registry(tmp_path)
    assert made.get("standin", "123456789").contract.version == "123456789"
    for ask in (made.get, made.load):
        with pytest.raises(UnknownModel):
            ask("standin", name)


def test_damage_in_place_keeps_the_loaded_model(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    made = registry(tmp_path)
    serving = made.get()
    flip_a_bit(bundle)
    made.refresh()
    assert made.get() is serving
    assert "newer content" in version(made, 1).reason
    write_bundle(tmp_path)
    made.refresh()
    assert made.get() is not serving
    assert version(made, 1).reason == ""


def test_wrong_names_and_shapes_are_refused(tmp_path: Path) -> None:
    contracts: dict[str, dict[str, object]] = {
        "named picture": {"input": {"name": "picture", "height": 256, "width": 256}},
        r"shape \(N, 128": {"input": {"name": "image", "height": 128, "width": 128}},
        "output of shape": {"output": {"name": "mask", "height": 128, "width": 128}},
        "invalid at sha256": {"sha256": "x"},
        "invalid at surprise": {"surprise": 1},
    }
    for reason, changes in contracts.items():
        with pytest.raises(BundleError, match=reason):
            Model.load(write_bundle(tmp_path, **changes), Engine())
    moved = write_bundle(tmp_path).rename(tmp_path / "standin" / "5")
    with pytest.raises(BundleError, match="another model or version"):
        Model.load(moved, Engine())
    write_bundle(tmp_path).parent.rename(tmp_path / "other")
    with pytest.raises(BundleError, match="says standin/1, and the folder is other/1"):
        Model.load(tmp_path / "other" / "1", Engine())
    np.savez(write_bundle(tmp_path) / "golden.npz", image=np.zeros((1, 8, 8, 1)), mask=np.zeros(1))
    with pytest.raises(BundleError, match="other shapes"):
        Model.load(tmp_path / "standin" / "1", Engine())


def test_graphs_with_a_fixed_batch_or_two_outputs_are_refused(tmp_path: Path) -> None:
    def graph(batch: object, outputs: int) -> bytes:
        names = [f"mask{i}" if i else "mask" for i in range(outputs)]
        nodes = [helper.make_node("Sigmoid", ["image"], [name]) for name in names]
        shape = [batch, *GRID, 1]
        made = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        )
        opset = [helper.make_opsetid("", 18)]
        return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()

    for content, reason in ((graph(1, 1), "free batch axis"), (graph("n", 2), "one output")):
        bundle = write_bundle(tmp_path, graph=content)
        with pytest.raises(BundleError, match=reason):
            Model.load(bundle, Engine())


@pytest.mark.parametrize("place", ["initializer", "node", "subgraph"])
@pytest.mark.parametrize("location", ["values", "../{folder}/values", "{path}/values", "/dev/zero"])
def test_external_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, location: str
) -> None:
    """A path in a model file could name any file of the machine, even one that fits."""
    monkeypatch.chdir(tmp_path)
    Path("values").write_bytes(np.float32(70).tobytes())
    model = onnx.load_from_string(make_graph())
    cut = next(tensor for tensor in model.graph.initializer if tensor.name == "cut")
    cut.ClearField("raw_data")
    cut.data_location = TensorProto.EXTERNAL
    where = location.format(folder=tmp_path.name, path=tmp_path)
    for key, value in (("location", where), ("offset", "0"), ("length", "4")):
        entry = cut.external_data.add()
        entry.key, entry.value = key, value
    if place != "initializer":
        constant = helper.make_node("Constant", [], ["cut"], value=cut)
        model.graph.initializer.remove(cut)
        if place == "subgraph":
            output = helper.make_tensor_value_info("cut", TensorProto.FLOAT, [])
            branch = helper.make_graph([constant], "branch", [], [output])
            always = onnx.numpy_helper.from_array(np.array(True), "always")
            model.graph.initializer.append(always)
            constant = helper.make_node(
                "If", ["always"], ["cut"], then_branch=branch, else_branch=branch
            )
        model.graph.node.insert(0, constant)
    bundle = write_bundle(tmp_path, graph=model.SerializeToString())
    with pytest.raises(BundleError, match="other files"):
        Model.load(bundle, Engine())


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 40, os.urandom(200), b"\x08\x08:\xff\xff\xff\xff\x0f"):
        bundle = write_bundle(tmp_path, graph=content)
        with pytest.raises(BundleError):
            Model.load(bundle, Engine())


def test_the_newest_serves_unless_one_is_pinned(tmp_path: Path) -> None:
    for number in ("1", "2", "10"):
        write_bundle(tmp_path, version=number)
    newest = registry(tmp_path)
    assert newest.get().contract.version == "10"
    assert newest.get("standin", "2").contract.version == "2"
    assert version(newest, 1).model is None  # only the two newest are loaded
    pinned = registry(tmp_path, pin=1)
    assert pinned.get().contract.version == "1"
    missing = registry(tmp_path, pin=7)
    with pytest.raises(ModelNotReady):
        missing.get()


def test_the_newest_two_are_loaded_by_their_numbers(tmp_path: Path) -> None:
    """10 comes after 9, however their names are sorted; the rest can be asked for."""
    for number in ("8", "9", "10", "100"):
        write_bundle(tmp_path, version=number)
    made = registry(tmp_path)
    loaded = [number for number in (8, 9, 10, 100) if version(made, number).model]
    assert loaded == [10, 100]
    assert version(made, 9).reason == "not among the 2 newest; can be loaded by version"
    pinned = registry(tmp_path, pin=8)
    assert [number for number in (8, 9, 10, 100) if version(pinned, number).model] == [8, 10, 100]
    one = registry(tmp_path, keep=1)
    assert [number for number in (8, 9, 10, 100) if version(one, number).model] == [100]


def test_a_refused_version_takes_no_place_among_the_newest(tmp_path: Path) -> None:
    """Two that can be loaded are; what was unloaded stays so until it is asked for."""
    for number in ("1", "2", "3", "4"):
        write_bundle(tmp_path, version=number)
    (tmp_path / "standin" / "4" / "CARD.md").unlink()
    made = registry(tmp_path)
    assert [number for number in (1, 2, 3, 4) if version(made, number).model] == [2, 3]
    made.unload("standin")
    made.refresh()
    with pytest.raises(ModelNotReady, match="unloaded by request"):
        made.get()
    assert made.load("standin").contract.version == "3"


def test_why_no_version_serves_is_told_of_the_newest_three(tmp_path: Path) -> None:
    """The newest first; of a pinned one alone, or what there is in its place."""
    for number in ("8", "9", "10", "11"):
        (write_bundle(tmp_path, version=number) / "CARD.md").unlink()
    with pytest.raises(ModelNotReady) as refused:
        registry(tmp_path, keep=4).get()
    told = "; ".join(f"version {number}: CARD.md is missing" for number in (11, 10, 9))
    assert str(refused.value) == f"the model is not ready: {told}"
    with pytest.raises(ModelNotReady, match=r"ready: version 8: CARD\.md is missing$"):
        registry(tmp_path, keep=4, pin=8).get()
    with pytest.raises(ModelNotReady, match=r"version 7 is to serve .*; there is 11, 10, 9$"):
        registry(tmp_path, keep=4, pin=7).get()


def test_a_version_that_a_client_loads_in_vain_is_listed_with_its_reason(tmp_path: Path) -> None:
    """It was beyond those that are kept; what serves goes on."""
    for number in ("1", "2"):
        write_bundle(tmp_path, version=number)
    made = registry(tmp_path, keep=1)
    (tmp_path / "standin" / "1" / "golden.npz").unlink()
    with pytest.raises(BundleError, match="golden"):
        made.load("standin", "1")
    assert "golden" in version(made, 1).reason
    assert made.get("standin").contract.version == "2"


def test_a_roll_back_holds_until_the_newest_is_loaded_again(tmp_path: Path) -> None:
    for number in ("1", "2", "3"):
        write_bundle(tmp_path, version=number)
    made = registry(tmp_path)
    assert made.load("standin", "1").contract.version == "1"
    write_bundle(tmp_path, version="4")
    made.refresh()
    assert made.get().contract.version == "1"
    assert made.load("standin").contract.version == "4"
    flip_a_bit(tmp_path / "standin" / "2")
    with pytest.raises(BundleError):
        made.load("standin", "2")
    assert made.get().contract.version == "4"


def test_folders_that_go_are_retired_but_never_the_last(tmp_path: Path) -> None:
    for number in ("1", "2"):
        write_bundle(tmp_path, version=number)
    made = registry(tmp_path)
    shutil.rmtree(tmp_path / "standin" / "2")
    made.refresh()
    assert made.get().contract.version == "1"
    shutil.rmtree(tmp_path / "standin")
    made.refresh()
    assert made.get().contract.version == "1"
    assert version(made, 1).reason == "its folder is gone"


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """Nothing can be opened, as in a process whose clients hold all its descriptors."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, most[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_a_folder_that_cannot_be_read_for_a_moment_retires_nothing(tmp_path: Path) -> None:
    """Nobody knows what it holds; asking for a load says so."""
    for number in ("1", "2"):
        write_bundle(tmp_path, version=number)
    made = registry(tmp_path)
    with without_descriptors():
        for look in (made.refresh, lambda: made.load("standin")):
            with pytest.raises(ModelNotReady, match="cannot be read"):
                look()
    assert [made.get("standin", number).contract.version for number in ("1", "2")] == ["1", "2"]


def test_a_bundle_that_cannot_be_read_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    """Though nothing in its folder changes: rights and descriptors leave no trace there."""
    bundle = write_bundle(tmp_path)
    engine, starve = Engine(), [True]

    def opened(folder: Path) -> Model:
        with without_descriptors() if starve else contextlib.nullcontext():
            return Model.load(folder, engine)

    made = Registry(root=tmp_path, policy=Policy(model="standin"), open_bundle=opened)
    made.refresh()
    assert version(made, 1).reason == "contract.json cannot be read (too many open files)"
    starve.clear()
    made.refresh()
    assert made.get().contract.version == bundle.name


def test_folders_that_are_no_versions_are_left_alone(tmp_path: Path) -> None:
    write_bundle(tmp_path, version="1")
    for name in ("standin/2.partial", "standin/.3", "standin/latest", "UPPER/1", ".hidden/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "README").write_text("x")
    made = registry(tmp_path)
    assert list(made.families()) == ["standin"]
    assert list(made.families()["standin"].versions) == [1]
    for name in ("../standin", "UPPER", ""):
        with pytest.raises((UnknownModel, ModelNotReady)):
            made.load(name)


def test_failures_are_reported_once_for_each_attempt(tmp_path: Path) -> None:
    failures: list[tuple[str, int]] = []
    flip_a_bit(write_bundle(tmp_path))
    made = Registry(
        root=tmp_path,
        policy=Policy(model="standin"),
        open_bundle=lambda folder: Model.load(folder, Engine()),
        on_failure=lambda name, version: failures.append((name, version.number)),
    )
    for _ in range(3):
        made.refresh()
    assert failures == [("standin", 1)]


def test_a_provider_that_does_not_start_again_refuses_the_version(tmp_path: Path) -> None:
    """A GPU whose memory is full: the versions that are loaded go on, and so does looking."""

    def open_bundle(folder: Path) -> Model:
        if folder.name == "2":
            raise ProviderMissing("expected CUDAExecutionProvider to start, it did not")
        return Model.load(folder, Engine())

    for number in ("1", "2"):
        write_bundle(tmp_path, version=number)
    made = Registry(root=tmp_path, policy=Policy(model="standin"), open_bundle=open_bundle)
    made.refresh()
    assert made.get().contract.version == "1"
    assert "CUDAExecutionProvider" in version(made, 2).reason
    with pytest.raises(BundleError, match="CUDAExecutionProvider"):
        made.load("standin", "2")


def test_a_coarser_output_is_loaded(tmp_path: Path) -> None:
    model = Model.load(write_bundle(tmp_path, stride=2), Engine())
    assert model.session.run(np.zeros((3, *GRID, 1), np.float32)).shape == (3, 128, 128, 1)


def test_a_missing_provider_is_an_error_at_start() -> None:
    Engine().check()
    for providers in (("CUDAExecutionProvider",), ("Nonsense",), ()):
        with pytest.raises(ProviderMissing):
            Engine(providers=providers).check()
