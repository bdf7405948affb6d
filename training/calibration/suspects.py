"""Good parts that look unlike the others: they may be defective, or another product."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.bundle import Suspect
from training.data.folders import LabelledFile

# Robust deviations above the median from which a part is pointed out; of a normal distribution one
# in 30,000 parts lies beyond.
DEVIATIONS = 4.0
_MAD = 1.4826


def find_suspects(
    files: Sequence[LabelledFile], scores: NDArray[np.float32]
) -> tuple[Suspect, ...]:
    """The files whose scores (N), by models that did not learn them, are robust outliers.

    The spread is that of the upper half of scores, which are skewed. The most suspicious first.
    """
    values = np.asarray(scores, np.float64)
    median = float(np.median(values))
    upper = values[values > median]
    if not len(upper):
        return ()
    deviation = _MAD * float(np.median(upper - median))
    limit = median + DEVIATIONS * max(deviation, 1e-9)
    order = np.argsort(-values, kind="stable")
    return tuple(
        Suspect(
            file=files[i].image.name, sha256=files[i].sha256, score=float(values[i]),
            deviations=round(float((values[i] - median) / deviation), 1),
        )
        for i in order if values[i] > limit
    )  # fmt: skip


def suspects_line(suspects: Sequence[Suspect]) -> str:
    """The suspects in a sentence."""
    shown = ", ".join(f"{each.file} ({each.deviations:.0f} deviations)" for each in suspects[:5])
    more = f" and {len(suspects) - 5} more" if len(suspects) > 5 else ""
    looks = "part looks" if len(suspects) == 1 else "parts look"
    return (
        f"{len(suspects)} good {looks} unlike the others, check: {shown}{more}. All parts were "
        "learned; --without FILE leaves one out."
    )
