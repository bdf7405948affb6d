import dataclasses
import hashlib

import numpy as np
import pytest

from models.bundle import CHECKPOINT, TRAINED_ON, open_bundle
from models.sample import LabelledImage, Sample, write_snapshot
from tests.said import Said
from training.data.folders import LabelledFile
from training.engine.checkpoint import load_checkpoint
from training.engine.distributed import Worker
from training.errors import TrainingError
from training.evaluation.scoring import evaluate, grid_mask, score_features
from training.finetuning.candidate import Learning, split_labels, train_candidate
from training.finetuning.retrain import RetrainSettings, retrain
from training.fitting.fit import fit
from training.fitting.settings import Directories, FitSettings
from training.methods.train_context import PushPull, learn_labels
from training.networks.discriminator import Discriminator
from training.progress import Reporter

QUICK = RetrainSettings(steps=100)


def learned_by(bundle):
    return bundle.read(TRAINED_ON).decode().split()


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


@pytest.mark.parametrize("masks", [True, False])
def test_labels_make_a_candidate_that_is_not_worse(bundle, dataset, tmp_path, masks):
    snapshot = write_snapshot(tmp_path / "snapshots", labelled(dataset.test, masks=masks))
    places = Directories(tmp_path / "store", tmp_path / "cache")
    settings = dataclasses.replace(QUICK, reject_by="f1" if masks else "rate")
    result = retrain(snapshot, bundle, places, settings, data=dataset)
    compared = [change.metric for change in result.comparison.changes]
    assert compared == (["image_auroc", "pixel_ap"] if masks else ["image_auroc"])
    assert str(result.comparison) in result.report.read_text()
    assert result.path is not None
    candidate = open_bundle(result.path)
    assert candidate.manifest.parent_version == 1
    knowing = load_checkpoint(candidate.read(CHECKPOINT)).parts[-1]
    assert isinstance(knowing, Discriminator)
    assert bool(knowing.config.hidden) == masks
    assert candidate.manifest.origin == "retrain"
    assert candidate.manifest.snapshot == snapshot.digest
    assert (candidate.manifest.calibration.f1 is not None) == masks
    compared = {file.sha256 for file in result.comparison.candidate.files}
    for opened in (bundle, candidate):
        assert not compared & set(opened.read(TRAINED_ON).decode().split())


def test_alphas_and_mix_are_chosen_on_labels_and_said(bundle, trained, dataset):
    scorer = load_checkpoint(bundle.read(CHECKPOINT))
    labels = split_labels((*dataset.train, *dataset.test), frozenset(learned_by(bundle)))
    trained.cache.add(dataset.train + dataset.test, lambda *_: None)
    reporter = Said()
    learning = Learning(steps=3, choose=True)
    found = train_candidate(scorer, trained.cache, labels, learning, reporter, Worker()).learning
    (line,) = [line for line in reporter.lines if line.startswith("Chosen on")]
    assert f"alpha {found.alpha_pixels:g} with masks" in line
    assert f"mix {found.mix:g}" in line
    assert found.alpha_pixels / found.alpha_images == pytest.approx(10)
    few = dataclasses.replace(labels, defective=labels.defective[:1])
    kept = train_candidate(scorer, trained.cache, few, learning, reporter, Worker()).learning
    assert kept == learning
    assert "Too few labels to choose by" in reporter.lines[-1]


def test_what_only_remembers_learns_to_know_defects(dataset, backbone, tmp_path):
    places = Directories(tmp_path / "store", tmp_path / "cache")
    fitted = fit(dataset, backbone, FitSettings("cap", "knn", size=64, grid=4), places)
    champion, cache = fitted.trained.scorer, fitted.trained.cache
    seen = frozenset(learned_by(open_bundle(fitted.path)))
    labels = split_labels((*dataset.train, *dataset.test), seen)
    candidate = train_candidate(champion, cache, labels, Learning(), Reporter(), Worker())
    files = (*labels.normals, *labels.defective)

    def auroc(scorer):
        found = evaluate(score_features(scorer, cache, files), cache.source.size)
        return found.metrics["image_auroc"]

    assert auroc(candidate.scorer) > auroc(champion)


