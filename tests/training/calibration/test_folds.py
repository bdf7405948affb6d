import dataclasses

import numpy as np
import pytest

from training.calibration.folds import FOLDS, split_folds
from training.calibration.groups import group_parts, near_duplicates, two_kinds
from training.calibration.suspects import find_suspects
from training.data.folders import LabelledFile
from training.errors import TrainingError


def test_parts_of_one_group_share_a_fold_and_folds_are_even():
    groups = np.repeat(np.arange(80), np.arange(80) % 4 + 1)
    folds = split_folds(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(80))
    sizes = np.bincount(folds)
    assert len(sizes) == FOLDS
    assert sizes.max() - sizes.min() <= 4
    assert (split_folds(groups) == folds).all()


def test_there_are_no_more_folds_than_groups():
    assert len(set(split_folds(np.arange(10)))) == FOLDS
    assert len(set(split_folds(np.repeat(np.arange(3), 10)))) == 3


def test_shots_of_one_part_are_a_group():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(40, 64))
    shots = np.concatenate([parts, parts[:5] + 0.05 * rng.normal(size=(5, 64))])
    groups = near_duplicates(shots.astype(np.float32))
    assert len(set(groups)) == 40
    assert (groups[40:] == groups[:5]).all()


def test_different_parts_are_no_group():
    parts = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    assert len(set(near_duplicates(parts))) == 300


def test_copies_of_one_image_are_a_group():
    rounded = 100 + 1e-4 * np.random.default_rng(0).normal(size=(12, 64))
    assert set(near_duplicates(rounded.astype(np.float32))) == {0}


def test_two_products_are_two_kinds_and_one_is_not():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 64)), rng.normal(size=(20, 64)) + 5
    both = np.concatenate([one, other]).astype(np.float32)
    kinds = two_kinds(both)
    assert len(set(kinds[:60])) == len(set(kinds[60:])) == 1
    assert kinds[0] != kinds[-1]
    assert set(two_kinds(one.astype(np.float32))) == {0}
    odd = np.concatenate([one, other[:2]]).astype(np.float32)  # two odd parts are no product
    assert set(two_kinds(odd)) == {0}
    shots = (one[:8].repeat(6, 0) + 0.05 * rng.normal(size=(48, 64))).astype(np.float32)
    assert set(two_kinds(shots)) == {0}  # of eight parts


def test_all_parts_in_one_sub_folder_are_no_group(trained, dataset):
    files = [dataclasses.replace(file, group="lot-1") for file in dataset.train]
    assert len(set(group_parts(files, trained.cache).groups)) > 1


def test_shots_of_one_part_alone_are_refused(trained, dataset, monkeypatch):
    monkeypatch.setattr("training.calibration.groups.NEAR", 100.0)
    with pytest.raises(TrainingError, match="shots of the same part"):
        group_parts(dataset.train, trained.cache)


def test_a_part_unlike_the_others_is_a_suspect(tmp_path):
    scores = np.random.default_rng(0).gumbel(3.0, 0.3, 60).astype(np.float32)
    scores[7] = 20.0
    files = [LabelledFile(tmp_path / f"{number}.png", f"{number}", "ok") for number in range(60)]
    (first, *others) = find_suspects(files, scores)
    assert (first.file, first.sha256, first.score) == ("7.png", "7", 20.0)
    assert first.deviations > 10
    assert len(others) <= 2


def test_parts_alike_have_no_suspects(tmp_path):
    files = [LabelledFile(tmp_path / f"{number}.png", f"{number}", "ok") for number in range(30)]
    assert find_suspects(files, np.full(30, 2.0, np.float32)) == ()
