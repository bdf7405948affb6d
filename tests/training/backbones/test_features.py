import dataclasses
import os
import shutil

import numpy as np
import onnx
import pytest
import torch

from models.image import InputSize, PixelContract
from models.session import open_session
from training.backbones.feature_graph import feature_graph, fold_normalisation
from training.backbones.features import FeatureCache, FeatureSource
from training.backbones.views import FeatureView
from training.data.folders import read_mvtec
from training.errors import DatasetError
from training.finetuning.retrain import champion_source
from training.methods.train_context import TrainContext
from training.networks.layout import FeatureLayout


def source(backbone, cell=16):
    view = FeatureView("all", backbone.manifest.stages, cell)
    return FeatureSource(
        feature_graph(backbone, [view]),
        InputSize(height=64, width=64),
        PixelContract(),
        FeatureLayout(((view.channels, 64 // cell, 64 // cell),)),
    )


def test_stages_are_averaged_or_interpolated_onto_one_grid(backbone):
    given = source(backbone, cell=8)
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    flat = open_session(given.graph).run(None, {"image": image})[0]
    features = given.layout.map(torch.from_numpy(flat), 0).numpy()
    raw = open_session(backbone.model).run(
        None, {"pixels": (image / np.float32(255)).transpose(0, 3, 1, 2)}
    )
    assert features.shape == (2, sum(stage.shape[1] for stage in raw), 8, 8)
    first, second, third = raw
    fine, even = first.shape[1], second.shape[1]
    averaged = first.reshape(2, fine, 8, 2, 8, 2).mean(axis=(3, 5))
    assert features[:, :fine] == pytest.approx(averaged, abs=1e-5)
    assert features[:, fine : fine + even] == pytest.approx(second, abs=1e-5)
    # Between two cells' centres, a quarter of the way off the nearer one.
    between = 0.75 * third[..., 1, 1] + 0.25 * third[..., 1, 2]
    between = 0.75 * between + 0.25 * (0.75 * third[..., 2, 1] + 0.25 * third[..., 2, 2])
    assert features[:, fine + even :, 3, 3] == pytest.approx(between, abs=1e-5)


def test_views_lie_one_after_the_other_each_on_its_own_grid(backbone):
    fine, middle = (
        FeatureView("fine", backbone.manifest.stages[:2], 8, smooth=3),
        FeatureView("deep", backbone.manifest.stages[2:], 16),
    )
    layout = FeatureLayout(((fine.channels, 8, 8), (middle.channels, 4, 4)))
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    both = open_session(feature_graph(backbone, [fine, middle])).run(None, {"image": image})[0]
    assert both.shape == (2, layout.size)
    maps = layout.split(torch.from_numpy(both))
    for view, each in zip((fine, middle), maps, strict=True):
        alone = open_session(feature_graph(backbone, [view])).run(None, {"image": image})[0]
        np.testing.assert_allclose(each.flatten(1).numpy(), alone, atol=1e-5)
    torch.testing.assert_close(layout.join(maps), torch.from_numpy(both))


def test_normalisation_is_folded_in(backbone):
    plain = onnx.load_from_string(backbone.model)
    folded = fold_normalisation(plain, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).SerializeToString()
    rgb = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    mean, std = (
        np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    )
    outside = open_session(backbone.model).run(None, {"pixels": (rgb - mean) / std})
    inside = open_session(folded).run(None, {"pixels": rgb})
    for a, b in zip(outside, inside, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_features_are_computed_once(backbone, dataset, tmp_path):
    done = []
    cache = FeatureCache(tmp_path, source(backbone))
    cache.add(dataset.train, lambda count, total: done.append(count))
    assert done[-1] == len(dataset.train)
    before = cache[dataset.train[0].sha256]
    done.clear()
    again = FeatureCache(tmp_path, source(backbone))
    again.add(dataset.train, lambda count, total: done.append(count))
    assert done == []
    assert np.array_equal(again[dataset.train[0].sha256], before)
    grey = dataclasses.replace(source(backbone), pixels=PixelContract(colour="grey"))
    assert grey.digest != source(backbone).digest


def test_one_broken_file_among_many_costs_one_message(backbone, product, tmp_path):
    shutil.copytree(product, tmp_path / "p")
    broken = tmp_path / "p" / "train" / "good" / "007.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    files = read_mvtec(tmp_path / "p").train
    cache = FeatureCache(tmp_path / "cache", source(backbone))
    with pytest.raises(DatasetError, match=r"1 of 24 images.*007\.jpg"):
        cache.add(files)
    broken.unlink()
    computed = []
    cache.add(read_mvtec(tmp_path / "p").train, lambda count, total: computed.append(count))
    assert computed == []


def test_statistics_are_those_of_all_cells(backbone, dataset, tmp_path):
    cache = FeatureCache(tmp_path, source(backbone))
    cache.add(dataset.train)
    view = TrainContext(dataset.train, cache).view(0)
    everything = cache.layout.map(cache.batch([file.sha256 for file in dataset.train]), 0).numpy()
    cells = everything.transpose(1, 0, 2, 3).reshape(everything.shape[1], -1)
    std = cells.std(axis=1)
    assert view.standardise.mean.flatten().numpy() == pytest.approx(cells.mean(axis=1), abs=1e-4)
    floor = 0.1 * std.mean() + 1e-6
    assert view.standardise.std.flatten().numpy() == pytest.approx(np.maximum(std, floor), abs=1e-3)
    deviation = np.maximum(std, floor)
    correlation = np.cov(cells, bias=True) / np.outer(deviation, deviation)
    assert view.covariance.numpy() == pytest.approx(correlation, abs=1e-2)


def test_a_full_cache_forgets_what_was_read_longest_ago(backbone, dataset, tmp_path):
    first, others = dataset.train[0], dataset.train[1:4]
    one = FeatureCache(tmp_path, source(backbone))
    one.add([first])
    (kept,) = tmp_path.glob("*/*.half")
    os.utime(kept, (0, 0))
    small = FeatureCache(tmp_path, source(backbone), quota=3 * kept.stat().st_size)
    small.add(others)
    assert first.sha256 not in small
    assert all(file.sha256 in small for file in others)


def test_what_a_power_cut_left_is_computed_again(backbone, dataset, tmp_path):
    cache, file = FeatureCache(tmp_path, source(backbone)), dataset.train[0]
    cache.add([file])
    whole = cache[file.sha256]
    (kept,) = tmp_path.glob("*/*.half")
    os.truncate(kept, kept.stat().st_size // 2)
    assert file.sha256 not in cache
    cache.add([file])
    assert (cache[file.sha256] == whole).all()


def test_a_bundle_gives_its_feature_graph_back_to_the_byte(trained, bundle):
    assert champion_source(bundle).digest == trained.cache.source.digest
