import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import CHECKPOINT, open_bundle
from models.image import encode_png
from models.sample import LabelledImage, Sample, write_snapshot
from tests.interrupting import InterruptingReporter
from tests.said import Said
from training.backbones.features import FeatureCache
from training.data.demo_product import write_demo
from training.data.folders import read_mvtec
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.engine.distributed import Worker
from training.errors import DatasetError, TrainingError
from training.evaluation.scoring import evaluate, grid_mask, score_features
from training.finetuning.candidate import Labels, Learning, train_candidate
from training.finetuning.retrain import (
    RetrainSettings,
    champion_method,
    champion_source,
    retrain,
)
from training.fitting.fit import fit
from training.fitting.settings import FitSettings
from training.methods.train_context import PushPull, TrainContext
from training.networks.discriminator import Discriminator
from training.progress import Reporter

QUICK = RetrainSettings(steps=100)


def labelled(files, *, masks):
    for file in files:
        mask = file.mask.read_bytes() if masks and file.mask else None
        sample = Sample(
            image_sha256=file.sha256,
            recipe="cap",
            verdict=file.verdict,
            defect_class=file.defect_class,
            mask_sha256=hashlib.sha256(mask).hexdigest() if mask else None,
        )
        yield LabelledImage(sample, file.image.read_bytes(), mask)


@pytest.fixture(scope="module")
def retrained(bundle, dataset, tmp_path_factory):
    """What the bundle becomes by labels with masks or without, each made once."""

    @functools.cache
    def learn(masks):
        root = tmp_path_factory.mktemp("retrained")
        snapshot = write_snapshot(root / "snapshots", labelled(dataset.test, masks=masks))
        settings = dataclasses.replace(QUICK, reject_by="f1" if masks else "rate")
        places = Directories(root / "store", root / "cache")
        return snapshot, retrain(snapshot, bundle, places, settings, data=dataset)

    return learn


@pytest.mark.parametrize("masks", [True, False])
def test_labels_make_a_candidate_that_is_not_worse(retrained, dataset, masks):
    snapshot, result = retrained(masks)
    compared = [change.metric for change in result.comparison.changes]
    assert compared == (["image_auroc", "pixel_ap"] if masks else ["image_auroc"])
    assert str(result.comparison) in result.report.read_text()
    assert result.path is not None
    candidate = open_bundle(result.path)
    assert candidate.manifest.parent_version == 1
    discriminator = load_checkpoint(candidate.read(CHECKPOINT)).branches[-1]
    assert isinstance(discriminator, Discriminator)
    assert bool(discriminator.config.hidden) == masks
    assert candidate.manifest.origin == "retrain"
    assert candidate.manifest.snapshot == snapshot.digest
    assert (candidate.manifest.calibration.f1 is not None) == masks
    compared = {file.sha256 for file in result.comparison.candidate.files}
    every = {file.sha256 for file in (*dataset.train, *dataset.test)}
    assert compared == every  # each by models that did not learn it
    assert set(candidate.learned()) == every


def _labels(dataset, defective=None):
    good = (*dataset.train, *(file for file in dataset.test if file.verdict == "ok"))
    bad = tuple(file for file in dataset.test if file.verdict == "ng")
    return Labels(
        good, bad if defective is None else defective,
        frozenset(file.sha256 for file in dataset.train),
    )  # fmt: skip


def _candidate(bundle, cache, labels, drawings=Path("unused"), **learning):
    return train_candidate(
        load_checkpoint(bundle.read(CHECKPOINT)), bundle.learned(), champion_method(bundle), cache,
        labels, Learning(**learning), Reporter(), Worker(), drawings,
    )  # fmt: skip


def test_a_memory_learns_to_know_defects(backbone, tmp_path):
    write_demo(tmp_path / "cap", seed=1, good=24, test_good=4, per_defect=6, size=96)
    data = read_mvtec(tmp_path / "cap")
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    fitted = fit(data, backbone, FitSettings("cap", "knn", size=64, grid=4), directories)
    candidate = _candidate(open_bundle(fitted.path), fitted.trained.cache, _labels(data), steps=100)
    comparison = candidate.comparison
    before, after = comparison.champion.metrics, comparison.candidate.metrics
    assert after["image_auroc"] > before["image_auroc"] + 0.02


def test_parts_that_people_called_ok_are_learned(dataset, backbone, tmp_path):
    """A part of another lot, seen as unlike the others, is no longer so once it was learned."""
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    alone = dataclasses.replace(dataset, train=dataset.train[:20])
    settings = FitSettings("cap", "positional-knn", size=64, grid=4)
    bundle = open_bundle(fit(alone, backbone, settings, directories).path)
    new = dataset.train[20:]
    source = champion_source(bundle)
    cache = FeatureCache(directories.cache, source)
    cache.add((*dataset.train, *dataset.test))
    candidate = _candidate(bundle, cache, _labels(dataset), steps=20)
    champion = load_checkpoint(bundle.read(CHECKPOINT))

    def distance(scorer):
        with torch.no_grad():
            return float(scorer.distances(cache.batch([file.sha256 for file in new]))[0].mean())

    assert distance(candidate.scorer) < 0.2 * distance(champion)


