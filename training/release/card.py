"""Writes a model's card: what it is for, what it learnt from, how good it is, where it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungseg.inference.contract import Contract
from training.config import TrainConfig, toml_line
from training.data.material import Material
from training.evaluation.compare import Comparison
from training.evaluation.evaluate import (
    DISTANCE_NOTE,
    SliceResult,
    format_table,
    markdown_table,
    summarise,
    summarise_by,
    worst,
)
from training.evaluation.groups import format_groups
from training.evaluation.stress import StressResult, format_stress
from training.release.credits import CARD, HEADING, describe_terms, describe_tree
from training.release.quantize import Int8Cost

INTENDED_USE = """\
Segments the lungs (both lungs as one mask; trachea and main bronchi are not lung) in single
axial slices of chest CT. For research and engineering: **not a medical device**, not for
diagnosis, treatment or any decision about a patient.

Known limits: learnt from few slices; apices, bases, slices of other body regions, dense
consolidation, large tumours and effusions are where it errs. Masks on such slices need a
person's eye; the service's quality flags name some of them.
"""

STRESS_SET = """\
Validation slices changed by rule so that the truth stays known
(`training/synthetic/stress_set.py`); `python -m training stress` prints this table.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """Everything the card says.

    Attributes:
        contract: of the exported model.
        config: the recipe.
        provenance: data hash, package versions and the like.
        material: pairs it was fitted to and pairs left out, with reasons.
        results: of the validation slices.
        external: of slices of other sources, never trained on.
        windows: results of the validation slices as 8-bit pictures through windows in HU.
        parity: largest difference between Keras and ONNX Runtime.
        int8: what quantisation changed, None for a float model.
        parameters: weights of the network.
        stress: results of the stressed validation slices.
        comparison: with the version in place before, None for the first.
        remark: a sentence about which validation slices the comparison left out, or empty.
        change: what fine-tuning changed, as Markdown; empty for a training from scratch.
        overruled: what spoke against publishing and was overruled, each a clause.
        foreword: Markdown that the card begins with, empty for none.
    """

    contract: Contract
    config: TrainConfig
    provenance: Mapping[str, Any]
    material: Material
    results: Sequence[SliceResult]
    external: Sequence[SliceResult]
    windows: Mapping[tuple[float, float], Sequence[SliceResult]]
    parity: float
    int8: Int8Cost | None
    parameters: int
    stress: Sequence[StressResult] = ()
    comparison: Comparison | None = None
    remark: str = ""
    change: str = ""
    overruled: Sequence[str] = ()
    foreword: str = ""


def write_card(facts: CardFacts, folder: Path) -> None:
    """Writes ``CARD.md`` into a bundle."""
    contract = facts.contract
    sections = [
        f"# {contract.name} version {contract.version}",
        f"Exported {contract.created}; {contract.license}.",
        *([facts.foreword] if facts.foreword else []),
        "## Intended use and limits",
        INTENDED_USE,
        HEADING,
        f"{_data(facts)}\n\n{describe_terms(facts.provenance)}",
        "## Quality",
        _quality(facts),
        *_groups(facts),
        "## Under stress",
        STRESS_SET + format_stress(facts.stress),
        "## Worst validation slices",
        _worst(facts.results),
        *_worst_external(facts),
        "## Export",
        _export(facts, folder),
        "## Reproduce",
        _reproduce(facts),
    ]
    (folder / CARD).write_text("\n\n".join(part.rstrip() for part in sections) + "\n")


def _data(facts: CardFacts) -> str:
    sources = Counter(result.pair.source for result in facts.results)
    lines = [
        (
            f"- {len(facts.material.training)} slices to learn from, {len(facts.results)} of other "
            f"patients held out for validation ({_counts(sources)}); seed {facts.config.seed}."
        ),
        f"- SHA-256 of all used files: `{facts.provenance.get('data_sha256', 'unknown')}`.",
        f"- {len(facts.material.dropped)} pairs were left out by rule:",
    ]
    lines += [f"  - {pair.source}/{pair.name}: {reason}" for pair, reason in facts.material.dropped]
    return "\n".join(lines)


