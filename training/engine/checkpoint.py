"""The weights that a retraining starts from, with the settings that rebuild their network."""

import dataclasses
import json
from typing import Any, TypeVar

from safetensors.torch import load, save
from torch import nn

from training.errors import TrainingError
from training.networks.adtr import Adtr, AdtrConfig
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.discriminator import Discriminator, DiscriminatorConfig
from training.networks.memory_bank import MemoryBank, MemoryBankConfig
from training.networks.orientation import Orientation, OrientationConfig
from training.networks.place_bank import PlaceBank, PlaceBankConfig
from training.networks.scorer import (
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
    "place_bank": (PlaceBank, PlaceBankConfig),
    "orientation": (Orientation, OrientationConfig),
    "discriminator": (Discriminator, DiscriminatorConfig),
}


def dump_checkpoint(scorer: Scorer) -> bytes:
    """The scorer as safetensors, its settings in the header."""
    settings = {
        "shape": scorer.shape,
        "stride": scorer.score.stride,
        "score": dataclasses.asdict(scorer.score.settings),
        "whitenings": [dataclasses.asdict(whitening.config) for whitening in scorer.whitenings],
        "parts": [_describe(part) for part in scorer.parts],
        "sees": scorer.sees,
    }
    tensors = {name: value.contiguous() for name, value in scorer.state_dict().items()}
    return save(tensors, metadata={"kizu": json.dumps(settings)})


def load_checkpoint(data: bytes) -> Scorer:
    """Rebuild a scorer from `dump_checkpoint`. Raises TrainingError for an earlier format."""
    settings = _metadata(data)
    if "sees" not in settings:
        raise _outdated()
    channels, height, width = settings["shape"]
    scorer = Scorer(
        (channels, height, width),
        Standardise.blank(channels),
        [Whitening(_settings(WhiteningConfig, values)) for values in settings["whitenings"]],
        [_rebuild(**part) for part in settings["parts"]],
        settings["sees"],
        HeatmapScore(settings["stride"], ScoreSettings(**settings["score"])),
    )
    try:
        scorer.load_state_dict(load(data))
    except RuntimeError as error:  # a network that has changed since
        raise _outdated() from error
    return scorer.eval()


def _outdated() -> TrainingError:
    return TrainingError(
        "This bundle's weights are kept in a format that is no longer read.",
        remedy="Fit the recipe anew to go on from there; the bundle can be served as it is.",
    )


def _describe(part: nn.Module) -> dict[str, Any]:
    """The kind of a part, and its settings."""
    if isinstance(part, Length):
        return {"kind": "length", "settings": {}}
    module = part.network if isinstance(part, Reconstruction) else part
    (kind,) = (name for name, (of, _) in _MODULES.items() if type(module) is of)
    return {"kind": kind, "settings": dataclasses.asdict(module.config)}


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
