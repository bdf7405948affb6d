"""Champion and candidate on the same labels: what changed, and what chance alone could do.

A paired bootstrap: both are measured on the same draws of the labelled images. Twenty labels move
an average precision by tens of points, so a fall counts only where nearly every draw shows it; of
candidates that differ by chance, three in four would be refused otherwise.
"""

from dataclasses import dataclass

from training.evaluation.bootstrap import draws, interval
from training.evaluation.scoring import Evaluation

# What a candidate may not lose against the champion.
COMPARED = ("image_auroc", "pixel_ap")
# A fall counts as one where this share of the draws shows it, a rise likewise.
CONFIDENCE = 0.95
# Pixels are compared on so many defects at least. Those of one image vary together: on one or two,
# any fall would pass for a sure one.
LEAST_MARKED = 3


@dataclass(frozen=True)
class Change:
    """One metric of both, 0..1, and the interval of candidate - champion over the draws.

    `low` and `high` are the differences that `CONFIDENCE` of the draws exceed or stay below.
    """

    metric: str
    champion: float
    candidate: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Candidate - champion."""
        return self.candidate - self.champion

    @property
    def worse(self) -> bool:
        """Whether the candidate lost more than chance explains."""
        return self.high < 0

    @property
    def better(self) -> bool:
        """Whether the candidate gained more than chance explains."""
        return self.low > 0

    def __str__(self) -> str:
        verb = "rose" if self.difference > 0 else "fell" if self.difference < 0 else "stayed"
        kind, name = self.metric.split("_", 1)
        return (
            f"{kind} {name.upper()} {verb} from {100 * self.champion:.1f} to "
            f"{100 * self.candidate:.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f} at "
            f"{100 * CONFIDENCE:.0f} % either way)"
        )


@dataclass(frozen=True)
class Comparison:
    """What champion and candidate did on the same files. `drawn` says that defects drawn on good
    parts stood in for labelled ones."""

    champion: Evaluation
    candidate: Evaluation
    changes: tuple[Change, ...]
    drawn: bool = False

    @property
    def worse(self) -> tuple[Change, ...]:
        """The changes that forbid the candidate."""
        return tuple(change for change in self.changes if change.worse)

    def __str__(self) -> str:
        defective = int(self.champion.anomalous.sum())
        good = len(self.champion.files) - defective
        where = (
            f"On {good} good and {defective} defective labels, each by models that did not learn "
            "it, "
        )
        if self.drawn:
            where = (
                f"Too few defects are labelled to compare on. On {good} good parts and defects "
                "drawn on them, each by models that did not learn it, "
            )
        changes = self.worse or self.changes
        sentence = where + " and ".join(str(change) for change in changes) + "."
        unsure = [c for c in changes if not c.worse and not c.better]
        if unsure:
            sentence += (
                " Where the interval holds zero these labels cannot tell the two apart: label "
                "more defective parts, or compare both on live parts."
            )
        return sentence


def compare(champion: Evaluation, candidate: Evaluation) -> Comparison:
    """Compare two evaluations of the same files, in the same order. Same input, same answer."""
    if [f.sha256 for f in champion.files] != [f.sha256 for f in candidate.files]:
        raise ValueError("champion and candidate were tried on different files")
    before, after = champion.metrics, candidate.metrics
    few = int(champion.anomalous.sum()) < LEAST_MARKED
    metrics = [
        metric
        for metric in COMPARED
        if metric in before and metric in after and not (few and metric.startswith("pixel"))
    ]
    weights = draws(champion.anomalous)
    old, new = champion.measure(weights), candidate.measure(weights)
    changes = []
    for metric in metrics:
        low, high = interval(new[metric] - old[metric], CONFIDENCE)
        changes.append(Change(metric, before[metric], after[metric], low, high))
    return Comparison(champion, candidate, tuple(changes))
