"""The weights that a retraining starts from, with the settings that rebuild their network."""

import dataclasses
import json
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from training.errors import TrainingError
from training.networks.adtr import Adtr, AdtrConfig
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.discriminator import Discriminator, DiscriminatorConfig
from training.networks.image_bank import ImageBank, ImageBankConfig
from training.networks.layout import FeatureLayout
from training.networks.memory_bank import MemoryBank, MemoryBankConfig
from training.networks.orientation import Orientation, OrientationConfig
from training.networks.positional_bank import PositionalBank, PositionalBankConfig
from training.networks.scorer import (
    BranchInput,
    HeatmapScore,
    Length,
    Reconstruction,
    Scorer,
    ScoreSettings,
    Standardise,
)
from training.networks.whitening import Whitening, WhiteningConfig

T = TypeVar("T")

# What distances come from, by the name that stands in the file: a module, and its settings.
_MODULES: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "adtr": (Adtr, AdtrConfig),
    "convolutional": (ConvolutionalAutoencoder, ConvolutionalConfig),
    "memory_bank": (MemoryBank, MemoryBankConfig),
    "image_bank": (ImageBank, ImageBankConfig),
    "positional_bank": (PositionalBank, PositionalBankConfig),
    "orientation": (Orientation, OrientationConfig),
    "discriminator": (Discriminator, DiscriminatorConfig),
}


def dump_checkpoint(scorer: Scorer) -> bytes:
    """The scorer as safetensors, its settings in the header."""
    whitenings = cast(list[Whitening], list(scorer.whitenings))
    settings = {
        "shapes": scorer.layout.shapes,
        "extent": scorer.layout.extent,
        "stride": scorer.score.stride,
        "score": dataclasses.asdict(scorer.score.settings),
        "whitenings": [dataclasses.asdict(whitening.config) for whitening in whitenings],
        "branches": [_describe(branch) for branch in scorer.branches],
        "inputs": [dataclasses.asdict(source) for source in scorer.inputs],
    }
    tensors = {name: _compact(value) for name, value in scorer.state_dict().items()}
    return save(tensors, metadata={"kizu": json.dumps(settings)})


def load_checkpoint(data: bytes) -> Scorer:
    """Rebuild a scorer from `dump_checkpoint`. Raises TrainingError for an earlier format."""
    settings = _metadata(data)
    if "extent" not in settings:
        raise _outdated()
    extent = tuple(settings["extent"]) if settings["extent"] else None
    layout = FeatureLayout(tuple((c, h, w) for c, h, w in settings["shapes"]), extent)
    scorer = Scorer(
        layout,
        [Standardise.blank(channels) for channels, _, _ in layout.shapes],
        [Whitening(_settings(WhiteningConfig, values)) for values in settings["whitenings"]],
        [_rebuild(**branch) for branch in settings["branches"]],
        [BranchInput(**source) for source in settings["inputs"]],
        HeatmapScore(settings["stride"], layout.grid, ScoreSettings(**settings["score"])),
    )
    try:
        scorer.load_state_dict(load(data))
    except RuntimeError as error:  # a network that has changed since
        raise _outdated() from error
    return scorer.eval()


def _compact(tensor: Tensor) -> Tensor:
    """The tensor in half precision, where that holds every value exactly."""
    half = tensor.half()
    exact = tensor.dtype == torch.float32 and torch.equal(half.float(), tensor)
    return (half if exact else tensor).contiguous()


def _outdated() -> TrainingError:
    return TrainingError(
        "This bundle's weights are kept in a format that is no longer read.",
        remedy="Fit the recipe anew to go on from there; the bundle can be served as it is.",
    )


def _describe(branch: nn.Module) -> dict[str, Any]:
    """The kind of a branch, and its settings."""
    if isinstance(branch, Length):
        return {"kind": "length", "settings": {}}
    module = branch.network if isinstance(branch, Reconstruction) else branch
    (kind,) = (name for name, (of, _) in _MODULES.items() if type(module) is of)
    config: Any = module.config
    return {"kind": kind, "settings": dataclasses.asdict(config)}


def _rebuild(kind: str, settings: dict[str, Any]) -> nn.Module:
    if kind == "length":
        return Length()
    of, config = _MODULES[kind]
    module = of(_settings(config, settings))
    return Reconstruction(module) if kind in ("adtr", "convolutional") else module


def _settings(config: type[T], values: dict[str, Any]) -> T:
    """From JSON, which has no tuples."""
    made = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return config(**made)


def _metadata(data: bytes) -> dict[str, Any]:
    # safetensors: 8 bytes of little-endian length, then that much JSON.
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    settings: dict[str, Any] = json.loads(header["__metadata__"]["kizu"])
    return settings
