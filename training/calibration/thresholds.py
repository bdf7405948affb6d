"""Thresholds from the raw scores of held-out good parts; defects that were held out, too, may move
the reject line where the user wants them to.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Calibration, Thresholds
from training.errors import TrainingError

# Fewer good parts than this say nothing of how good parts vary.
LEAST = 5


@dataclass(frozen=True)
class Rates:
    """Shares of good parts that may be sent to review, and that may be rejected.

    Raises TrainingError for rates that make no sense, before anything is trained.
    """

    review: float = 0.05
    reject: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.reject <= self.review < 1:
            raise TrainingError(
                f"A false-reject rate of {self.reject:g} with a false-review rate of "
                f"{self.review:g} makes no review band.",
                remedy="Choose 0 < --false-reject ≤ --false-review < 1.",
            )


def calibrate(
    scores: NDArray[Any], rates: Rates | None = None, defective: NDArray[Any] | None = None
) -> tuple[Calibration, Thresholds]:
    """Conformal thresholds for given rates, from the scores (N) of held-out good parts.

    A part is sent to review when its p-value (1 + #{calibration ≥ s}) / (n + 1) is at most
    `rates.review`, and rejected at `rates.reject`. Fewer than 1/rate - 1 parts cannot vouch for a
    rate: then the line is put beyond all that was seen, by the spread between the median and the
    largest score. With scores of held-out `defective` parts, a part is rejected from where F1 is
    highest among both, and sent to review from there at the latest.
    """
    rates = rates or Rates()
    values = np.asarray(scores, np.float64)
    calibration = Calibration(
        count=len(values),
        quantiles=tuple(float(q) for q in np.quantile(values, np.linspace(0, 1, 101))),
        false_review_rate=rates.review,
        false_reject_rate=rates.reject,
        resolvable_false_reject=1 / (len(values) + 1),
    )
    review, ng = (conformal(values, rate) for rate in (rates.review, rates.reject))
    beyond = float(2 * values.max() - np.median(values))
    review_line = float(np.nextafter(values.max(), np.inf)) if review is None else review
    if defective is not None and len(defective):
        line, f1 = best_f1(values, np.asarray(defective, np.float64))
        return calibration.model_copy(update={"f1": f1}), Thresholds(
            review=min(review_line, line), ng=line
        )
    return calibration, Thresholds(
        review=review_line, ng=max(beyond if ng is None else ng, review_line)
    )


def best_f1(good: NDArray[np.float64], defective: NDArray[np.float64]) -> tuple[float, float]:
    """The line with the highest F1 for `defective`, halfway to the next lower score; and its F1."""
    levels = np.unique(np.concatenate([good, defective]))[::-1]
    found = (defective[:, None] >= levels).sum(0)
    refused = (good[:, None] >= levels).sum(0)
    f1 = 2 * found / (found + refused + len(defective))
    best = int(f1.argmax())
    below = levels[best + 1] if best + 1 < len(levels) else levels[best]
    return float((levels[best] + below) / 2), float(f1[best])


def conformal(values: NDArray[np.float64], rate: float) -> float | None:
    """The smallest score whose p-value is at most `rate`; None when n cannot resolve it."""
    allowed = math.floor(rate * (len(values) + 1) + 1e-9) - 1  # calibration scores ≥ the line
    if allowed < 0:
        return None
    return float(np.nextafter(np.sort(values)[::-1][allowed], np.inf))


def statement(calibration: Calibration) -> str:
    """In words, what the calibration can vouch for."""
    if calibration.f1 is not None:
        return (
            f"The reject line is where F1 is highest on held-out labels: {calibration.f1:.2f}. It "
            "promises no false-reject rate, and suits as many defects as there were among them."
        )
    if calibration.resolvable_false_reject <= calibration.false_reject_rate:
        return (
            f"Thresholds for {_percent(calibration.false_review_rate)} false reviews and "
            f"{_percent(calibration.false_reject_rate)} false rejects, from {calibration.count} "
            "held-out good parts."
        )
    needed = math.ceil(1 / calibration.false_reject_rate) - 1
    return (
        f"Too few held-out good parts ({calibration.count}) to vouch for "
        f"{_percent(calibration.false_reject_rate)} false rejects, which takes {needed}; they "
        f"resolve {calibration.resolvable_false_reject:.1%}. The reject line lies beyond all of "
        "them."
    )


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g}%"
