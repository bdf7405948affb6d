import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.bundle import CHECKPOINT, GOLDEN, open_bundle
from models.golden import Golden
from models.session import open_session
from service.onnx_engine import OnnxDevice
from service.settings import Settings
from training.backbones import tiled_graph
from training.backbones.feature_graph import feature_graph
from training.backbones.tiled_graph import Tiles
from training.backbones.views import FeatureView
from training.cli.main import app
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.errors import TrainingError
from training.finetuning.retrain import champion_source
from training.fitting.fit import fit
from training.fitting.settings import FitSettings
from training.networks.layout import FeatureLayout


def features(backbone, images, tiles=None):
    """Of two views, whose maps lie one after the other, the one on a grid of 16 pixels."""
    all_on_one = FeatureView("all", backbone.manifest.stages, 16)
    fine = FeatureView("fine", backbone.manifest.stages[:1], 8)
    graph = feature_graph(backbone, [fine, all_on_one], tiles)
    flat = open_session(graph, device="cpu").run(None, {"image": images})[0]
    height, width = images.shape[1:3]
    layout = FeatureLayout(
        ((fine.channels, height // 8, width // 8), (all_on_one.channels, height // 16, width // 16))
    )
    return layout.map(torch.from_numpy(flat), 1).numpy()


def photographs(height, width, count=2):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_windows_show_a_margin_where_there_is_one():
    tiles = Tiles(height=512, width=128, tile=128, stride=32)
    assert tiles.window == (256, 128)
    assert tiles.windows() == [(0, 0, 0, 0), (64, 0, 64, 0), (192, 0, 64, 0), (256, 0, 128, 0)]


def test_tiles_that_see_the_whole_image_have_its_features(backbone):
    images = photographs(128, 192)
    whole = features(backbone, images)
    assert whole.shape[2:] == (8, 12)
    tiled = features(backbone, images, Tiles(128, 192, 64, 32))
    np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-4)


def test_features_hardly_know_where_tiles_meet(backbone, monkeypatch):
    images = photographs(384, 256)
    whole = features(backbone, images)

    def gap():
        tiled = features(backbone, images, Tiles(384, 256, 64, 32))
        return np.abs(tiled - whole).mean(axis=(0, 1)).max() / whole.std()

    with_margin = gap()
    monkeypatch.setattr(tiled_graph, "MARGIN", 0)
    assert 0 < with_margin < 0.1 * gap()


def test_a_tiled_recipe_is_fitted_exported_and_scored_as_any_other(dataset, backbone, tmp_path):
    settings = FitSettings("cap", "adtr-whitened", size=(192, 128), tile=64, steps=3)
    places = Directories(tmp_path / "store", tmp_path / "cache")
    fitted = fit(dataset, backbone, settings, places)
    bundle = open_bundle(fitted.path)
    size = bundle.manifest.input
    assert (size.width, size.height, size.tile) == (192, 128, 64)
    assert load_checkpoint(bundle.read(CHECKPOINT)).layout.grid == (8, 12)
    source = champion_source(bundle)
    assert source.graph == fitted.trained.cache.source.graph
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    assert golden.heatmaps.shape[1:] == (128, 192)
    images = np.stack([source.read(file.image) for file in dataset.test])
    served = OnnxDevice(Settings(device="cpu")).open(bundle).run(images)
    assert fitted.trained.test is not None
    np.testing.assert_allclose(served.scores, fitted.trained.test.scores, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 256, "tile": 96}, "Tiles of 96 pixels do not divide an input of 256×256"),
        ({"size": 240, "tile": 40, "grid": 15}, "are no multiple of 16"),
        ({"size": (200, 128)}, "no multiple of a stage"),
        ({"size": 256, "grid": 15}, "A grid of 15 does not divide an input of 256×256"),
        ({"size": 256, "tile": 64, "preset": "pixel-cnn"}, "no backbone that could see tiles"),
    ],
)
def test_what_cannot_be_cut_is_refused(dataset, backbone, tmp_path, changes, says):
    settings = FitSettings(**{"recipe": "cap", "preset": "adtr-whitened", **changes})
    with pytest.raises(TrainingError, match=says):
        fit(dataset, backbone, settings, Directories(tmp_path / "store", tmp_path / "cache"))


@pytest.mark.parametrize("size", ["256x", "x", "-1", "1024X768", "16"])
def test_a_size_is_a_side_or_two(product, size):
    result = CliRunner().invoke(app, ["fit", str(product), "--recipe", "cap", "--size", size])
    assert isinstance(result.exception, TrainingError)
