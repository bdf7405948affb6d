import json

import numpy as np
import pytest

from models.session import open_session
from training.backbones import IMAGENET_MEAN, IMAGENET_STD, import_backbone
from training.benchmark import TileBenchmark, take_labels
from training.data import read_mvtec
from training.demo_data import write_demo
from training.features import FeatureCache, FeatureSource
from training.graph import feature_graph
from training.progress import Reporter
from training.table import tile_table


@pytest.fixture(scope="module")
def small_shared(tmp_path_factory, backbone):
    """The drawn product and oriented filters in the places of the shared ones."""
    root = tmp_path_factory.mktemp("shared")
    write_demo(root / "data" / "magnetic_tile", good=12, test_good=4, per_defect=12, size=64)
    (root / "backbones").mkdir()
    (root / "backbones" / "mobilenet_v2.onnx").write_bytes(backbone.model)
    return root


def test_every_figure_is_measured_written_and_resumed(small_shared, tmp_path):
    benchmark = TileBenchmark(small_shared, tmp_path / "out", range(1), Reporter(), steps=3)
    file = tmp_path / "figures.json"
    results = benchmark.run(file)
    assert json.loads(file.read_text()) == results
    stages = ("knn", "adtr-paper", "adtr-fast", "retrain-masks", "retrain-images")
    assert {f"{stage}/seed0" for stage in stages} <= set(results)
    assert results["adtr-paper/seed0"]["served_score_gap"] <= 1e-3
    assert results["peak_memory_gib"] > 0
    table = tile_table(results, 1)
    assert table.count("\n| ") >= 7
    assert "image AUROC" in table

    del results["knn/seed0"]
    marked = {**results, "adtr-fast/seed0": {**results["adtr-fast/seed0"], "seconds": -1}}
    file.write_text(json.dumps(marked))
    again = benchmark.run(file)
    assert again["adtr-fast/seed0"]["seconds"] == -1
    assert "knn/seed0" in again


def test_ten_labels_of_each_type_are_taken_out(small_shared):
    test = read_mvtec(small_shared / "data" / "magnetic_tile").test
    labelled, remaining = take_labels(test, seed=0)
    assert len(labelled) == 30
    assert {file.verdict for file in labelled} == {"ng"}
    assert len(remaining) == 4 + 3 * 2
    assert not {f.sha256 for f in labelled} & {f.sha256 for f in remaining}
    other, _ = take_labels(test, seed=1)
    assert {f.sha256 for f in other} != {f.sha256 for f in labelled}


def test_the_shared_backbone_and_tiles_work(shared, tmp_path):
    from models.backbone import open_backbone
    from models.image import InputSize, PixelContract

    path = import_backbone(
        shared / "backbones" / "mobilenet_v2.onnx", tmp_path / "b", name="mobilenet_v2",
        mean=IMAGENET_MEAN, std=IMAGENET_STD, licence="Apache-2.0",
    )  # fmt: skip
    opened = open_backbone(path)
    assert [(s.stride, s.channels) for s in opened.manifest.stages] == [
        (2, 16), (4, 24), (8, 32), (16, 96), (32, 320),
    ]  # fmt: skip
    files = read_mvtec(shared / "data" / "magnetic_tile").test[:8]
    source = FeatureSource(
        feature_graph(opened, opened.manifest.stages, 16),
        InputSize(height=256, width=256),
        PixelContract(colour="grey"),
    )
    cache = FeatureCache(tmp_path / "c", source)
    cache.add(files)
    assert cache[files[0].sha256].shape == (488, 16, 16)
    image = source.read(files[0].image)
    alone = open_session(source.graph).run(None, {"image": image[None]})[0][0]
    assert np.allclose(alone, cache[files[0].sha256], atol=1e-3)
