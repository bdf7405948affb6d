"""Thresholds from the raw scores of good parts by models that did not learn them; labelled defects
may move the reject threshold where the user wants them to.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from models.bundle import NO_REJECT, Calibration, Thresholds
from training.calibration.tail import fit_tail, rate_interval
from training.errors import TrainingError

# Fewer good parts than this say nothing of how good parts vary.
LEAST = 10
# So many parts must lie beyond a threshold for it to be counted rather than estimated.
COUNTED = 5
CONFIDENCE = 0.9
# Nothing is rejected without a person's look where the false-reject rate may be higher than this.
TOO_MANY_REJECTED = 0.05


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


@dataclass(frozen=True)
class Threshold:
    """A score, within which interval the share of good parts beyond it lies, and whether that was
    counted among parts rather than estimated from their tail."""

    score: float
    interval: tuple[float, float]
    counted: bool


def calibrate(
    scores: NDArray[Any],
    rates: Rates | None = None,
    defective: NDArray[Any] | None = None,
    *,
    groups: int | None = None,
) -> tuple[Calibration, Thresholds]:
    """Thresholds for given rates, from the scores (N) of good parts that were held out.

    Where enough parts lie beyond, a threshold is the conformal one; below that it comes from a
    model of the tail. Where the false-reject rate may still be several times too high, nothing is
    rejected: every suspicious part goes to review. With scores of held-out `defective` parts, a
    part is rejected from where F1 is highest among both, and sent to review from there at the
    latest. `groups` is the number of independent groups among the parts, all by default.
    """
    rates = rates or Rates()
    values = np.asarray(scores, np.float64)
    independent = min(groups or len(values), len(values))
    review = threshold(values, rates.review, independent)
    reject = threshold(values, rates.reject, independent)
    automatic = reject.interval[1] <= TOO_MANY_REJECTED
    calibration = Calibration(
        count=len(values),
        groups=independent,
        quantiles=tuple(float(q) for q in np.quantile(values, np.linspace(0, 1, 101))),
        false_review_rate=rates.review,
        false_reject_rate=rates.reject,
        review_interval=review.interval,
        reject_interval=reject.interval,
        counted=reject.counted,
        automatic_reject=automatic,
        resolvable_false_reject=1 / (independent + 1),
    )
    if defective is not None and len(defective):
        line, f1 = best_f1(values, np.asarray(defective, np.float64))
        calibration = calibration.model_copy(update={"f1": f1, "automatic_reject": True})
        return calibration, Thresholds(review=min(review.score, line), ng=line)
    ng = max(reject.score, review.score) if automatic else max(NO_REJECT, review.score)
    return calibration, Thresholds(review=review.score, ng=ng)


def threshold(values: NDArray[np.float64], rate: float, independent: int) -> Threshold:
    """The threshold that a share `rate` of good parts exceeds, from the scores (N) of some.

    With a counted one, the mean over draws of parts is the rate. Its interval is that of a Beta
    distribution (Vovk 2012, calibration-conditional): 39 parts and 5 % mean 0.9 to 11.6 %.
    """
    beyond = rate * (len(values) + 1)
    if beyond >= COUNTED:
        scale = (independent + 1) / (len(values) + 1)  # parts of a group say the same
        found = beta(beyond * scale, (len(values) + 1 - beyond) * scale)
        outside = (1 - CONFIDENCE) / 2
        interval = (float(found.ppf(outside)), float(found.ppf(1 - outside)))
        return Threshold(exceeded(values, rate), interval, counted=True)
    return Threshold(exceeded(values, rate), rate_interval(values, rate, CONFIDENCE), counted=False)


def exceeded(values: NDArray[np.float64], rate: float) -> float:
    """The score that a share `rate` of good parts exceeds: counted where enough parts lie beyond
    it, else by a model of the tail."""
    beyond = rate * (len(values) + 1)
    return conformal(values, beyond) if beyond >= COUNTED else fit_tail(values).quantile(rate)


def conformal(values: NDArray[np.float64], beyond: float) -> float:
    """The score that `beyond` of the parts reach, between two of them where it is no whole number:
    a new part exceeds it in `beyond` of N + 1 cases."""
    ordered = np.sort(values)[::-1]
    whole = math.floor(beyond + 1e-9)
    upper, lower = ordered[whole - 1], ordered[min(whole, len(ordered) - 1)]
    return float(np.nextafter(upper + (lower - upper) * (beyond - whole), np.inf))


def best_f1(good: NDArray[np.float64], defective: NDArray[np.float64]) -> tuple[float, float]:
    """The threshold of the highest F1 for `defective`, halfway to the next lower score; its F1."""
    levels = np.unique(np.concatenate([good, defective]))[::-1]
    found = (defective[:, None] >= levels).sum(0)
    refused = (good[:, None] >= levels).sum(0)
    f1 = 2 * found / (found + refused + len(defective))
    best = int(f1.argmax())
    below = levels[best + 1] if best + 1 < len(levels) else levels[best]
    return float((levels[best] + below) / 2), float(f1[best])


def statement(calibration: Calibration) -> str:
    """What the calibration promises, in words."""
    if calibration.f1 is not None:
        return (
            f"The reject threshold is where F1 is highest on held-out labels: {calibration.f1:.2f}."
            " It promises no false-reject rate, and suits as many defects as there were among them."
        )
    parts = f"{calibration.count} good parts"
    if calibration.groups < calibration.count:
        parts += f" in {calibration.groups} independent groups"
    review = f"Review: {_range(calibration.review_interval)} of good parts, from {parts}."
    if calibration.automatic_reject:
        return f"{review} Reject: {_range(calibration.reject_interval)}."
    needed = math.ceil(COUNTED / calibration.false_reject_rate) - 1
    return (
        f"{review} Nothing is rejected automatically, every suspicious part goes to review: up to "
        f"{calibration.reject_interval[1]:.0%} of good parts might be rejected. More good parts "
        f"narrow this down; {needed - calibration.count} more would settle "
        f"{100 * calibration.false_reject_rate:.3g} %."
    )


def _range(interval: tuple[float, float]) -> str:
    low, high = (100 * share for share in interval)
    return f"between {low:.2g} and {high:.2g} %"