def _quality(facts: CardFacts) -> str:
    groups = [summarise("validation", facts.results)]
    by_source = summarise_by(facts.results, lambda result: f"validation, {result.pair.source}")
    groups += by_source if len(by_source) > 1 else []
    for (low, high), results in facts.windows.items():
        groups.append(summarise(f"validation, 8 bit, window [{low:g}, {high:g}]", results))
    groups += summarise_by(facts.external, lambda result: f"{result.pair.source} (external)")
    text = (
        "Measured on the exported model through the service's own pipeline, at the input's own "
        f"size. {DISTANCE_NOTE}\n\n"
    ) + format_table(groups)
    if facts.comparison is not None:
        text += "\n\nAgainst the version before (A), this one is B: " + facts.comparison.describe()
    if facts.remark:
        text += f"\n\n{facts.remark}"
    if facts.change:
        text += f"\n\n{facts.change}"
    for objection in facts.overruled:
        text += f"\n\n**Published by force although {objection}.**"
    return text


def _groups(facts: CardFacts) -> list[str]:
    """Of validation slices of known spacing: the figures to judge by, where there are any."""
    if all(result.areas is None for result in facts.results):
        return []
    return ["## Validation slices by what they hold", format_groups(facts.results)]


def _worst(results: Sequence[SliceResult]) -> str:
    rows = [
        (
            f"{pair.source}/{pair.name}",
            *(f"{values.dice:.4f}", f"{values.hd95:.1f}", f"{values.area_error:+.1%}"),
        )
        for pair, values in ((result.pair, result.metrics) for result in worst(results))
    ]
    return markdown_table(("slice", "Dice", "HD95", "area error"), rows)


def _worst_external(facts: CardFacts) -> list[str]:
    return ["## Worst external slices", _worst(facts.external)] if facts.external else []


def _export(facts: CardFacts, folder: Path) -> str:
    contract = facts.contract
    size_mb = (folder / "model.onnx").stat().st_size / 1e6
    lines = [
        (
            f"- `model.onnx`: {size_mb:.1f} MB, {facts.parameters:,} parameters, opset "
            f"{contract.opset}, SHA-256 `{contract.sha256}`."
        ),
        (
            f"- Input `{contract.input.name}` (batch, {contract.input.height}, "
            f"{contract.input.width}, 1), grey levels 0…255; output `{contract.output.name}` "
            f"(batch, {contract.output.height}, {contract.output.width}, 1), probability of lung."
        ),
        (
            f"- HU become grey through the window {list(contract.intensity.window_hu)}; other "
            f"pictures are stretched between the percentiles "
            f"{list(contract.intensity.grey_percentiles)}"
            f"{' of what is not padding' if contract.intensity.skip_padding else ''}."
        ),
        (
            f"- Largest difference between Keras and ONNX Runtime on validation slices: "
            f"{facts.parity:.1e}."
        ),
    ]
    if facts.int8 is not None:
        lines.append(
            f"- Quantised to int8; mean Dice lost by it: {facts.int8.dice_loss:.4f}; Dice of its "
            f"masks with the float model's: {facts.int8.agreement:.4f} on average, "
            f"{facts.int8.least_agreement:.4f} at least."
        )
    return "\n".join(lines)


def _reproduce(facts: CardFacts) -> str:
    changed = {
        key: value
        for key, value in asdict(facts.config).items()
        if value != getattr(TrainConfig(), key)
    }
    lines = [
        "Put these settings into `recipe.toml`:",
        "\n```toml\n" + "\n".join(toml_line(*item) for item in changed.items()) + "\n```\n",
        "```\npython -m training run --data DIR --out runs/NAME --config recipe.toml\n```",
        "",
        describe_tree(facts.provenance),
    ]
    return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in sorted(counter.items()))
