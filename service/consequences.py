"""What thresholds would do, by what parts have scored: how many, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.bundle import NO_REJECT, Thresholds

BINS = 80
_Z = 1.959964  # of the normal distribution, 97.5 %


@dataclass(frozen=True)
class Rate:
    """`count` of `total`, and the interval in which the share lies with 95 % (Wilson's)."""

    count: int
    total: int
    low: float
    high: float


@dataclass(frozen=True)
class Consequences:
    """Of parts labelled ok, those sent to review and those rejected; of parts labelled ng, those
    that would pass; of parts without a label, what becomes of them."""

    reviewed: Rate
    rejected: Rate
    escaped: Rate
    unlabelled_ok: int
    unlabelled_review: int
    unlabelled_ng: int


@dataclass(frozen=True)
class Scores:
    """Raw scores of one bundle's inspections, by the label that counts."""

    ok: Sequence[float]
    ng: Sequence[float]
    unlabelled: Sequence[float]

    def consequences(self, thresholds: Thresholds) -> Consequences:
        """What would become of these parts."""
        ok, ng, unlabelled = (np.asarray(s) for s in (self.ok, self.ng, self.unlabelled))
        review, reject = thresholds.review, thresholds.ng
        return Consequences(
            reviewed=rate(int(((ok >= review) & (ok < reject)).sum()), len(ok)),
            rejected=rate(int((ok >= reject).sum()), len(ok)),
            escaped=rate(int((ng < review).sum()), len(ng)),
            unlabelled_ok=int((unlabelled < review).sum()),
            unlabelled_review=int(((unlabelled >= review) & (unlabelled < reject)).sum()),
            unlabelled_ng=int((unlabelled >= reject).sum()),
        )

    def histogram(self, *lines: float) -> "Histogram":
        """Counts over the range of all scores; `lines` lie within it, too, where scores reach
        them."""
        within = [line for line in lines if line < NO_REJECT]
        everything = np.concatenate([self.ok, self.ng, self.unlabelled, within])
        edges = np.linspace(everything.min(), everything.max() or 1.0, BINS + 1)
        if edges[0] == edges[-1]:
            edges = np.linspace(edges[0] - 0.5, edges[0] + 0.5, BINS + 1)

        def counts(scores: Sequence[float]) -> list[int]:
            return [int(count) for count in np.histogram(scores, edges)[0]]

        return Histogram(
            [float(edge) for edge in edges], counts(self.ok), counts(self.ng),
            counts(self.unlabelled),
        )  # fmt: skip


@dataclass(frozen=True)
class Histogram:
    """Counts between neighbouring `edges`, by label."""

    edges: list[float]
    ok: list[int]
    ng: list[int]
    unlabelled: list[int]


def rate(count: int, total: int) -> Rate:
    """A share of few, with Wilson's interval: of none it is everything, 0 to 1."""
    if total == 0:
        return Rate(0, 0, 0.0, 1.0)
    share = count / total
    middle = share + _Z**2 / (2 * total)
    spread = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    scale = 1 + _Z**2 / total
    return Rate(
        count, total, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    )
