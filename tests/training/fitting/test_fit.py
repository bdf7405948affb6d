import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from models.bundle import (
    CHECKPOINT,
    GOLDEN,
    MODEL,
    REPORT,
    SIGNATURE,
    open_bundle,
)
from models.errors import BundleError
from models.golden import Golden
from models.session import open_session
from models.signature import Signer, Trust
from tests.interrupting import InterruptingReporter
from tests.keys import write_keys
from training.cli.main import app
from training.data.folders import read_mvtec
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.errors import TrainingError
from training.evaluation.scoring import score_features, score_images
from training.finetuning.retrain import champion_source
from training.fitting.fit import fit
from training.fitting.settings import FitSettings
from training.fitting.training import train_recipe
from training.reporting.examples import pictures

SMALL = FitSettings(recipe="cap", preset="adtr-small", size=64, grid=4, steps=12)
BRIEF = dataclasses.replace(SMALL, preset="padim")  # no network to train and to export


def test_a_bundle_holds_what_its_contract_says(fitted, bundle, dataset):
    model = onnx.load_from_string(bundle.read(MODEL))
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in model.graph.output] == ["score", "heatmap"]
    assert bundle.manifest.calibration.count == len(dataset.train)
    assert bundle.manifest.calibration.groups == len(dataset.train)
    assert len(bundle.manifest.calibration.quantiles) == 101
    assert bundle.manifest.backbone.licence == "Apache-2.0"
    assert set(bundle.manifest.metrics) >= {"image_auroc", "pixel_auroc"}
    report = bundle.read(REPORT).decode()
    assert "://" not in report  # which no picture in base64 can hold
    assert report.count("data:image/png;base64,") >= 5
    here = str(Path(__file__).parent.parent.parent.parent).encode()
    assert not any(here in file.read_bytes() for file in bundle.path.iterdir())


@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch_size_scores_the_same(bundle, batch):
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    session = open_session(bundle.read(MODEL))
    scores, heatmaps = session.run(["score", "heatmap"], {"image": golden.images[:batch]})
    cut = Golden(golden.images[:batch], golden.scores[:batch], golden.heatmaps[:batch])
    assert cut.disagreement(scores, heatmaps) is None


def test_served_scores_equal_the_trained_networks(trained, bundle, dataset):
    session = open_session(bundle.read(MODEL))
    served = list(score_images(session, champion_source(bundle), dataset.test))
    before = list(score_features(trained.scorer, trained.cache, dataset.test))
    for (_, a, heat_a), (_, b, heat_b) in zip(served, before, strict=True):
        # Cached features are of half precision, served ones are not.
        assert a == pytest.approx(b, rel=1e-2)
        assert heat_a == pytest.approx(heat_b, rel=2e-2, abs=2e-2)


def test_the_checkpoint_is_the_served_network(trained, bundle, dataset):
    scorer = load_checkpoint(bundle.read(CHECKPOINT))
    before = [score for _, score, _ in score_features(trained.scorer, trained.cache, dataset.test)]
    after = [score for _, score, _ in score_features(scorer, trained.cache, dataset.test)]
    assert before == after


