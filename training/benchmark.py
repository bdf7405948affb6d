"""The first benchmark: magnetic tiles, fitted and retrained, beside a k-NN on the same features.

Every stage's figures are written as soon as they are there, and an interrupted run goes on with
the stages that are missing.
"""

import hashlib
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.backbone import MANIFEST, Backbone, open_backbone
from models.bundle import MODEL, TRAINED_ON, Bundle, list_versions, open_bundle
from models.durable import write_file
from models.sample import LabelledImage, Sample, write_snapshot
from models.session import open_session
from training.backbones import IMAGENET_MEAN, IMAGENET_STD, import_backbone
from training.data import Dataset, LabelledFile, read_mvtec
from training.errors import TrainingError
from training.evaluation import Evaluation, evaluate, score_features, score_images
from training.features import FeatureCache
from training.fit import FitSettings, Fitted, Places, fit
from training.learners import Lesson
from training.methods import method
from training.progress import Reporter
from training.retrain import RetrainSettings, feature_source, retrain

RECIPE = "tile"
LABELS_PER_TYPE = 10
REMAINING_SEED = 1000  # which defects are labelled, apart from the seed of the weights


@dataclass(frozen=True)
class TileBenchmark:
    """Where the shared images and backbones lie, and where the work goes.

    `steps` shortens every training, to try the benchmark itself out.
    """

    shared: Path
    out: Path
    seeds: Sequence[int]
    reporter: Reporter
    steps: int | None = None

    def run(self, json_file: Path) -> dict[str, Any]:
        """Run what is missing, and return all figures; also written to `json_file`."""
        results = self._earlier(json_file)
        data = read_mvtec(self.shared / "data" / "magnetic_tile")
        for seed in self.seeds:
            for name, stage in self._stages(seed, data):
                key = f"{name}/seed{seed}"
                if key in results:
                    continue
                self.reporter.say(f"{key} …")
                results[key] = stage()
                results["peak_memory_gib"] = round(
                    max(_peak_gib(), results.get("peak_memory_gib", 0)), 2
                )
                write_file(json_file, json.dumps(results, indent=2).encode())
                self.reporter.say(f"{key}: {_line(results[key])}")
        return results

    def _earlier(self, json_file: Path) -> dict[str, Any]:
        """What an interrupted run left. Raises TrainingError if it was of another length."""
        if not json_file.exists():
            return {"steps": self.steps}
        results: dict[str, Any] = json.loads(json_file.read_text())
        if results.get("steps") != self.steps:
            raise TrainingError(
                f"{json_file} holds figures of trainings of another length.",
                remedy="Name another file with --json.",
            )
        return results

    def _stages(self, seed: int, data: Dataset) -> list[tuple[str, Any]]:
        return [
            ("adtr-paper", lambda: self._fit("paper", seed, data)),
            ("knn", lambda: self._knn(seed, data)),
            ("adtr-fast", lambda: self._fit("fast", seed, data)),
            ("retrain-masks", lambda: self._retrain(seed, data, masks=True)),
            ("retrain-images", lambda: self._retrain(seed, data, masks=False)),
        ]

    def _backbone(self) -> Backbone:
        directory = self.out / "backbones" / "mobilenet_v2"
        if not (directory / MANIFEST).exists():
            import_backbone(
                self.shared / "backbones" / "mobilenet_v2.onnx",
                self.out / "backbones",
                name="mobilenet_v2",
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
                licence="Apache-2.0",
                training_data="ImageNet-1k",
            )
        return open_backbone(directory)

    def _places(self, name: str, seed: int) -> Places:
        # A cache for each, so that every fit is measured with its features.
        root = self.out / name / str(seed)
        return Places(store=root, cache=root / "features")

    def _fit(self, preset: str, seed: int, data: Dataset) -> dict[str, Any]:
        settings = FitSettings(recipe=RECIPE, preset=preset, seed=seed, steps=self.steps)
        places = self._places(preset, seed)
        fitted = fit(data, self._backbone(), settings, places, reporter=self.reporter)
        figures: dict[str, Any] = dict(fitted.test.metrics) if fitted.test else {}
        return figures | {
            "seconds": round(fitted.seconds, 1),
            "served_score_gap": self._parity(fitted),
        }

    def _parity(self, fitted: Fitted) -> float:
        """The largest difference between a served and a trained score over every test image."""
        assert fitted.test is not None
        session = open_session(open_bundle(fitted.path).read(MODEL))
        served = score_images(session, fitted.cache.source, fitted.test.files)
        scores = np.array([score for _, score, _ in served])
        return float(np.abs(scores - fitted.test.scores).max())

    def _knn(self, seed: int, data: Dataset) -> dict[str, Any]:
        champion = self._champion(seed)
        seen = set(champion.read(TRAINED_ON).decode().split())
        learned = [file for file in data.train if file.sha256 in seen]
        cache = self._cache(champion, seed)
        started = time.monotonic()
        scorer, _ = method("knn").learn(Lesson(learned, cache, seed))
        evaluation = evaluate(score_features(scorer, cache, data.test), cache.source.size)
        return evaluation.metrics | {"seconds": round(time.monotonic() - started, 1)}

    def _retrain(self, seed: int, data: Dataset, *, masks: bool) -> dict[str, Any]:
        labelled, remaining = take_labels(data.test, seed)
        champion = self._champion(seed)
        name = "masks" if masks else "images"
        places = Places(self.out / name / str(seed), self._places("paper", seed).cache)
        snapshot = write_snapshot(
            self.out / "snapshots", [_label(file, masks=masks) for file in labelled]
        )
        settings = RetrainSettings(seed=seed, steps=self.steps or RetrainSettings.steps)
        started = time.monotonic()
        result = retrain(snapshot, champion, places, settings, data=data, reporter=self.reporter)
        seconds = round(time.monotonic() - started, 1)
        before = self._served(champion, remaining)
        if result.path is None:
            return {"refused": str(result.comparison), "seconds": seconds, "before": before.metrics}
        after = self._served(open_bundle(result.path), remaining)
        return after.metrics | {"seconds": seconds, "before": before.metrics}

    def _champion(self, seed: int) -> Bundle:
        store = self._places("paper", seed).store
        return open_bundle(store / RECIPE / str(list_versions(store, RECIPE)[-1]))

    def _cache(self, bundle: Bundle, seed: int) -> FeatureCache:
        return FeatureCache(self._places("paper", seed).cache, feature_source(bundle))

    def _served(self, bundle: Bundle, files: Sequence[LabelledFile]) -> Evaluation:
        source = feature_source(bundle)
        return evaluate(score_images(open_session(bundle.read(MODEL)), source, files), source.size)


def take_labels(
    test: Sequence[LabelledFile], seed: int
) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Ten random defects of each type, and all other test images."""
    rng = np.random.default_rng([REMAINING_SEED, seed])
    labelled: list[LabelledFile] = []
    for kind in sorted({file.defect_class for file in test if file.defect_class}):
        of_kind = [file for file in test if file.defect_class == kind]
        chosen = rng.permutation(len(of_kind))[:LABELS_PER_TYPE]
        labelled.extend(of_kind[i] for i in chosen)
    taken = {file.sha256 for file in labelled}
    return labelled, [file for file in test if file.sha256 not in taken]


def _label(file: LabelledFile, *, masks: bool) -> LabelledImage:
    mask = file.mask.read_bytes() if masks and file.mask else None
    sample = Sample(
        image_sha256=file.sha256,
        recipe=RECIPE,
        verdict=file.verdict,
        defect_class=file.defect_class,
        mask_sha256=hashlib.sha256(mask).hexdigest() if mask else None,
    )
    return LabelledImage(sample, file.image.read_bytes(), mask)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _line(figures: dict[str, Any]) -> str:
    shown = {k: v for k, v in figures.items() if isinstance(v, float | str)}
    return ", ".join(
        f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )
