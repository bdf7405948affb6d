"""Where backbones come from: an ONNX file, a timm model, or a pretraining."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.backbone import BackboneManifest, Stage, write_backbone
from models.session import open_session
from training.backbones import feature_graph as graph
from training.errors import TrainingError
from training.networks.onnx_export import OPSET, export_onnx
from training.networks.residual import ResidualNetwork

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Sides in pixels that a graph is tried with: multiples of strides up to 32, and of 14.
PROBES = ((224, 224), (448, 224))
EXAMPLE = 224  # of an export, whose sides stay free: strides up to 32, and of 14
BLOCKS = 5  # of a transformer, evenly over its depth


def import_backbone(
    file: Path,
    root: Path,
    *,
    name: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    stages: Sequence[str] = (),
    licence: str,
    training_data: str = "unknown",
) -> Path:
    """Bring an ONNX file that takes (RGB - mean) / std, float32 (B, 3, H, W), as a backbone.

    `stages` names the outputs to keep, all by default; strides and channels are measured.
    Raises BackboneError or TrainingError.
    """
    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no file {file}.") from error
    except Exception as error:  # protobuf and the checker share no base but this
        raise TrainingError(
            f"{file} is not a usable ONNX file: {error}", remedy="Export it again."
        ) from error
    if not all(deviation > 0 for deviation in std):
        raise TrainingError("A standard deviation is above 0.", remedy="Mend --std.")
    try:
        folded = graph.fold_normalisation(model, mean, std)
    except TrainingError:
        raise
    except Exception as error:  # the checker and the converter share no base but this
        raise TrainingError(
            f"{file} cannot be brought to operator set {OPSET}: {error}",
            remedy="Export it again with standard operators only.",
        ) from error
    return write_measured(
        folded,
        root,
        name=name,
        stages=stages,
        licence=licence,
        origin=f"imported from {file.name}",
        training_data=training_data,
    )


def pull_backbone(
    architecture: str, root: Path, *, name: str | None = None, weights: Path | None = None
) -> Path:
    """Export a timm model's feature stages; its weights come from its hub or a local state dict.

    Of a transformer these are the tokens of some blocks as maps, for inputs of any multiple of its
    patch.

    Raises TrainingError when timm is missing or the weights are in neither place.
    """
    network, config = _load_timm(architecture, weights)
    channels = network.feature_info.channels()
    stages = [f"stage{i + 1}" for i in range(len(channels))]
    try:
        maps = export_maps(network, stages)
    except Exception as error:  # the exporter's errors share no base but this
        first: BaseException = error
        while first.__cause__:
            first = first.__cause__
        raise TrainingError(
            f"{architecture} cannot be exported for inputs of any size: {first}",
            remedy="Choose a convolutional network, or a transformer with position embeddings that "
            "follow the input (timm's vit_*), and not one with windows of a fixed number.",
        ) from error
    return write_measured(
        graph.fold_normalisation(maps, tuple(config["mean"]), tuple(config["std"])),
        root,
        name=name or architecture.replace(".", "_"),
        stages=stages,
        licence=str(config.get("license") or "unknown"),
        origin=f"timm {architecture}, " + (f"weights {weights.name}" if weights else "its hub"),
        training_data=str(config.get("tag") or "see the origin"),
    )


def pretrained_backbone(network: ResidualNetwork, root: Path, *, name: str, origin: str) -> Path:
    """What was learned from drawn images alone, its weights stored in half precision."""
    stages = [f"stage{i + 1}" for i in range(len(network.config.widths))]
    return write_measured(
        graph.store_half(
            graph.fold_normalisation(export_maps(network, stages), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        ),
        root,
        name=name,
        stages=stages,
        licence="Apache-2.0",
        origin=origin,
        training_data="images drawn by Kizu's own generators; nobody's photographs",
    )


def export_maps(network: nn.Module, stages: list[str], example: int = EXAMPLE) -> onnx.ModelProto:
    """A network that gives a list of feature maps, as ONNX with B, H and W dynamic."""
    free = torch.export.Dim.DYNAMIC
    return export_onnx(
        network,
        (torch.zeros(2, 3, example, example),),
        ["x"],
        stages,
        ({0: free, 2: free, 3: free},),
    )


def _load_timm(architecture: str, weights: Path | None) -> tuple[Any, dict[str, Any]]:
    _complete_torchvision()
    try:
        import timm
    except ImportError as error:
        raise TrainingError(
            f"timm cannot be imported ({error}).", remedy="pip install 'kizu[timm]'"
        ) from error
    try:
        blank = timm.create_model(architecture)
        given = {"state_dict": _state_of(blank, weights)} if weights else None
        network = timm.create_model(
            architecture, features_only=True, pretrained=True, pretrained_cfg_overlay=given,
            **_of_blocks(blank),
        )  # fmt: skip
    except TrainingError:
        raise
    except Exception as error:  # the hub's client, urllib and timm share no base but this
        raise TrainingError(
            f"The model {architecture!r} or its weights cannot be had: {error}",
            remedy="Give a timm model's name and, without a network, its state dict with "
            "--weights FILE (.safetensors or .pth).",
        ) from error
    configuration: Any = network.pretrained_cfg
    return network.eval(), dict(configuration)


def _of_blocks(network: nn.Module) -> dict[str, Any]:
    """How a transformer gives maps of some of its blocks, for inputs of any size; of others, whose
    stages have strides of their own, nothing."""
    blocks = getattr(network, "blocks", None)
    if not hasattr(network, "patch_embed") or not isinstance(blocks, nn.Sequential):
        return {}
    chosen = np.linspace(0, len(blocks) - 1, BLOCKS + 1)[1:].round().astype(int)
    return {"dynamic_img_size": True, "out_indices": tuple(chosen.tolist())}


def _state_of(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """A local state dict of this very network, but for its head, which is not needed."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors share no base but this
        raise TrainingError(f"{path} is not a state dict: {error}") from error
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wanted = network.state_dict()
    unfit = [
        name for name, value in wanted.items()
        if not _head(name) and (name not in state or state[name].shape != value.shape)
    ]  # fmt: skip
    if unfit:
        raise TrainingError(
            f"{path} lacks {len(unfit)} weights of this model, the first is {unfit[0]}.",
            remedy="Give the weights of the very architecture that is pulled.",
        )
    return state | {name: value for name, value in wanted.items() if name not in state}


