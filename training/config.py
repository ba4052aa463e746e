"""Every choice of a training run in one frozen block, as TOML and as command-line flags."""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from lungseg.core.body import Covers
from lungseg.core.preprocess import IntensityRule
from training.errors import DataError

PATIENT_PATTERN = r"^(ID_\d+|patient[-_]?\w+?(?=[-_]))"
"""What of a file's stem names the patient; without a match each slice is its own patient."""
ENCODERS = (
    "unet",
    "mobilenetv2",
    "efficientnetb0",
    "efficientnetb1",
    "efficientnetv2b0",
    "resnet50v2",
    "densenet121",
)
"""Our own, and those of ``keras.applications`` that ``networks.encoders`` knows to feed."""


def _choice(default: Any, text: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices or None})


BLACK_PERCENTILE = 0.5
"""Of uncalibrated values, what becomes black."""
LIGHT_CELLS = 64
"""Pixels of the grid in one of the light network's coarsest, whose six levels halve it each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Hyper-parameters of one run; the defaults are the published starting recipe."""

    # data
    patient_pattern: str = _choice(PATIENT_PATTERN, "regular expression that names the patient")
    validation_fraction: float = _choice(0.2, "share of the patients held out for validation")
    held_out: str = _choice(
        "", "table of source and patient that validate, and nobody else, instead of a share"
    )
    keep: str = _choice(
        "", "pairs that no rule drops: names or patterns as source/name, with commas between"
    )
    seed: int = _choice(0, "of the split, the weights and the augmentation")
    grid: int = _choice(256, "side of the network's input in pixels")
    grid_covers: str = _choice("whole", "what of a slice the grid covers", "whole", "body")
    folds: int = _choice(0, "rounds of cross-validation, 0 = one split")
    fold: int = _choice(0, "round to run, from 1; 0 = all of them")
    skip_unreadable: bool = _choice(False, "leave out pairs that can't be read and go on")
    # network
    network: str = _choice("classic", "family of the network", "classic", "light")
    encoder: str = _choice("unet", "what finds the features", *ENCODERS)
    encoder_weights: str = _choice(
        "none", "of a keras.applications encoder: none, imagenet (needs the network) or a file"
    )
    init_from: str = _choice("", "start from this .keras file, run or model folder")
    freeze: str = _choice("none", "part of the network that is not fitted", "none", "encoder")
    width: int = _choice(16, "channels of the first level")
    depth: int = _choice(4, "levels of max pooling, of the classic network")
    stem: str = _choice("full", "resolution of the classic network's first level", "full", "half")
    decoder: str = _choice(
        "resize", "how the classic network's decoder upsamples", "resize", "transpose"
    )
    batch_norm_momentum: float = _choice(
        0.9, "of the moving averages: Keras' 0.99 has not caught up after ten short epochs"
    )
    dropout: float = _choice(0.0, "share of the bottleneck's channels dropped")
    # fit
    epochs: int = _choice(10, "passes over the training slices")
    batch_size: int = _choice(16, "slices a step")
    learning_rate: float = _choice(1e-3, "of Adam")
    schedule: str = _choice(
        "constant", "of the learning rate", "constant", "cosine", "exponential", "step"
    )
    warmup_epochs: float = _choice(0.0, "epochs over which the rate rises from 0")
    loss: str = _choice("bce", "objective", "bce", "dice", "bce_dice", "focal")
    average_momentum: float = _choice(
        0.0,
        "of the moving average of the weights that is validated and published, below 1; 0 = none",
    )
    early_stopping: int = _choice(0, "epochs without a better validation Dice to end after, 0 = no")
    kept_epoch: str = _choice(
        "best",
        "whose network is published: of the best validation Dice, or the last",
        "best",
        "last",
    )
    mixed_precision: str = _choice(
        "none", "16-bit arithmetic of this kind", "none", "float16", "bfloat16"
    )
    strategy: str = _choice(
        "none", "of several devices or machines", "none", "mirrored", "multiworker"
    )
    # augmentation: probabilities a slice, ranges as plus-minus or low, high
    augment: bool = _choice(True, "vary the training slices")
    rotation_degrees: float = _choice(15.0, "largest ordinary rotation")
    turn_probability: float = _choice(0.05, "rotation by any angle (prone, lying on a side)")
    zoom: float = _choice(1.4, "largest factor by which the field of view grows or shrinks")
    stretch: float = _choice(1.1, "largest ratio by which the slice's proportions change")
    shift: float = _choice(0.08, "largest shift as a share of the side")
    flip_probability: float = _choice(0.5, "left-right mirror")
    window_probability: float = _choice(0.45, "a random window instead of the model's own")
    raw_probability: float = _choice(
        0.35, "uncalibrated values as they are, scanner padding included, as 16-bit files show them"
    )
    gamma: float = _choice(1.5, "largest gamma or its inverse on grey levels")
    noise_hu: float = _choice(60.0, "largest standard deviation of added noise")
    sharpen_probability: float = _choice(0.0, "edges enhanced as sharp kernels do, noise too")
    blur_pixels: float = _choice(1.0, "largest standard deviation of added blur")
    padding_probability: float = _choice(0.1, "a round field of view with padding outside")
    circle: float = _choice(0.95, "least radius of that field as a share of half the side")
    background_probability: float = _choice(0.1, "another grey outside the body, table removed")
    opacity_probability: float = _choice(0.1, "a dense opacity inside the lungs, still lung")
    effusion_probability: float = _choice(0.05, "fluid at the back of the lungs, still lung")
    mass_probability: float = _choice(0.0, "tumours in the lungs, still lung")
    no_lung_probability: float = _choice(0.03, "lungs painted out: the truth is empty")
    base_probability: float = _choice(0.05, "organs risen into the lungs, no lung there")
    apex_probability: float = _choice(0.05, "lungs shrunk about their centres")
    gas_probability: float = _choice(0.05, "gas in the body that is no lung")
    limb_probability: float = _choice(0.0, "arms or a head beside the body")
    streak_probability: float = _choice(0.03, "metal and its streaks")
    mark_probability: float = _choice(0.1, "bars as of burnt-in text on an 8-bit picture")
    # grey levels, here and in serving
    window_low_hu: float = _choice(-1000.0, "HU that become black")
    window_high_hu: float = _choice(400.0, "HU that become white")
    white_percentile: float = _choice(99.5, "of uncalibrated values, what becomes white")
    skip_padding: bool = _choice(True, "stretch uncalibrated values without the scanner's padding")
    # served mask
    threshold: float = _choice(0.5, "probability from which a pixel is lung")
    largest_components: int = _choice(0, "connected regions kept in a mask, 0 = all")

    def __post_init__(self) -> None:
        """Refuses values that can't train.

        Raises:
            DataError: with the name of the field and what it may be.
        """
        for item in fields(self):
            choices = item.metadata["choices"]
            value = getattr(self, item.name)
            if choices and value not in choices:
                raise DataError(f"{item.name}: expected one of {', '.join(choices)}, got {value}")
        for name in ("grid", "width", "depth", "epochs", "batch_size", "learning_rate", "zoom"):
            if getattr(self, name) <= 0:
                raise DataError(f"{name}: expected a positive number, got {getattr(self, name)}")
        self._check_network()
        if not (0 < self.validation_fraction < 1 and 0 <= self.average_momentum < 1):
            raise DataError(
                "validation_fraction, average_momentum: expected numbers between 0 and 1, got "
                f"{self.validation_fraction} and {self.average_momentum}"
            )
        if not self.window_low_hu < self.window_high_hu:
            raise DataError("window_high_hu: expected more than window_low_hu")
        if not BLACK_PERCENTILE < self.white_percentile <= 100:
            raise DataError(f"white_percentile: expected one above {BLACK_PERCENTILE}, to 100")
        if self.folds == 1 or not 0 <= self.fold <= max(0, self.folds):
            raise DataError(f"fold: expected 2 folds or more and one of them, got {self.fold}")
        try:
            re.compile(self.patient_pattern)
        except re.error as error:
            raise DataError(f"patient_pattern: no regular expression ({error})") from error

    @property
    def covers(self) -> Covers:
        """What of a slice the grid covers."""
        return "body" if self.grid_covers == "body" else "whole"

    @property
    def intensity(self) -> IntensityRule:
        """How this network's slices become grey levels."""
        return IntensityRule(
            window_hu=(self.window_low_hu, self.window_high_hu),
            grey_percentiles=(BLACK_PERCENTILE, self.white_percentile),
            skip_padding=self.skip_padding,
        )

    def _check_network(self) -> None:
        if self.encoder == "unet" and self.encoder_weights != "none":
            raise DataError("encoder_weights: name their network too, --encoder mobilenetv2")
        if self.network == "light" and self.encoder != "unet":
            raise DataError("encoder: the light network has its own")
        cells = 2 ** (self.depth + (self.stem == "half")) if self.encoder == "unet" else 32
        if self.network == "light":
            cells = LIGHT_CELLS
        if self.grid % cells:
            raise DataError(f"grid: expected a multiple of {cells} for this network: {self.grid}")