def test_without_the_first_good_parts_the_memory_grows(dataset, backbone, tmp_path):
    """What the champion knows stays known, though its parts are not at hand."""
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    alone = dataclasses.replace(dataset, train=dataset.train[:12])
    settings = FitSettings("cap", "positional-knn", size=64, grid=4)
    bundle = open_bundle(fit(alone, backbone, settings, directories).path)
    cache = FeatureCache(directories.cache, champion_source(bundle))
    cache.add((*dataset.train, *dataset.test))
    new = dataset.train[12:]
    bad = tuple(file for file in dataset.test if file.verdict == "ng")
    candidate = _candidate(bundle, cache, Labels(new, bad, frozenset()), steps=20)
    for files in (dataset.train[:12], new):
        features = cache.batch([file.sha256 for file in files])
        with torch.no_grad():
            assert float(candidate.scorer.distances(features)[0].mean()) < 0.2


def test_what_a_growing_memory_holds_already_is_not_measured_by_it(dataset, backbone, tmp_path):
    """Held out of no fold, it would be no distance away, and thresholds far too low."""
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    settings = FitSettings("cap", "positional-knn", size=64, grid=4)
    first = dataclasses.replace(dataset, train=dataset.train[:12])
    bundle = open_bundle(fit(first, backbone, settings, directories).path)
    cache = FeatureCache(directories.cache, champion_source(bundle))
    cache.add((*dataset.train, *dataset.test))
    bad = tuple(file for file in dataset.test if file.verdict == "ng")
    known, new = dataset.train[8:12], dataset.train[12:]
    candidate = _candidate(bundle, cache, Labels((*known, *new), bad, frozenset()), steps=20)
    assert {file.sha256 for file in candidate.good.files} == {file.sha256 for file in new}


@pytest.mark.parametrize("masks", [True, False])
def test_a_network_rebuilds_learned_defects_worse(with_network, dataset, masks):
    bundle, trained = open_bundle(with_network.path), with_network.trained
    champion = load_checkpoint(bundle.read(CHECKPOINT))
    defective = tuple(f for f in dataset.test if f.verdict == "ng")
    if not masks:
        defective = tuple(dataclasses.replace(f, mask=None) for f in defective)
    context = TrainContext(
        dataset.train, trained.cache, defective=defective, push_pull=PushPull(steps=150),
        start=champion,
    )  # fmt: skip
    learned, _ = champion_method(bundle).learn(context)

    def contrast(scorer):
        """How far the lowest defective score lies from the mean good one, in good deviations."""
        files = (*dataset.train, *defective)
        found = evaluate(score_features(scorer, trained.cache, files), trained.cache.source.size)
        good = found.scores[~found.anomalous]
        return (found.scores[found.anomalous].min() - good.mean()) / good.std()

    assert contrast(learned) > max(2 * contrast(champion), 3)


@pytest.fixture(scope="module")
def learn_briefly(with_network, dataset, tmp_path_factory):
    """Retrain with the store in a folder that is given."""
    bundle, root = open_bundle(with_network.path), tmp_path_factory.mktemp("briefly")
    snapshot = write_snapshot(root / "snapshots", labelled(dataset.test, masks=True))
    settings = RetrainSettings(steps=10, network_steps=10, reject_by="rate")

    def learn(store, **more):
        places = Directories(store, root / "cache")
        return retrain(snapshot, bundle, places, settings, data=dataset, **more)

    return learn


@pytest.fixture(scope="module")
def learned_at_once(learn_briefly, tmp_path_factory):
    return learn_briefly(tmp_path_factory.mktemp("at-once"))


@pytest.mark.parametrize(("title", "at"), [("Learning from labels", 5), ("Cross-fitting", 1)])
def test_an_interrupted_retraining_goes_on_to_the_same_model(
    learn_briefly, learned_at_once, tmp_path, title, at
):
    checkpoints = Directories(tmp_path, tmp_path).training("cap")
    stale = checkpoints / "checkpoint-9-9.pt"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier training")
    with pytest.raises(KeyboardInterrupt):
        learn_briefly(tmp_path, reporter=InterruptingReporter(at, title))
    kept = {path.name for path in tmp_path.rglob("checkpoint-*")}
    assert "checkpoint-0.pt" in kept and stale.name not in kept
    of_first_fold = "checkpoint-0-0-known-defects.pt"
    assert (of_first_fold in kept) == (title == "Cross-fitting")
    again = InterruptingReporter(-1, "Training")
    resumed = learn_briefly(tmp_path, resume=True, reporter=again)
    assert again.steps == []  # what was learned from good parts before is not learned again
    assert not list(checkpoints.glob("checkpoint-*"))
    both = [each.comparison.candidate.scores for each in (learned_at_once, resumed)]
    np.testing.assert_array_equal(*both)


