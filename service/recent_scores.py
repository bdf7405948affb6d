"""How raw scores are spread lately, by recipe: what drifts, drifts here first."""

import threading
from collections import deque

import numpy as np

WINDOW = 1000  # scores
QUANTILES = (0.5, 0.9, 0.99)


class RecentScores:
    """The last scores of each recipe's bundle; those of another bundle do not compare."""

    def __init__(self) -> None:
        self._scores: dict[str, tuple[int, deque[float]]] = {}
        self._lock = threading.Lock()

    @property
    def quantiles(self) -> dict[str, tuple[float, ...]]:
        """Of each recipe, at QUANTILES."""
        with self._lock:
            scores = {recipe: list(kept) for recipe, (_, kept) in self._scores.items()}
        return {
            recipe: tuple(float(q) for q in np.quantile(kept, QUANTILES))
            for recipe, kept in scores.items()
        }

    def add(self, recipe: str, version: int, score: float) -> None:
        """One more, by this version of the recipe's bundle."""
        with self._lock:
            before, kept = self._scores.get(recipe, (version, deque[float](maxlen=WINDOW)))
            if before != version:
                kept = deque(maxlen=WINDOW)
            kept.append(score)
            self._scores[recipe] = version, kept