def read_config(path: Path | None, overrides: dict[str, Any]) -> TrainConfig:
    """Reads a TOML file (None for the defaults) and lays given values over it.

    Raises:
        DataError: the file is no TOML, or it names a field that does not exist.
    """
    return TrainConfig(**(read_values(path) | overrides))


def read_values(path: Path | None) -> dict[str, Any]:
    """The settings that a TOML file gives, none for None.

    Raises:
        DataError: the file is no TOML, or it names a field that does not exist.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path.name}: expected a readable TOML file ({error})") from error
    known = get_type_hints(TrainConfig)
    for name, value in values.items():
        if name not in known:
            raise DataError(f"{name}: no such setting; see `python -m training run --help`")
        whole_float = known[name] is float and type(value) is int
        if type(value) is not known[name] and not whole_float:
            raise DataError(f"{name}: expected {known[name].__name__}, got {value!r}")
        values[name] = known[name](value)
    return values


def known_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Of the settings in a record those that there are today: older ones may be gone."""
    names = {item.name for item in fields(TrainConfig)}
    return {name: value for name, value in values.items() if name in names}


def write_config(config: TrainConfig, path: Path) -> None:
    """Writes a configuration as TOML that ``read_config`` reads back."""
    path.write_text("".join(toml_line(*item) + "\n" for item in asdict(config).items()))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds one flag for each field; a flag not given is absent from the parsed arguments."""
    types = get_type_hints(TrainConfig)
    group = parser.add_argument_group("recipe (defaults in brackets)")
    for item in fields(TrainConfig):
        options: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if types[item.name] is not bool:
            options = {"type": types[item.name], "choices": item.metadata["choices"]}
        text = f"{item.metadata['help']} [{item.default}]".replace("%", "%%")
        flag = "--" + item.name.replace("_", "-")
        group.add_argument(flag, dest=item.name, default=argparse.SUPPRESS, help=text, **options)


def given_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe flags that the command line gave."""
    names = {item.name for item in fields(TrainConfig)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def toml_line(key: str, value: Any) -> str:
    """One setting as TOML."""
    return f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A literal string where it can be, for the patterns' backslashes; else JSON's, a TOML one.
        return json.dumps(value) if "'" in value else f"'{value}'"
    return repr(value)