def test_a_worse_candidate_is_not_written(with_network, dataset, tmp_path):
    bundle = open_bundle(with_network.path)
    snapshot = write_snapshot(tmp_path / "snapshots", labelled(dataset.test, masks=True))
    places = Directories(tmp_path / "store", tmp_path / "cache")
    ruined = RetrainSettings(steps=40, network_steps=30, alpha_pixels=-50.0, learning_rate=5e-2)
    result = retrain(snapshot, bundle, places, ruined, data=dataset)
    assert result.path is None
    assert "fell from" in str(result.comparison)
    assert str(result.comparison) in result.report.read_text()
    assert "No candidate was written" in result.report.read_text()
    assert not (tmp_path / "store" / "cap" / "1").exists()


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        # The champion's memory holds these nine: they cannot be held out of it.
        (9, 6, "0 good parts that can be held out, and 10 are needed"),
    ],
)
def test_too_few_labels_are_named(bundle, trained, dataset, good, bad, says):
    labels = Labels(
        dataset.train[:good], tuple(f for f in dataset.test if f.verdict == "ng")[:bad], frozenset()
    )
    with pytest.raises(TrainingError, match=says):
        _candidate(bundle, trained.cache, labels)


def test_confirmed_false_alarms_alone_are_learned(dataset, backbone, tmp_path):
    """Nobody has labelled a defect: the two are compared on drawn ones, which nobody learns."""
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    alone = dataclasses.replace(dataset, train=dataset.train[:14])
    champion = open_bundle(fit(alone, backbone, FitSettings("cap", size=64), directories).path)
    new = dataset.train[14:]
    snapshot = write_snapshot(tmp_path / "snapshots", labelled(new, masks=False))
    result = retrain(snapshot, champion, directories, data=alone)
    assert result.path is not None, str(result.comparison)
    assert "Too few defects are labelled" in str(result.comparison)
    candidate = open_bundle(result.path)
    assert set(candidate.learned()) == {file.sha256 for file in dataset.train}
    assert candidate.manifest.metrics == {}  # of labelled defects, of which there are none
    before, after = (load_checkpoint(each.read(CHECKPOINT)) for each in (champion, candidate))
    assert len(set(before.fusion.reliable_P.tolist())) > 1
    torch.testing.assert_close(after.fusion.reliable_P, before.fusion.reliable_P)
    assert not any(name.startswith("known-defects") for name in candidate.manifest.branches)
    by_f1 = dataclasses.replace(QUICK, reject_by="f1")
    with pytest.raises(TrainingError, match="F1 needs labelled defects, and 0 of 2"):
        retrain(snapshot, champion, directories, by_f1, data=alone)


def test_thresholds_are_of_the_recipes_areas_and_the_bundle_sees_all(
    retrained, bundle, dataset, tmp_path
):
    snapshot, result = retrained(False)
    areas = tmp_path / "areas.png"
    counts = np.zeros((64, 64), np.uint8)
    counts[:, :20] = 255  # beside the part, where next to nothing varies
    areas.write_bytes(encode_png(counts))
    places, said = Directories(tmp_path / "store", tmp_path / "cache"), Said()
    given = (snapshot, bundle, places, QUICK)
    inside = retrain(*given, data=dataset, reporter=said, areas=areas)
    assert result.path is not None and inside.path is not None
    whole, left = open_bundle(result.path), open_bundle(inside.path)
    of_whole, of_left = (load_checkpoint(each.read(CHECKPOINT)) for each in (whole, left))
    assert left.manifest.thresholds.review < 0.8 * whole.manifest.thresholds.review
    assert any("Thresholds are of the recipe's areas, 38% of the image" in s for s in said.lines)
    torch.testing.assert_close(of_left.roi_HW, torch.ones_like(of_left.roi_HW))
    torch.testing.assert_close(of_left.fusion.centre_P, of_whole.fusion.centre_P)
    areas.write_bytes(encode_png(np.zeros((64, 64), np.uint8)))
    with pytest.raises(DatasetError, match="leaves nothing to inspect"):
        retrain(*given, data=dataset, areas=areas)


def test_labels_of_another_recipe_are_refused(bundle, dataset, tmp_path):
    sample = Sample(image_sha256=dataset.test[0].sha256, recipe="lid", verdict="ok")
    snapshot = write_snapshot(
        tmp_path / "s", [LabelledImage(sample, dataset.test[0].image.read_bytes())]
    )
    with pytest.raises(TrainingError, match="lid"):
        retrain(snapshot, bundle, Directories(tmp_path / "b", tmp_path / "c"))


def test_the_smallest_defect_marks_its_cell():
    mask = np.zeros((100, 60), np.bool_)
    mask[99, 0] = True
    cells = grid_mask(mask, 4, 4)
    assert cells[3, 0]
    assert cells.sum() == 1