def _head(name: str) -> bool:
    """Whether a weight only classifies."""
    return name.split(".")[0] in ("fc", "head", "head_dist", "classifier", "norm_head")


def _complete_torchvision() -> None:
    """Let PyPI's torchvision import beside a CPU build of torch, which lacks two of its operators.

    timm imports torchvision but uses neither of them.
    """
    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        try:
            library.define(schema)
        except RuntimeError:  # torchvision brought it itself
            continue
    _KEPT.append(library)


_KEPT: list[torch.library.Library] = []  # a library undefines its operators when it is collected


def write_measured(
    model: onnx.ModelProto,
    root: Path,
    *,
    name: str,
    stages: Sequence[str],
    licence: str,
    origin: str,
    training_data: str,
) -> Path:
    outputs = [output.name for output in model.graph.output]
    unknown = set(stages) - set(outputs)
    if unknown:
        raise TrainingError(
            f"The ONNX file has no output {', '.join(sorted(unknown))}.",
            remedy=f"Choose --stages among {', '.join(outputs)}.",
        )
    wanted = list(stages) or outputs
    data = model.SerializeToString()
    measured = _measure(open_session(data, device="cpu"), wanted)
    manifest = BackboneManifest(
        name=name,
        stages=measured,
        licence=licence,
        origin=origin,
        training_data=training_data,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return write_backbone(root, manifest, data)


def _measure(session: ort.InferenceSession, stages: list[str]) -> tuple[Stage, ...]:
    """Strides and channels, from runs with inputs of two sizes."""
    (source,) = session.get_inputs()
    fixed = [side for side in source.shape[2:] if isinstance(side, int)]
    if fixed:
        raise TrainingError(
            f"The backbone takes inputs of {' × '.join(map(str, fixed))} pixels alone.",
            remedy="Export it with dynamic height and width; of timm's transformers, with "
            "dynamic_img_size=True.",
        )
    found: list[tuple[Stage, ...]] = []
    for height, width in PROBES:
        try:
            outputs = session.run(
                stages, {source.name: np.zeros((1, 3, height, width), np.float32)}
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base but this
            raise TrainingError(
                f"The backbone does not take float32 (1, 3, {height}, {width}): {error}",
                remedy="Export it with dynamic batch, height and width.",
            ) from error
        found.append(
            tuple(
                _stage(name, values, height, width)
                for name, values in zip(stages, outputs, strict=True)
            )
        )
    if found[0] != found[1]:
        raise TrainingError(
            "The backbone's maps do not grow with its input: "
            f"strides {[stage.stride for stage in found[0]]} at {PROBES[0]} pixels, "
            f"{[stage.stride for stage in found[1]]} at {PROBES[1]}.",
            remedy="Export it with dynamic height and width.",
        )
    return found[0]


def _stage(name: str, values: np.ndarray[Any, Any], height: int, width: int) -> Stage:
    if values.ndim != 4:
        raise TrainingError(
            f"The output {name} has the shape {values.shape}; a stage is (B, C, h, w).",
            remedy="Keep only feature maps with --stages; reshape a transformer's tokens to maps.",
        )
    rows, columns = values.shape[2:]
    if rows == 0 or height % rows or width % columns or height // rows != width // columns:
        raise TrainingError(
            f"The output {name} has {rows}×{columns} cells of an input of {height}×{width} "
            "pixels, which is no whole stride.",
            remedy="Keep only feature maps with --stages.",
        )
    return Stage(name=name, stride=height // rows, channels=values.shape[1])
