"""The weights that a retraining starts from, with the settings that rebuild their network."""

import dataclasses
import json
from typing import Any

from safetensors.torch import load, save
from torch import nn

from training.networks.adtr import Adtr, AdtrConfig
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.memory_bank import MemoryBank, MemoryBankConfig
from training.networks.scorer import (
    HeatmapScore,
    Reconstruction,
    Scorer,
    ScoreSettings,
    Standardise,
)
from training.networks.whitening import Mahalanobis, Whitening, WhiteningConfig

# By the name that stands in the file: a module, and its settings.
_MODULES: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "adtr": (Adtr, AdtrConfig),
    "convolutional": (ConvolutionalAutoencoder, ConvolutionalConfig),
    "memory_bank": (MemoryBank, MemoryBankConfig),
    "whitening": (Whitening, WhiteningConfig),
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
        [_rebuild(part) for part in settings["parts"]],
        HeatmapScore(settings["stride"], ScoreSettings(**settings["score"])),
    )
    scorer.load_state_dict(load(data))
    return scorer.eval()


def _describe(part: nn.Module) -> dict[str, dict[str, Any]]:
    """The settings of the modules that a part is made of, by their names."""
    made = [module for module in (part, *part.children()) if hasattr(module, "config")]
    return {
        name: dataclasses.asdict(module.config)
        for module in made
        for name, (kind, _) in _MODULES.items()
        if isinstance(module, kind)
    }


def _rebuild(settings: dict[str, dict[str, Any]]) -> nn.Module:
    made = {name: _MODULES[name][0](_MODULES[name][1](**of)) for name, of in settings.items()}
    whitening = made.pop("whitening", None)
    assert whitening is None or isinstance(whitening, Whitening)
    if not made:
        assert whitening is not None
        return Mahalanobis(whitening)
    ((name, module),) = made.items()
    return module if name == "memory_bank" else Reconstruction(module, whitening)


def _metadata(data: bytes) -> dict[str, Any]:
    # safetensors: 8 bytes of little-endian length, then that much JSON.
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    settings: dict[str, Any] = json.loads(header["__metadata__"]["kizu"])
    return settings