@pytest.mark.parametrize("masks", [True, False])
def test_learned_defects_stand_out(trained, bundle, dataset, masks):
    scorer = load_checkpoint(bundle.read(CHECKPOINT))
    defective = tuple(f for f in dataset.test if f.verdict == "ng")
    if not masks:
        defective = tuple(dataclasses.replace(f, mask=None) for f in defective)
    learned = [f for f in dataset.train if f.sha256 in bundle.read(TRAINED_ON).decode()]

    def contrast():
        """How far the lowest defective score lies from the mean good one, in good deviations."""
        files = (*learned, *defective)
        found = evaluate(score_features(scorer, trained.cache, files), trained.cache.source.size)
        good = found.scores[~found.anomalous]
        return (found.scores[found.anomalous].min() - good.mean()) / good.std()

    before = contrast()
    learn_labels(
        scorer, trained.cache, learned, defective, PushPull(steps=150), Reporter(), Worker()
    )
    assert contrast() > max(2 * before, 3)


def test_a_worse_candidate_is_not_written(bundle, dataset, tmp_path):
    snapshot = write_snapshot(tmp_path / "snapshots", labelled(dataset.test, masks=True))
    places = Directories(tmp_path / "store", tmp_path / "cache")
    ruined = RetrainSettings(steps=40, alpha_pixels=-50.0, learning_rate=5e-2)
    result = retrain(snapshot, bundle, places, ruined, data=dataset)
    assert result.path is None
    assert "fell from" in str(result.comparison)
    assert str(result.comparison) in result.report.read_text()
    assert "No candidate was written" in result.report.read_text()
    assert not (tmp_path / "store" / "cap" / "1").exists()


def file(name, verdict="ok", kind=None):
    return LabelledFile(None, name, verdict, kind)


def test_every_kind_is_held_out_among_what_the_champion_has_not_seen():
    files = tuple(file(f"g{i:02}") for i in range(20))
    files += tuple(file(f"d{i}", "ng", "dent") for i in range(5))
    files += tuple(file(f"s{i}", "ng", "scratch") for i in range(11))
    seen = frozenset(f"g{i:02}" for i in range(13)) | {"d0", "d1"}
    labels = split_labels(files, seen)
    held = {f.sha256 for f in labels.held_out}
    assert held == {"g13", "g14", "g15", "g16", "g17", "d2", "s0", "s1", "s10"}
    assert not held & seen
    assert len(labels.good) + len(labels.defective) + len(held) == len(files)


def test_of_kinds_with_one_label_each_a_fifth_of_all_is_held_out():
    files = (*(file(f"g{i:02}") for i in range(20)), *(file(f"d{i}", "ng", f"k{i}") for i in "123"))
    labels = split_labels(files, frozenset())
    assert [f.sha256 for f in labels.held_out if f.verdict == "ng"] == ["d1"]
    assert [f.sha256 for f in labels.defective] == ["d2", "d3"]


GOOD, BAD = [file(f"g{i}") for i in range(20)], [file(f"d{i}", "ng") for i in range(9)]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (BAD, "0 good parts to train on"),
        (GOOD, "0 defective parts to train on"),
        (GOOD[:9] + BAD, "4 good parts that the champion has not seen"),
        (GOOD + BAD[:1], "0 defective parts that the champion has not seen"),
    ],
)
def test_too_few_labels_are_said(files, says):
    with pytest.raises(TrainingError, match=says):
        split_labels(tuple(files), frozenset())


def test_labels_of_another_recipe_are_refused(bundle, dataset, tmp_path):
    sample = Sample(image_sha256=dataset.test[0].sha256, recipe="lid", verdict="ok")
    snapshot = write_snapshot(
        tmp_path / "s", [LabelledImage(sample, dataset.test[0].image.read_bytes())]
    )
    with pytest.raises(TrainingError, match="lid"):
        retrain(snapshot, bundle, Directories(tmp_path / "b", tmp_path / "c"))


def test_the_smallest_defect_marks_its_cell(tmp_path):
    from models.image import encode_png

    mask = np.zeros((100, 60), np.uint8)
    mask[99, 0] = 255
    path = tmp_path / "m.png"
    path.write_bytes(encode_png(mask))
    cells = grid_mask(path, 4, 4)
    assert cells[3, 0]
    assert cells.sum() == 1
