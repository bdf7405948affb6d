"""How long labels are learned."""

import dataclasses

import numpy as np
import pytest

from training.backbones.features import FeatureCache
from training.calibration.folds import split_folds
from training.data.demo_product import write_demo
from training.data.folders import read_mvtec
from training.finetuning.early_stopping import validate_steps
from training.fitting.inputs import feature_source
from training.fitting.settings import FitSettings
from training.methods.registry import METHODS, method
from training.methods.train_context import PushPull, TrainContext

STEPS = 150


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "caps"
    write_demo(folder, seed=2, good=50, test_good=2, per_defect=8, size=96)
    return read_mvtec(folder)


@pytest.fixture(scope="module")
def cache(data, backbone, tmp_path_factory):
    views = METHODS["quick"].views
    source = feature_source(backbone, views, data.train, FitSettings("cap", size=64))
    cache = FeatureCache(tmp_path_factory.mktemp("features"), source)
    cache.add(data.train + data.test)
    return cache


def validated(cache, good, defective):
    context = TrainContext(good, cache, defective=defective, push_pull=PushPull(steps=STEPS))
    known = method("quick").with_defects()
    folds = [split_folds(np.arange(len(files))) for files in (good, defective)]
    return validate_steps(known, context, (good, folds[0]), (defective, folds[1]))


def test_real_defects_are_learned_longer_than_labels_that_say_nothing(cache, data):
    """Good parts that somebody called defective differ from others in nothing that can be learned
    of them."""
    good, called_defective = data.train[:30], data.train[30:]
    wrong = tuple(dataclasses.replace(file, verdict="ng") for file in called_defective)
    defective = tuple(
        dataclasses.replace(file, mask=None) for file in data.test if file.verdict == "ng"
    )
    of_wrong = validated(cache, good, wrong)
    of_defects = validated(cache, good, defective)
    print(of_wrong, of_wrong.losses, of_defects, of_defects.losses)
    assert of_wrong.steps < of_wrong.at_most / 2
    assert "falls no more" in str(of_wrong)
    assert of_defects.steps > of_wrong.steps
    assert of_defects.losses[of_defects.steps] < 0.8 < min(of_wrong.losses.values())


def test_a_few_labels_are_learned_without_holding_any_out(cache, data):
    defective = tuple(file for file in data.test if file.verdict == "ng")[:9]
    assert validated(cache, data.train, defective) is None
