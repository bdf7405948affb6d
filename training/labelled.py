"""What a few labelled defects of the product are worth: the case that the paper does not try.

Ten defects of each kind are taken out of the test set and labelled as an operator would; the rest
measures the model before and after it has learned them.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bundle import MODEL, Bundle, open_bundle
from models.sample import LabelledImage, Sample, write_snapshot
from models.session import open_session
from training.data import Dataset, LabelledFile
from training.errors import TrainingError
from training.evaluation import Evaluation, evaluate, score_images
from training.progress import Reporter
from training.recipe import Places
from training.retrain import RetrainSettings, feature_source, retrain

# By the name that a benchmark is told, whether the labels have masks.
LABELLINGS = {"labels-masks": True, "labels-images": False}
PER_KIND = 10
_SEED = 1000  # which defects are labelled, apart from the seed of the weights


@dataclass(frozen=True)
class Learned:
    """Metrics on the remaining images; `after` is None where the candidate was refused."""

    before: Evaluation
    after: Evaluation | None
    comparison: str
    seconds: float

    def figures(self) -> dict[str, Any]:
        """As a benchmark writes them."""
        found: dict[str, Any] = {
            "before": self.before.metrics,
            "comparison": self.comparison,
            "learning_seconds": round(self.seconds, 1),
        }
        return found | (self.after.metrics if self.after else {"refused": True})


def learn_ten(
    data: Dataset,
    champion: Bundle,
    places: Places,
    masks: bool,
    *,
    seed: int,
    steps: int | None = None,
    reporter: Reporter,
) -> Learned:
    """Retrain `champion` on ten labels of each kind, and measure both on what remains."""
    labelled, remaining = take_labels(data.test, seed)
    if not labelled:
        raise TrainingError(
            f"{data.root} has no defects to label.", remedy="Leave labels-… out of --methods."
        )
    recipe = champion.manifest.recipe
    snapshot = write_snapshot(
        places.store / "snapshots", [_label(file, recipe, masks=masks) for file in labelled]
    )
    settings = RetrainSettings(seed=seed, steps=steps or RetrainSettings.steps)
    started = time.monotonic()
    result = retrain(snapshot, champion, places, settings, data=data, reporter=reporter)
    seconds = time.monotonic() - started
    after = _served(open_bundle(result.path), remaining) if result.path else None
    return Learned(_served(champion, remaining), after, str(result.comparison), seconds)


def take_labels(
    test: Sequence[LabelledFile], seed: int
) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Ten random defects of each kind, and all other test images."""
    rng = np.random.default_rng([_SEED, seed])
    labelled: list[LabelledFile] = []
    for kind in sorted({file.defect_class for file in test if file.defect_class}):
        of_kind = [file for file in test if file.defect_class == kind]
        chosen = rng.permutation(len(of_kind))[:PER_KIND]
        labelled.extend(of_kind[i] for i in chosen)
    taken = {file.sha256 for file in labelled}
    return labelled, [file for file in test if file.sha256 not in taken]


def _label(file: LabelledFile, recipe: str, *, masks: bool) -> LabelledImage:
    mask = file.mask.read_bytes() if masks and file.mask else None
    sample = Sample(
        image_sha256=file.sha256,
        recipe=recipe,
        verdict=file.verdict,
        defect_class=file.defect_class,
        mask_sha256=hashlib.sha256(mask).hexdigest() if mask else None,
    )
    return LabelledImage(sample, file.image.read_bytes(), mask)


def _served(bundle: Bundle, files: Sequence[LabelledFile]) -> Evaluation:
    source = feature_source(bundle)
    return evaluate(score_images(open_session(bundle.read(MODEL)), source, files), source.size)