def test_the_command_finds_on_a_folder_what_the_fit_did(bundle, dataset, tmp_path):
    file = tmp_path / "figures.json"
    done = CliRunner().invoke(
        app, ["evaluate", str(dataset.root), "--bundle", str(bundle.path), "--json", str(file)]
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures == json.loads(file.read_text())
    assert figures["images"] == len(dataset.test)
    assert set(figures["verdicts"]) == {"good", "defective"}
    counted = [v[name] for v in figures["verdicts"].values() for name in ("ok", "review", "ng")]
    assert sum(counted) == len(dataset.test)
    for name, value in bundle.manifest.metrics.items():
        assert figures[name] == pytest.approx(value, abs=1e-2)


def test_all_good_parts_are_learned_and_scored_by_models_that_did_not(fitted, bundle, dataset):
    learned = bundle.learned()
    assert set(learned) == {file.sha256 for file in dataset.train}
    assert sorted(learned.values()) == pytest.approx(sorted(fitted.trained.scores))
    assert max(learned.values()) == pytest.approx(bundle.manifest.calibration.quantiles[-1])


def test_the_report_shows_parts_as_models_see_them_that_did_not_learn_them(fitted):
    """By the final model, which knows them all, every good part scores next to nothing."""
    trained = fitted.trained
    hardest = trained.calibrated[int(trained.scores.argmax())]
    (shown,) = pictures(trained.scorer, trained.cache, [hardest], 0, 1, [trained.cross])
    assert shown.score == pytest.approx(float(trained.scores.max()), abs=1e-4)
    assert f"good · {shown.score:.2f}" in (fitted.path / "report.html").read_text()


def test_whoever_has_a_key_vouches_for_what_is_fitted(dataset, backbone, tmp_path):
    signing, trusted = write_keys(tmp_path / "signing.pem", tmp_path / "trusted.pem")
    places = Directories(tmp_path / "s", tmp_path / "c", Signer(signing))
    bundle = open_bundle(fit(dataset, backbone, BRIEF, places).path)
    Trust.of(trusted).check(bundle)
    (bundle.path / SIGNATURE).unlink()
    with pytest.raises(BundleError, match="not signed"):
        Trust.of(trusted).check(bundle)
    done = CliRunner().invoke(app, ["sign", str(bundle.path), "--signing-key", str(signing)])
    assert bundle.digest in done.stdout
    Trust.of(trusted).check(bundle)


def test_test_images_decide_nothing(dataset, backbone, fitted, bundle, tmp_path):
    alone = dataclasses.replace(dataset, test=())
    again = fit(
        alone,
        backbone,
        FitSettings(recipe="cap", size=64),
        Directories(tmp_path / "s", tmp_path / "c"),
    )
    manifest = open_bundle(again.path).manifest
    assert manifest.thresholds == bundle.manifest.thresholds
    assert manifest.metrics == {}


def test_an_interrupted_fit_resumes_to_the_same_model(dataset, backbone, tmp_path):
    whole = train_recipe(dataset, backbone, SMALL, Directories(tmp_path / "a", tmp_path / "c"))
    places = Directories(tmp_path / "b", tmp_path / "c")
    stale = places.training("cap") / "checkpoint-9-9.pt"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier fit")
    with pytest.raises(KeyboardInterrupt):
        fit(dataset, backbone, SMALL, places, reporter=InterruptingReporter(5))
    assert not (tmp_path / "b" / "cap" / "1").exists()
    assert not stale.exists()
    reporter = InterruptingReporter(-1)
    resumed = fit(dataset, backbone, SMALL, places, resume=True, reporter=reporter)
    assert reporter.steps == list(range(7, 13))  # folds train without a bar of their own
    assert not list(places.training("cap").iterdir())
    np.testing.assert_array_equal(whole.test.scores, resumed.trained.test.scores)
    np.testing.assert_array_equal(whole.scores, resumed.trained.scores)


def test_versions_count_up(dataset, backbone, tmp_path):
    places = Directories(tmp_path / "s", tmp_path / "c")
    assert fit(dataset, backbone, BRIEF, places).path.name == "1"
    assert fit(dataset, backbone, BRIEF, places).path.name == "2"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"recipe": "../x"}, BundleError, "not a recipe name"),
        ({"grid": 5}, TrainingError, "does not divide"),
        ({"stages": ("stage9",)}, TrainingError, "no stage stage9"),
        ({"size": 68, "grid": 17}, TrainingError, "no multiple of a stage"),
    ],
)
def test_wrong_settings_are_said_and_nothing_is_written(
    dataset, backbone, tmp_path, change, error, says
):
    with pytest.raises(error, match=says):
        fit(
            dataset,
            backbone,
            dataclasses.replace(SMALL, **change),
            Directories(tmp_path / "s", tmp_path / "c"),
        )
    assert not (tmp_path / "s").exists()


def test_few_good_parts_are_not_enough(product, backbone, tmp_path):
    good = tmp_path / "few" / "train" / "good"
    good.mkdir(parents=True)
    for number in range(9):
        image = product / "train" / "good" / f"00{number}.jpg"
        (good / image.name).write_bytes(image.read_bytes())
    with pytest.raises(TrainingError, match="9 good parts are too few"):
        fit(
            read_mvtec(tmp_path / "few"),
            backbone,
            SMALL,
            Directories(tmp_path / "s", tmp_path / "c"),
        )
