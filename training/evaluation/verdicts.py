"""What users see of a model: good parts that stop the line, and defects that pass it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle import Thresholds


@dataclass(frozen=True)
class Verdicts:
    """How many of some parts are ok, go to review, and are rejected."""

    ok: int
    review: int
    ng: int

    @property
    def count(self) -> int:
        """All parts."""
        return self.ok + self.review + self.ng

    @property
    def passed(self) -> float:
        """The share of parts that are ok; of defective ones, that escape."""
        return self.ok / self.count if self.count else float("nan")

    @property
    def stopped(self) -> float:
        """The share of parts that go to review or are rejected; of good ones, false alarms."""
        return 1 - self.passed

    @property
    def rejected(self) -> float:
        """The share of parts that are rejected without a person's look."""
        return self.ng / self.count if self.count else float("nan")


def count_verdicts(scores: Iterable[float], thresholds: Thresholds) -> Verdicts:
    """The verdicts on raw scores. Raises ValueError for one that is no number."""
    found = [thresholds.verdict(float(score)) for score in scores]
    if "error" in found:
        raise ValueError("a score is no number")
    return Verdicts(found.count("ok"), found.count("review"), found.count("ng"))


def by_label(
    scores: NDArray[np.float32], anomalous: NDArray[np.bool_], thresholds: Thresholds
) -> dict[str, Verdicts]:
    """The verdicts on good parts and on defective ones, where there are some."""
    groups = {"good": scores[~anomalous], "defective": scores[anomalous]}
    return {
        name: count_verdicts(values, thresholds) for name, values in groups.items() if len(values)
    }


def verdict_shares(
    scores: NDArray[np.float32], anomalous: NDArray[np.bool_], thresholds: Thresholds
) -> dict[str, float]:
    """Shares by name, as benchmarks show them beside metrics; none of a label without parts."""
    found = by_label(scores, anomalous, thresholds)
    shares = {}
    if good := found.get("good"):
        shares["good_stopped"] = good.stopped
    if bad := found.get("defective"):
        shares |= {"defects_passed": bad.passed, "defects_rejected": bad.rejected}
    return shares


SHARES = {
    "good_stopped": "Good stopped",
    "defects_passed": "Defects passed",
    "defects_rejected": "Defects rejected",
}
