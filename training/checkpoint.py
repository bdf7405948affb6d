"""The weights that a retraining starts from, with the settings that rebuild their network."""

import dataclasses
import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from training.networks.adtr import Adtr, AdtrConfig
from training.networks.scorer import AdtrScorer, HeatmapScore, Standardise


def build_scorer(
    config: AdtrConfig, stride: int, mean_C: Tensor, std_C: Tensor, *, seed: int
) -> AdtrScorer:
    """A scorer with fresh weights; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return AdtrScorer(Standardise(mean_C, std_C), Adtr(config), HeatmapScore(stride)).eval()


def dump_checkpoint(scorer: AdtrScorer) -> bytes:
    """The scorer as safetensors, its configuration in the header."""
    settings = {"network": dataclasses.asdict(scorer.network.config), "stride": scorer.score.stride}
    tensors = {name: value.contiguous() for name, value in scorer.state_dict().items()}
    return save(tensors, metadata={"kizu": json.dumps(settings)})


def load_checkpoint(data: bytes) -> AdtrScorer:
    """Rebuild a scorer from `dump_checkpoint`."""
    settings = _metadata(data)
    config = AdtrConfig(**settings["network"])
    blank = torch.zeros(config.channels)
    scorer = build_scorer(config, settings["stride"], blank, blank, seed=0)
    scorer.load_state_dict(load(data))
    return scorer


def _metadata(data: bytes) -> dict[str, Any]:
    # safetensors: 8 bytes of little-endian length, then that much JSON.
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    settings: dict[str, Any] = json.loads(header["__metadata__"]["kizu"])
    return settings
