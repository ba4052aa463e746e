"""How the learning rate changes over a run."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers import schedules

from training.config import TrainConfig

FINAL_SHARE = 0.01
"""Of the rate, what the exponential schedule has left at the end."""
STEP_AT, STEP_FACTOR = (0.5, 0.75), 0.1
"""The step schedule divides the rate by ten at half and at three quarters of the run."""


@keras.saving.register_keras_serializable("lungseg")
class Warmup(schedules.LearningRateSchedule):
    """Lets another schedule's rate rise linearly from 0 over the first steps."""

    def __init__(self, after: schedules.LearningRateSchedule | float, steps: int) -> None:
        super().__init__()
        self.after, self.steps = after, steps

    def __call__(self, step: Any) -> Any:
        """The rate of a step."""
        done: Any = ops.cast(step, "float32")
        rate: Any = self.after(step) if callable(self.after) else self.after
        return rate * ops.minimum(1.0, done / self.steps)

    def get_config(self) -> dict[str, object]:
        """What ``from_config`` needs."""
        after = self.after
        if callable(after):
            after = keras.saving.serialize_keras_object(after)
        return {"after": after, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Warmup:
        """Rebuilds the schedule, as loading a network does."""
        after = config["after"]
        if isinstance(after, dict):
            after = keras.saving.deserialize_keras_object(after)
        return cls(after, config["steps"])


def learning_rate(config: TrainConfig, steps: int) -> schedules.LearningRateSchedule | float:
    """The recipe's schedule.

    Args:
        config: schedule, rate, warm-up and number of epochs.
        steps: batches an epoch.
    """
    peak, warmup = config.learning_rate, round(config.warmup_epochs * steps)
    total = config.epochs * steps
    if config.schedule == "cosine":
        return schedules.CosineDecay(
            0.0 if warmup else peak,
            decay_steps=max(1, total - warmup),
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    rate: schedules.LearningRateSchedule | float = peak
    if config.schedule == "exponential":
        rate = schedules.ExponentialDecay(peak, decay_steps=total, decay_rate=FINAL_SHARE)
    elif config.schedule == "step":
        rate = schedules.PiecewiseConstantDecay(
            [round(share * total) for share in STEP_AT],
            [peak * STEP_FACTOR**number for number in range(len(STEP_AT) + 1)],
        )
    return Warmup(rate, warmup) if warmup else rate
