"""The weights that a retraining starts from, with the settings that rebuild their network."""

import dataclasses
import json
from typing import Any

from safetensors.torch import load, save
from torch import nn

from training.networks.adtr import Adtr, AdtrConfig
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.gaussian import Gaussian, GaussianConfig
from training.networks.memory_bank import MemoryBank, MemoryBankConfig
from training.networks.scorer import (
    HeatmapScore,
    Reconstruction,
    Scorer,
    ScoreSettings,
    Standardise,
)

# By the name that stands in the file, what rebuilds a part, and its settings.
_KINDS: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "adtr": (Adtr, AdtrConfig),
    "convolutional": (ConvolutionalAutoencoder, ConvolutionalConfig),
    "gaussian": (Gaussian, GaussianConfig),
    "memory_bank": (MemoryBank, MemoryBankConfig),
}


def dump_checkpoint(scorer: Scorer) -> bytes:
    """The scorer as safetensors, its settings in the header."""
    settings = {
        "shape": scorer.shape,
        "stride": scorer.score.stride,
        "score": dataclasses.asdict(scorer.score.settings),
        "parts": [_describe(part) for part in scorer.parts],
    }
    tensors = {name: value.contiguous() for name, value in scorer.state_dict().items()}
    return save(tensors, metadata={"kizu": json.dumps(settings)})


def load_checkpoint(data: bytes) -> Scorer:
    """Rebuild a scorer from `dump_checkpoint`."""
    settings = _metadata(data)
    channels, height, width = settings["shape"]
    scorer = Scorer(
        (channels, height, width),
        Standardise.blank(channels),
        [_rebuild(*part) for part in settings["parts"]],
        HeatmapScore(settings["stride"], ScoreSettings(**settings["score"])),
    )
    scorer.load_state_dict(load(data))
    return scorer.eval()


def _describe(part: nn.Module) -> tuple[str, dict[str, Any]]:
    module = part.network if isinstance(part, Reconstruction) else part
    kind = next(name for name, (made, _) in _KINDS.items() if isinstance(module, made))
    return kind, dataclasses.asdict(module.config)


def _rebuild(kind: str, settings: dict[str, Any]) -> nn.Module:
    made, config = _KINDS[kind]
    module = made(config(**settings))
    return Reconstruction(module) if kind in ("adtr", "convolutional") else module


def _metadata(data: bytes) -> dict[str, Any]:
    # safetensors: 8 bytes of little-endian length, then that much JSON.
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    settings: dict[str, Any] = json.loads(header["__metadata__"]["kizu"])
    return settings
