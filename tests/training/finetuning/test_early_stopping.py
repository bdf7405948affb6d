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
from training.methods.train_context import HeldOut, PushPull, TrainContext

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


def test_real_defects_are_told_apart_better_the_longer_they_are_learned(cache, data):
    defective = tuple(file for file in data.test if file.verdict == "ng")
    found = validated(cache, data.train, defective)
    assert list(found.errors) == list(range(10, max(found.errors) + 1, 10))
    assert found.errors[found.steps] == min(found.errors.values()) < 1
    assert found.held_out == 10 + 5
    assert str(found).startswith(f"Labels are learned for {found.steps} of 150 steps")


def test_labels_that_say_nothing_are_not_learned_to_the_end(cache, data):
    """Good parts that somebody called defective, with marks where nothing is."""
    marks = [file.mask for file in data.test if file.mask]
    good, others = data.train[:26], data.train[26:]
    wrong = tuple(
        dataclasses.replace(file, verdict="ng", mask=mark)
        for file, mark in zip(others, marks, strict=True)
    )
    assert validated(cache, good, wrong).steps < STEPS


def test_how_long_a_network_is_pushed_is_chosen_too(data, backbone, tmp_path):
    network = method("adtr-small")
    source = feature_source(backbone, network.views, data.train, FitSettings("cap", size=64))
    cache = FeatureCache(tmp_path, source)
    good = data.train[:12]
    defective = tuple(file for file in data.test if file.verdict == "ng")
    cache.add(good + defective)
    context = TrainContext(good, cache, defective=defective, push_pull=PushPull(steps=15), steps=10)
    held = HeldOut(good[:4], defective[:6])
    network.learn(dataclasses.replace(context, held_out=held))
    (errors,) = held.errors
    assert list(errors) == list(range(1, max(errors) + 1))
    assert all(0 <= error < 1 for error in errors.values())


def test_a_few_labels_are_learned_without_holding_any_out(cache, data):
    defective = tuple(file for file in data.test if file.verdict == "ng")[:9]
    assert validated(cache, data.train, defective) is None
