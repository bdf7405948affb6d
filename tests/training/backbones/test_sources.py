import onnx
import pytest
import torch
from safetensors.torch import save_file

from models.backbone import list_backbones, open_backbone
from models.errors import BackboneError
from models.session import open_session
from training.backbones.sources import import_backbone, pull_backbone
from training.data.folders import read_mvtec
from training.directories import Directories
from training.errors import TrainingError
from training.fitting.fit import fit
from training.fitting.settings import FitSettings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_the_embedded_backbone_is_small_and_owes_nobody_anything(backbone):
    assert len(backbone.model) <= 8e6
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load_from_string(backbone.model).graph.initializer
    ]
    assert sum(w.size for w in weights if w.dtype.kind == "f") <= 4e6
    assert backbone.manifest.licence == "Apache-2.0"
    assert "drawn by Kizu" in backbone.manifest.training_data
    assert "backbone pretrain --seed" in backbone.manifest.origin


def test_an_own_onnx_file_is_imported_with_the_chosen_stages(backbone, tmp_path):
    file = tmp_path / "own.onnx"
    file.write_bytes(backbone.model)
    path = import_backbone(
        file, tmp_path / "b", name="own", mean=MEAN, std=STD,
        stages=["stage3", "stage2"], licence="proprietary", training_data="our lines",
    )  # fmt: skip
    manifest = open_backbone(path).manifest
    assert [(s.name, s.stride, s.channels) for s in manifest.stages] == [
        ("stage3", 16, 192), ("stage2", 8, 96),
    ]  # fmt: skip
    assert (manifest.licence, manifest.training_data) == ("proprietary", "our lines")
    assert [path.name for path in list_backbones((tmp_path / "b",))] == ["own"]
    with pytest.raises(BackboneError, match="already exists"):
        import_backbone(file, tmp_path / "b", name="own", mean=MEAN, std=STD, licence="x")


@pytest.mark.parametrize(
    ("content", "stages", "says"),
    [(None, [], "no file"), (b"not onnx", [], "not a usable ONNX"), ("own", ["stage9"], "stage9")],
)
def test_what_is_wrong_with_an_import_is_said(backbone, tmp_path, content, stages, says):
    file = tmp_path / "own.onnx"
    if content:
        file.write_bytes(backbone.model if content == "own" else content)
    with pytest.raises(TrainingError, match=says):
        import_backbone(
            file, tmp_path / "b", name="own", mean=MEAN, std=STD, stages=stages, licence="x"
        )
    assert list_backbones((tmp_path / "b",)) == []


def test_a_graph_without_feature_maps_is_refused(tmp_path):
    node = onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])
    flat = onnx.helper.make_node("Flatten", ["y"], ["z"])
    graph = onnx.helper.make_graph(
        [node, flat], "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["b", 3, "h", "w"])],
        [onnx.helper.make_tensor_value_info("z", 1, ["b", 3])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    file = tmp_path / "flat.onnx"
    onnx.save(model, str(file))
    with pytest.raises(TrainingError, match="a stage is"):
        import_backbone(file, tmp_path / "b", name="flat", mean=MEAN, std=STD, licence="x")


@pytest.fixture(scope="module")
def timm():
    from training.backbones.sources import _complete_torchvision

    _complete_torchvision()
    return pytest.importorskip("timm", reason="install kizu[timm] to test pulling backbones")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_timm_model_is_pulled_from_local_weights(timm, tmp_path, suffix):
    torch.manual_seed(0)
    classifier = timm.create_model("resnet10t", pretrained=False).eval()
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(classifier.state_dict(), weights)
    else:
        save_file(classifier.state_dict(), weights)
    opened = open_backbone(pull_backbone("resnet10t", tmp_path / "b", weights=weights))
    assert [stage.stride for stage in opened.manifest.stages] == [2, 4, 8, 16, 32]

    image = torch.rand(1, 3, 96, 64)
    config = classifier.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    served = open_session(opened.model).run(None, {"pixels": image.numpy()})[-1]
    with torch.inference_mode():
        trained = classifier.forward_features((image - mean) / std)
    assert served == pytest.approx(trained.numpy(), abs=1e-3)


@pytest.mark.filterwarnings("default")
def test_without_a_hub_or_with_other_weights_it_is_said(timm, tmp_path, monkeypatch):
    # Its variable is read when it is imported: it would try again for half a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(TrainingError, match="no_such_model"):
        pull_backbone("no_such_model", tmp_path / "b")
    with pytest.raises(TrainingError, match="--weights FILE"):
        pull_backbone("resnet10t", tmp_path / "b")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(TrainingError, match="lacks"):
        pull_backbone("resnet10t", tmp_path / "b", weights=other)
    other.write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="not a state dict"):
        pull_backbone("resnet10t", tmp_path / "b", weights=other)
    assert list_backbones((tmp_path / "b",)) == []


@pytest.mark.filterwarnings("default")
def test_the_papers_backbone_has_the_papers_stages(timm, tmp_path):
    torch.manual_seed(0)
    classifier = timm.create_model("efficientnet_b4", pretrained=False)
    weights = tmp_path / "b4.safetensors"
    save_file(classifier.state_dict(), weights)
    stages = open_backbone(
        pull_backbone("efficientnet_b4", tmp_path / "b", weights=weights)
    ).manifest.stages
    assert [(s.stride, s.channels) for s in stages] == [
        (2, 24), (4, 32), (8, 56), (16, 160), (32, 448),
    ]  # fmt: skip


@pytest.mark.filterwarnings("default")
def test_a_transformer_sees_inputs_of_any_multiple_of_its_patch(timm, tmp_path, product):
    torch.manual_seed(0)
    whole = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    weights = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), weights)
    pulled = pull_backbone("vit_tiny_patch16_224", tmp_path / "b", name="vit", weights=weights)
    backbone = open_backbone(pulled)
    assert [(stage.stride, stage.channels) for stage in backbone.manifest.stages] == [(16, 192)] * 5
    image = torch.rand(1, 3, 96, 160)
    served = open_session(backbone.model, device="cpu").run(None, {"pixels": image.numpy()})
    with torch.inference_mode():
        blocks = whole.forward_intermediates(
            (image - 0.5) / 0.5, indices=[2, 4, 7, 9, 11], intermediates_only=True
        )
    for found, wanted in zip(served, blocks, strict=True):
        assert found.shape == (1, 192, 6, 10)
        assert found == pytest.approx(wanted.numpy(), abs=1e-3)
    settings = FitSettings("cap", "patchcore", size=96)
    places = Directories(tmp_path / "store", tmp_path / "cache")
    fitted = fit(read_mvtec(product), backbone, settings, places)
    assert fitted.trained.scorer.layout.grid == (6, 6)
