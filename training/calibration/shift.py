"""Whether good parts of another day look like the others, and what follows for the thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

# Of a one-sided rank test: what chance alone makes once in a hundred fits is taken for a shift.
SIGNIFICANT = 0.01
# Fewer parts of another day cannot set thresholds.
FEWEST = 10
_BEYOND = 0.05


@dataclass(frozen=True)
class Shift:
    """How the scores of the parts in `validation/good` differ from those of the other good parts.

    `beyond` is the share of them beyond the score that 5 % of the others exceed.
    """

    count: int
    beyond: float
    higher: bool

    @property
    def sets_thresholds(self) -> bool:
        """Whether thresholds have to be set by these parts alone."""
        return self.higher and self.count >= FEWEST

    def __str__(self) -> str:
        if not self.higher:
            return (
                f"The {self.count} parts in validation/good score like the others: all of them set "
                "the thresholds."
            )
        found = (
            f"Good parts of another day look different: of the {self.count} in validation/good "
            f"{self.beyond:.0%} score beyond what {_BEYOND:.0%} of the others exceed."
        )
        if self.sets_thresholds:
            return f"{found} So they alone set the thresholds."
        return (
            f"{found} They are too few to set the thresholds ({FEWEST} are needed), which will "
            "stop more good parts than they promise."
        )


def compare(others: NDArray[np.float32], validation: NDArray[np.float32]) -> Shift:
    """Compare the scores (N) and (M) of good parts, each by models that did not learn the part."""
    higher = mannwhitneyu(validation, others, alternative="greater").pvalue < SIGNIFICANT
    line = float(np.quantile(others, 1 - _BEYOND))
    return Shift(len(validation), float((validation > line).mean()), bool(higher))
