import numpy as np
import pytest
import torch

from training.backbones.features import FeatureCache
from training.calibration.cross_fit import CrossFit, cross_fit, measure
from training.calibration.folds import split_folds
from training.calibration.learning_curve import expected_ratio
from training.data.demo_product import write_demo
from training.data.folders import read_mvtec
from training.fitting.inputs import feature_source
from training.fitting.settings import FitSettings
from training.methods import branches
from training.methods.registry import METHODS, method
from training.methods.train_context import TrainContext

LEARNED, NEW = 48, 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "caps"
    write_demo(folder, seed=1, good=LEARNED, test_good=NEW, per_defect=0, size=96)
    return read_mvtec(folder)


@pytest.fixture(scope="module")
def context(data, backbone, tmp_path_factory):
    views = METHODS["quick"].views
    source = feature_source(backbone, views, data.train, FitSettings("cap", size=64))
    cache = FeatureCache(tmp_path_factory.mktemp("features"), source)
    cache.add(data.train + data.test)
    return TrainContext(data.train, cache)


def test_held_out_parts_are_as_far_as_new_ones_from_the_final_model(context, data):
    chosen, folds = method("quick"), split_folds(np.arange(LEARNED), 3)
    scorer, _ = chosen.learn(context)
    held, _ = cross_fit(chosen, context, data.train, folds)
    test = data.test
    new = CrossFit(test, measure(scorer, context, test), torch.zeros(len(test), 0))
    given, expected = (
        each.branch_scores(scorer.score).log().mean(1)
        for each in (held, held.scaled(expected_ratio(chosen, scorer, context, held, folds)))
    )
    final = new.branch_scores(scorer.score).log().mean(1)
    assert float((given - final).mean()) > 0.02
    assert abs(float((expected - final).mean())) < 0.5 * float((given - final).mean())


def test_parts_that_are_too_few_to_halve_change_nothing(context, data):
    chosen, files = method("quick"), data.train[:6]
    few = TrainContext(files, context.cache)
    folds = split_folds(np.arange(6))
    held, _ = cross_fit(chosen, few, files, folds)
    scorer, _ = chosen.learn(few)
    assert expected_ratio(chosen, scorer, few, held, folds).tolist() == [1.0] * len(chosen.branches)


def test_a_bank_that_a_folds_parts_fill_learns_nothing_more(context, data, monkeypatch):
    monkeypatch.setattr(branches, "BANK_BYTES", 2 * 10**5)
    chosen, folds = method("quick").only([0]), split_folds(np.arange(LEARNED), 3)
    scorer, _ = chosen.learn(context)
    assert scorer.branches[0].config.size <= LEARNED / 3  # half of what a fold learns
    held, _ = cross_fit(chosen, context, data.train, folds)
    assert expected_ratio(chosen, scorer, context, held, folds).tolist() == [1.0]
