"""Two backbones that see the same pixels as one."""

import numpy as np
import pytest
import torch

from models.backbone import EMBEDDED, open_backbone
from models.bundle import MODEL, open_bundle
from models.session import open_session
from training.backbones.fused_backbone import fuse_backbones
from training.backbones.sources import pretrained_backbone
from training.backbones.views import neighbouring
from training.backbones.wheels import obtain_backbone
from training.directories import Directories
from training.errors import TrainingError
from training.fitting.fit import fit
from training.fitting.settings import FitSettings
from training.networks.residual import ResidualNetwork


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A directory with a backbone that has learned nothing."""
    root = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    pretrained_backbone(ResidualNetwork().eval(), root, name="random", origin="a test")
    return root


def test_a_fused_backbone_has_the_maps_of_both(own, backbone):
    other = open_backbone(own / "random")
    fused = obtain_backbone("procedural+random", (EMBEDDED, own))
    assert fused.manifest.name == "procedural+random"
    assert fused.manifest.licence == "Apache-2.0"
    pixels = np.random.default_rng(0).random((2, 3, 64, 96), np.float32)
    session = open_session(fused.model)
    for alone in (backbone, other):
        names = [stage.name for stage in alone.manifest.stages]
        maps = open_session(alone.model).run(names, {"pixels": pixels})
        fused_names = [f"{alone.manifest.name}/{name}" for name in names]
        found = session.run(fused_names, {"pixels": pixels})
        for expected, got in zip(maps, found, strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_each_view_shows_what_it_shows_of_either(own, backbone):
    other = open_backbone(own / "random")
    views = neighbouring(fuse_backbones([backbone, other]).manifest.stages)
    for name, view in views.items():
        alone = [neighbouring(each.manifest.stages)[name] for each in (backbone, other)]
        assert view.channels == sum(one.channels for one in alone)
        assert view.cell == min(one.cell for one in alone)


def test_a_fit_with_two_backbones_serves_what_it_learned(own, backbone, dataset, tmp_path):
    """The export compares what the bundle's graph gives with what the trained scorer gives."""
    fused = fuse_backbones([backbone, open_backbone(own / "random")])
    settings = FitSettings("cap", "positional-knn", size=64, grid=8)
    fitted = fit(dataset, fused, settings, Directories(tmp_path / "store", tmp_path / "cache"))
    bundle = open_bundle(fitted.path)
    assert bundle.manifest.backbone.name == "procedural+random"
    image = fitted.trained.cache.source.read(dataset.train[0].image)
    (score,) = open_session(bundle.read(MODEL)).run(["score"], {"image": image[None]})
    assert np.isfinite(score).all()


def test_what_cannot_be_fused_is_said(backbone):
    with pytest.raises(TrainingError, match="fuses a backbone with itself"):
        fuse_backbones([backbone, backbone])
    manifest = backbone.manifest
    stages = tuple(stage.model_copy(update={"stride": 14}) for stage in manifest.stages)
    update = {"name": "transformer", "stages": stages}
    other = type(backbone)(manifest.model_copy(update=update), backbone.model)
    with pytest.raises(TrainingError, match="strides do not divide each other"):
        fuse_backbones([backbone, other])
