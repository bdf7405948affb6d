"""Named settings: the paper's network, and a smaller one of the same family for two CPU cores."""

from dataclasses import dataclass
from typing import Any, Literal

from training.loop import Schedule

PresetName = Literal["paper", "fast"]
ScheduleName = Literal["short", "paper"]


@dataclass(frozen=True)
class Preset:
    """`network` goes to AdtrConfig, `short` is the schedule measured to suit two CPU cores."""

    network: dict[str, Any]
    short: Schedule


PRESETS: dict[PresetName, Preset] = {
    "paper": Preset(
        {"layers": 4, "dimension": 256, "feedforward": 1024},
        Schedule(steps=800, batch=8, learning_rate=1e-3),
    ),
    "fast": Preset(
        {"layers": 2, "dimension": 128, "feedforward": 512},
        Schedule(steps=800, batch=8, learning_rate=2e-3),
    ),
}

PAPER_EPOCHS = 500
PAPER_BATCH = 16


def schedule_for(preset: PresetName, schedule: ScheduleName, images: int) -> Schedule:
    """The schedule for a set of `images`; `paper` is 500 epochs at 1e-4, a tenth from 400 on."""
    if schedule == "short":
        return PRESETS[preset].short
    per_epoch = max(1, images // PAPER_BATCH)
    return Schedule(
        steps=PAPER_EPOCHS * per_epoch, batch=PAPER_BATCH, learning_rate=1e-4, kind="step"
    )
