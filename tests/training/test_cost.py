"""The cost table: operations counted as the definition says, times of the same run."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from tests.standin import write_bundle
from training.__main__ import main
from training.evaluation.cost import CLASSIC, gflop
from training.networks.convert import to_onnx

pytestmark = pytest.mark.training


def test_operations_are_counted_by_definition() -> None:
    """Two for each weight at each place of the output; of the input where it is enlarged."""
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    x = keras.layers.Conv2DTranspose(1, 4, strides=2, padding="same")(x)
    content = to_onnx(keras.Model(image, keras.layers.Activation("sigmoid", name="mask")(x)), {})
    expected = 2 * (8 * 8 * 3 * 3 * 1 * 4) + 2 * (8 * 8 * 4 * 4 * 4 * 1)
    assert gflop(content) * 1e9 == pytest.approx(expected)


def test_the_command_compares_with_the_classic_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row each, the classic one first and once as fast as itself."""
    write_bundle(tmp_path)
    folder = tmp_path / "standin" / "1"
    assert main(["cost", str(folder), "--rounds", "2"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [CLASSIC, str(folder)]
    assert rows[0].count("1.0×") == 2
    assert rows[0].split("|")[2].strip() == "6.83"


def test_a_folder_without_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", str(tmp_path / "lung" / "7")]) == 2
    assert "7" in capsys.readouterr().err
