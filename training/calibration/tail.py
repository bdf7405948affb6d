"""The tail of good parts' scores, where they are too few to count what lies beyond a threshold.

Peaks over threshold (Pickands 1975): what exceeds the median follows a generalised Pareto
distribution. Its shape is estimated with a prior around 0, an exponential tail, since a few dozen
excesses cannot tell a shape. An excess far beyond the others, of a part that may be defective, is
counted as large without its size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import genpareto

Values = NDArray[np.float64]

SHARE = 0.5  # of the scores, whose excesses are fitted
FEWEST = 5
# Chosen on nothing: a standard deviation that forbids shapes which scores never have.
_SHAPE_DEVIATION = 0.15
# Times the excess that half of an exponential's would exceed, scaled to its mean.
_OUTLYING = 6.0
_EXPONENTIAL = 1e-6  # a shape as good as 0
# How far the search for a scale (its logarithm) and a shape steps at first: about as far as the
# estimate is uncertain.
_STEPS = np.array([[0.0, 0.0], [0.3, 0.0], [0.0, 0.1]])
_RESAMPLES = 200
_SEED = 20261128


@dataclass(frozen=True)
class Tail:
    """A share `share` of scores exceeds `start`; their excess has this `shape` and `scale`."""

    start: float
    share: float
    shape: float
    scale: float

    def quantile(self, rate: float) -> float:
        """The score that a share `rate` of good parts exceeds."""
        excess = genpareto.isf(min(rate / self.share, 1.0), self.shape, scale=self.scale)
        return float(self.start + excess)

    def rate(self, score: float) -> float:
        """The share of good parts that exceeds a score above `start`."""
        excess = max(score - self.start, 0.0)
        return float(self.share * genpareto.sf(excess, self.shape, scale=self.scale))


def fit_tail(scores: Values) -> Tail:
    """Fit the upper half of scores (N). At least `FEWEST` of them are needed."""
    ordered = np.sort(np.asarray(scores, np.float64))
    count = min(max(FEWEST, round(SHARE * len(ordered))), len(ordered) - 1)
    start = float(ordered[-count - 1])
    excess = ordered[-count:] - start
    typical = float(np.median(excess)) / np.log(2)
    if typical <= 0:  # parts that all score the same
        return Tail(start, count / len(ordered), 0.0, max(float(excess.mean()), 1e-9))
    limit = _OUTLYING * typical
    seen, beyond = excess[excess <= limit], int((excess > limit).sum())

    def cost(parameters: Values) -> float:
        # scipy's genpareto has the same density, and takes twenty times as long for so few values.
        scale, shape = float(np.exp(parameters[0])), float(parameters[1])
        shape = shape if abs(shape) > _EXPONENTIAL else _EXPONENTIAL
        growth, farthest = 1 + shape * seen / scale, 1 + shape * limit / scale
        if growth.min() <= 0 or (beyond and farthest <= 0):
            return 1e9
        likelihood = -len(seen) * np.log(scale) - (1 + 1 / shape) * float(np.log(growth).sum())
        if beyond:
            likelihood -= beyond * np.log(farthest) / shape
        return float(-likelihood + 0.5 * (shape / _SHAPE_DEVIATION) ** 2)

    first = np.array([np.log(typical), 0.0])
    found = minimize(cost, first, method="Nelder-Mead", options={"initial_simplex": first + _STEPS})
    return Tail(start, count / len(ordered), float(found.x[1]), float(np.exp(found.x[0])))


def rate_interval(scores: Values, rate: float, confidence: float) -> tuple[float, float]:
    """Within which the share of good parts beyond `fit_tail(scores).quantile(rate)` lies, with this
    confidence: by thresholds that other parts of the same tail would have set (bootstrap)."""
    values = np.asarray(scores, np.float64)
    tail = fit_tail(values)
    rng = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RESAMPLES):
        resample = rng.choice(values, len(values))
        found.append(tail.rate(fit_tail(resample).quantile(rate)))
    outside = (1 - confidence) / 2
    low, high = np.quantile(found, [outside, 1 - outside])
    return float(low), float(high)
