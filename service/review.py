"""Which inspections a person should look at, and which of them first."""

from dataclasses import dataclass
from typing import Literal

from models.bundle import Thresholds

ReviewReason = Literal["near", "review", "ng", "sampled", "candidate", "unsure", "disagreement"]

# Of the parts that pass far from every line: training would learn from alarms alone.
SAMPLED = 0.02
# Where champion and candidate disagree, a label says which of them is right.
CONTESTED = 4.0
# What operators left to an engineer goes before all that no one has looked at.
UNSETTLED = 10.0

_NEAR = 0.5


@dataclass(frozen=True)
class Interest:
    """Why an inspection is worth a look, and how much; what is worth more comes first."""

    priority: float
    reason: ReviewReason


def interest(
    id: str, score: float, verdict: str, thresholds: Thresholds, sampled: float = SAMPLED
) -> Interest | None:
    """What is to be learned from a label of this inspection; None where it can be left alone.

    A label says most where the score is nearest to a line. Parts in review come before alarms,
    both before passes; of those, only what is near to a line is shown, and the share `sampled` of
    the rest, drawn by `id` and spread among all the others.
    """
    nearness = thresholds.nearness(score)
    if verdict == "review":
        return Interest(2 + nearness, "near" if nearness > _NEAR else "review")
    if verdict == "ng":
        return Interest(1 + nearness, "near" if nearness > _NEAR else "ng")
    if nearness > _NEAR:
        return Interest(nearness, "near")
    drawn = int(id[:8], 16) / 16**8
    if drawn < sampled:
        return Interest(3 * drawn / sampled, "sampled")
    return None
