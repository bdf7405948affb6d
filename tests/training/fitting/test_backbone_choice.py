"""Backbones tried on the same good parts and the same drawn defects."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.backbone import open_backbone
from models.bundle import open_bundle
from training.backbones.sources import pretrained_backbone
from training.backbones.wheels import at_hand
from training.cli.main import app
from training.directories import Directories
from training.fitting.backbone_choice import BackboneChoice, TriedBackbone, try_backbones
from training.fitting.settings import FitSettings
from training.networks.residual import ResidualNetwork


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A directory with a backbone that has learned nothing."""
    root = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    pretrained_backbone(ResidualNetwork().eval(), root, name="random", origin="a test")
    return root


def tried(backbone, milliseconds, shift):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 60), rng.normal(shift, 1, 60)]).astype(np.float32)
    return TriedBackbone(backbone, scores, np.arange(120) >= 60, {}, milliseconds)


def named(backbone, name):
    manifest = backbone.manifest.model_copy(update={"name": name})
    return replace(backbone, manifest=manifest)


def test_the_fastest_of_those_that_are_as_good_is_recommended(backbone):
    good = tried(named(backbone, "good"), 40.0, 3.0)
    same = tried(named(backbone, "same"), 20.0, 2.98)
    poor = tried(named(backbone, "poor"), 5.0, 1.0)
    choice = BackboneChoice((good, same, poor))
    assert choice.best.name == "same"
    assert "good 98" in str(choice) and "poor 7" in str(choice)
    assert BackboneChoice((good, poor)).best.name == "good"
    assert BackboneChoice((good, poor), budget_ms=30).best.name == "poor"
    none_within = BackboneChoice((good, poor), budget_ms=1)
    assert str(none_within).endswith("None keeps to 1 ms; the fastest is poor.")


def test_backbones_are_tried_on_the_same_drawings_whatever_the_test_images(
    dataset, backbone, own, tmp_path
):
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    several = [backbone, open_backbone(own / "random")]
    choice = try_backbones(
        replace(dataset, test=()), several, FitSettings("cap", size=64), directories
    )
    first, second, both = choice.tried
    assert sorted(both.name.split("+")) == ["procedural", "random"]
    assert (both.scores != first.scores).any() and (both.scores != second.scores).any()
    assert (first.anomalous == second.anomalous).all() and first.anomalous.sum() == 48
    assert (first.scores != second.scores).any()
    assert first.milliseconds > 0 and not first.test
    again = try_backbones(
        dataset, several, FitSettings("cap", "knn", size=64, anomalies=("confetti",)), directories
    )  # by the default method, whatever will be learned
    np.testing.assert_array_equal(again.tried[0].scores, first.scores)


def test_what_is_at_hand_leaves_out_what_has_only_seen_drawings(own):
    assert "random" in at_hand((own,)) and "procedural" not in at_hand((own,))


def test_a_fit_chooses_among_the_backbones_at_hand_and_reports_it(
    product, own, tmp_path, monkeypatch
):
    monkeypatch.setattr("training.cli.fit.at_hand", lambda roots: ["procedural", "random"])
    result = CliRunner().invoke(
        app,
        ["fit", str(product), "--recipe", "cap", "--size", "64",
         "--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"),
         "--backbones", str(own)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    bundle = open_bundle(tmp_path / "store" / "cap" / "1")
    assert set(bundle.manifest.backbone.name.split("+")) <= {"procedural", "random"}
    report = (bundle.path / "report.html").read_text()
    assert "The fastest of those as good as the best is" in report


def test_the_command_compares_and_recommends(product, own, tmp_path):
    file = tmp_path / "scores.json"
    result = CliRunner().invoke(
        app,
        ["backbone", "score", str(product), "--backbone", "procedural", "--backbone", "random",
         "--size", "64", "--cache", str(tmp_path / "cache"), "--backbones", str(own),
         "--json", str(file)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert {"procedural", "random"} < set(figures) and len(figures) == 3
    assert 0 <= figures["random"]["drawn_image_auroc"] <= 1
    assert "image_auroc" in figures["random"]  # of the test images, reported
    assert "Recommended: " in result.output
