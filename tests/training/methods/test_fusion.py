import numpy as np
import pytest
import torch
from torch import nn

from tests.said import Said
from training.backbones.features import FeatureCache
from training.calibration.cross_fit import cross_fit, measure
from training.calibration.folds import split_folds
from training.directories import Directories
from training.engine.checkpoint import dump_checkpoint, load_checkpoint
from training.fitting.fit import fit
from training.fitting.inputs import feature_source
from training.fitting.settings import FitSettings
from training.methods.fusion import (
    choose_branches,
    fit_fusion,
    only_branches,
    weigh_learned,
)
from training.methods.registry import METHODS, method
from training.methods.train_context import TrainContext
from training.networks.discriminator import Discriminator, DiscriminatorConfig
from training.networks.scorer import BranchInput, Fusion


@pytest.fixture(scope="module")
def context(dataset, backbone, tmp_path_factory):
    """All good parts, in the default's views."""
    settings = FitSettings("cap", size=64)
    source = feature_source(backbone, METHODS["quick"].views, dataset.train, settings)
    cache = FeatureCache(tmp_path_factory.mktemp("features"), source)
    cache.add(dataset.train)
    return TrainContext(dataset.train, cache)


@pytest.fixture(scope="module")
def crossed(context):
    return cross_fit(method("quick"), context, context.files, split_folds(np.arange(24)))[0]


@pytest.fixture
def scorer(context, crossed):
    scorer, _ = method("quick").learn(context)
    fit_fusion(scorer, crossed.branch_scores(scorer.score, scorer.roi_HW))
    return scorer


def test_every_part_is_measured_by_branches_that_did_not_learn_it(context, crossed, scorer):
    """A bank is no distance away from what it holds; held out, every part is some distance away."""
    learned = measure(scorer, context, context.files)
    assert crossed.distances.shape == learned.shape
    assert float(learned[0].float().mean()) < 0.1
    assert float(crossed.distances[0].float().mean()) > 1


def test_branches_are_fused_in_upper_deviations_of_good_parts(crossed, scorer):
    evidence = scorer.fusion.evidence(crossed.branch_scores(scorer.score, scorer.roi_HW))
    away = (evidence - scorer.fusion.centre_P[:, None]) / scorer.fusion.scale_P[:, None]
    assert away.median(1).values.tolist() == pytest.approx([0] * 5, abs=1e-5)
    assert away.quantile(0.9, dim=1).tolist() == pytest.approx([1.2816] * 5, abs=1e-3)


def test_what_one_branch_is_sure_of_counts_however_quiet_the_others_are():
    fusion = Fusion([False, False, True])
    quiet = torch.ones(3, 1, 2, 2)
    quiet[2] = -3.0
    loud = quiet.clone()
    loud[1, 0, 0, 0] = torch.e**8
    usual, found = fusion(quiet), fusion(loud)
    assert (usual >= 0).all()
    assert float(usual.max()) < 1
    assert float(found[0, 0, 0]) == pytest.approx(8 - np.log(3), abs=0.01)
    signed = quiet.clone()
    signed[2, 0, 1, 1] = 8.0
    assert float(fusion(signed)[0, 1, 1]) == pytest.approx(8 - np.log(3), abs=0.01)


class Noise(nn.Module):
    """Distances that say nothing."""

    def forward(self, features):
        return torch.rand(features.shape[0], *features.shape[2:])


@pytest.mark.parametrize("odd", [0, 2])
def test_noise_counts_little_and_a_family_that_harms_is_left_out(crossed, scorer, odd):
    """Of patches from anywhere, `odd` good parts look worse than any defect."""
    torch.manual_seed(0)
    good = crossed.distances.float()
    drawn = good.clone()
    drawn[:3, :, 3, 3] *= 3 if odd else 30
    drawn[3:, :, 3, 3] *= 5
    good[3:, :odd, 3, 3] *= 1000
    noise = torch.rand(1, *good.shape[1:]) ** -2  # the same on good parts and on drawn defects
    both = [torch.cat([each, noise]) for each in (good, drawn)]
    inputs = [*scorer.inputs, scorer.inputs[0]]
    noisy = type(scorer)(
        scorer.layout, list(scorer.standardise), list(scorer.whitenings),
        [*scorer.branches, Noise()], inputs, scorer.score,
    )  # fmt: skip
    fit_fusion(noisy, torch.stack([noisy.score.scores(each) for each in both[0]]))
    families = ["positions"] * 3 + ["anywhere"] * 2 + ["networks"]
    kept, numbers, told = choose_branches(noisy, *both, [*"abcde", "noise"], families)
    assert float(noisy.fusion.reliable_P.max()) == pytest.approx(1)
    assert float(noisy.fusion.reliable_P[5]) < 0.1
    assert len(kept.branches) == len(numbers)
    assert numbers == ([0, 1, 2, 5] if odd else [0, 1, 2, 3, 4, 5])
    assert ("Left out" in told) == bool(odd)


def test_a_scorer_of_some_branches_scores_by_these_alone(context, scorer):
    raw = context.cache.batch([file.sha256 for file in context.files[:2]])
    some = only_branches(scorer, [0, 2])
    assert len(some.whitenings) == 2
    torch.testing.assert_close(some.distances(raw), scorer.distances(raw)[[0, 2]])
    assert float(some.fusion.weight_P.sum()) == pytest.approx(1)
    loaded = load_checkpoint(dump_checkpoint(some))
    torch.testing.assert_close(loaded(raw), some(raw))


def test_a_discriminator_counts_by_its_share_and_speaks_against_the_others(context, scorer):
    discriminator = Discriminator(DiscriminatorConfig(scorer.layout.shapes[2][0]))
    grown = type(scorer)(
        scorer.layout, list(scorer.standardise), list(scorer.whitenings),
        [*scorer.branches, discriminator], [*scorer.inputs, BranchInput(2)], scorer.score,
    ).eval()  # fmt: skip
    weigh_learned(grown, 0.2)
    assert grown.fusion.weight_P.tolist() == pytest.approx([1 / 6] * 6)
    raw = context.cache.batch([context.files[0].sha256])
    loaded = load_checkpoint(dump_checkpoint(grown))
    torch.testing.assert_close(loaded(raw), grown(raw))

    def fused(logit):
        distances = torch.full((6, 1, 2, 2), torch.e**8)  # the others suspect all cells
        distances[5] = logit
        return float(grown.fusion(distances).mean())

    unknown, ruled_out = fused(0.0), fused(-5.0)
    assert 0.2 < unknown - ruled_out < 1
    weigh_learned(grown, 0.0)
    assert fused(0.0) == pytest.approx(fused(-5.0))


def test_a_fit_says_which_branches_it_has_and_why(dataset, backbone, tmp_path):
    reporter = Said()
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    fitted = fit(dataset, backbone, FitSettings("cap", size=64), directories, reporter=reporter)
    trained = fitted.trained
    assert len(trained.branches) == len(trained.scorer.branches) > 1
    (told,) = trained.choices
    assert all(name in told for name in trained.branches)
    assert told in reporter.lines
    assert told in (fitted.path / "report.html").read_text()
