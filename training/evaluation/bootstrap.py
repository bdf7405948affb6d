"""What chance in drawing the images could make of a metric (Efron & Tibshirani 1993)."""

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
_SEED = 20261124


def draws(anomalous: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each draw takes each image (DRAWS, N), with replacement, good and defective apart.

    The same images are always drawn the same way, so that two models can be compared draw by draw.
    """
    rng = np.random.default_rng(_SEED)
    weights = np.zeros((DRAWS, len(anomalous)), np.int64)
    for side in (np.flatnonzero(anomalous), np.flatnonzero(~anomalous)):
        if len(side):
            weights[:, side] = rng.multinomial(len(side), np.full(len(side), 1 / len(side)), DRAWS)
    return weights


def interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """What `confidence` of the draws (DRAWS) exceed, and what as many stay below.

    A draw that holds no defective image with a mask says nothing of pixels (NaN).
    """
    low, high = np.nanquantile(values, [1 - confidence, confidence])
    return float(low), float(high)
