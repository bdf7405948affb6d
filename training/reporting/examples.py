"""The parts that say most about a model: what it finds, what it misses, what it refuses wrongly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.backbones.features import FeatureCache
from training.calibration.cross_fit import CrossFit
from training.data.folders import LabelledFile
from training.evaluation.scoring import Evaluation, network_mask, score_features
from training.networks.scorer import Scorer
from training.reporting import plots

FOUND = "Defective parts with the highest scores"
MISSED = "Defective parts with the lowest scores: what it misses"
REFUSED = "Good parts with the highest scores: what it refuses wrongly"


@dataclass(frozen=True)
class Picture:
    """A part beside its heatmap, as a data URL; a defect's outline is drawn where it is known."""

    kind: str
    score: float
    image: str


def telling(evaluation: Evaluation, count: int) -> dict[str, list[LabelledFile]]:
    """The files that tell most, `count` for each title."""
    order = np.argsort(evaluation.scores, kind="stable")
    bad = [evaluation.files[i] for i in order if evaluation.files[i].verdict == "ng"]
    good = [evaluation.files[i] for i in order if evaluation.files[i].verdict == "ok"]
    rows = {FOUND: bad[::-1][:count], MISSED: bad[:count], REFUSED: good[::-1][:count]}
    return {title: files for title, files in rows.items() if files}


def pictures(
    scorer: Scorer,
    cache: FeatureCache,
    files: Sequence[LabelledFile],
    low: float,
    high: float,
    by_others: Sequence[CrossFit] = (),
) -> list[Picture]:
    """Each file with its heatmap, coloured from `low` to `high`.

    What the scorer has learned it finds usual: of a file that is in `by_others`, score and heatmap
    are those of models that did not learn it.
    """
    fair = {each[0].sha256: each for cross in by_others for each in cross.of(files).scored(scorer)}
    others = [file for file in files if file.sha256 not in fair]
    found = fair | {each[0].sha256: each for each in score_features(scorer, cache, others)}
    shown = []
    for file, score, heatmap in (found[file.sha256] for file in files):
        mask = network_mask(file.mask, cache.source.size) if file.mask else None
        image = cache.source.read(file.image)
        drawn = plots.overlay(image, heatmap, mask, low, high)
        shown.append(Picture(file.defect_class or "good", score, drawn))
    return shown
