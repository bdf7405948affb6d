"""ADTR: a transformer that rebuilds the features of good parts, and only of those.

You et al., "ADTR: Anomaly Detection Transformer with Feature Reconstruction", arXiv 2209.01816.
Attention mixes values by the similarity of keys to a query. The decoder's query is learned from
good parts alone, so what it retrieves is good; an anomaly cannot be copied through it.

Shape suffixes: B batch, C feature channels, H W grid, L = H·W tokens, D width, F inner width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.networks.positions import by_cell, by_position

_VARIANCE_FLOOR = 0.01  # of the mean over all channels
# A post-norm network this deep learns little at first. With sharp attention alone, held-out
# tiles were rebuilt to 344 after 200 steps; with branches that start small besides (as in Zhang
# et al., "Fixup", 2019) and twice the learning rate, to 289 after 120.
_BRANCH = 0.1
_SHARPNESS = 2.0


@dataclass(frozen=True)
class AdtrConfig:
    """The network's shape; the defaults are the paper's."""

    channels: int
    height: int
    width: int
    layers: int = 4
    dimension: int = 256
    heads: int = 8
    feedforward: int = 1024
    dropout: float = 0.1
    # Of the attention weights. Off: drawing it doubles the cost of a step on a CPU.
    attention_dropout: float = 0.0
    # The paper leaves open where the query enters: as the first layer's target, or added to
    # the query of every layer, as in DETR. Without it the decoder starts from the memory itself.
    query: Literal["each_layer", "target", "none"] = "each_layer"
    # Without attention each token sees itself alone, and can be copied.
    attention: bool = True
    # UniAD (You et al., arXiv 2206.03687) masks a square of so many cells around each token, so
    # that it cannot be rebuilt from itself; 0 masks nothing.
    masked: int = 0
    # Cells per side of the windows that are rebuilt apart; 0 rebuilds the whole grid at once, which
    # costs the square of its cells. Positions and queries are each cell's own all the same.
    window: int = 0
    # As the paper has it: every weight starts at random (Xavier), and the decoder's queries have
    # positions, too. Without it branches start small and projections at principal components, which
    # a short training needs.
    strict: bool = False


class Adtr(nn.Module):
    """Features (B, C, H, W) to reconstructed features (B, C, H, W)."""

    def __init__(self, config: AdtrConfig) -> None:
        super().__init__()
        self.config = config
        tokens = config.height * config.width
        self.project_in = nn.Linear(config.channels, config.dimension)
        self.project_out = nn.Linear(config.dimension, config.channels)
        self.position_LD = nn.Parameter(torch.empty(tokens, config.dimension))
        if config.query != "none":
            self.query_LD = nn.Parameter(torch.empty(tokens, config.dimension))
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self._initialise()

    def forward(self, features_BCHW: Tensor) -> Tensor:
        batch, _, *grid = features_BCHW.shape
        windows = self._windows(grid)
        # Each window is a sequence of its own: from here on, B counts all windows of all images.
        tokens_BLC = by_position(features_BCHW, windows).unflatten(1, (batch, -1)).flatten(0, 1)
        memory_BLD = self.project_in(tokens_BLC)
        position_BLD = self._cut(self.position_LD, grid, memory_BLD)
        for layer in self.encoder:
            memory_BLD = layer(memory_BLD, position_BLD)

        if self.config.query == "each_layer":
            rebuilt_BLD = torch.zeros_like(memory_BLD)
            query_BLD = self._cut(self.query_LD, grid, memory_BLD)
            if self.config.strict:
                query_BLD = query_BLD + position_BLD
        else:
            target = self.config.query == "target"
            rebuilt_BLD = self._cut(self.query_LD, grid, memory_BLD) if target else memory_BLD
            query_BLD = position_BLD
        for layer in self.decoder:
            rebuilt_BLD = layer(rebuilt_BLD, query_BLD, memory_BLD, position_BLD)
        rebuilt_BLC = self.project_out(rebuilt_BLD)
        rebuilt_PNC = rebuilt_BLC.unflatten(0, (-1, batch)).flatten(1, 2)
        return by_cell(rebuilt_PNC, windows, grid)

    def start_at_components(self, covariance_CC: Tensor) -> None:
        """Let the projections start as whitening by principal components, and as its inverse.

        `covariance_CC` is of the features that `forward` will see, whose mean is 0. What takes a
        random start hundreds of steps to find is then there at step 0: how good parts vary.
        """
        variance_C, directions_CC = torch.linalg.eigh(covariance_CC.double())  # ascending
        kept = min(self.config.channels, self.config.dimension)
        # A direction that hardly varies must not become as loud as all others.
        variance_K = variance_C[-kept:].clamp_min(_VARIANCE_FLOOR * variance_C.mean())
        deviation_K, directions_CK = variance_K.sqrt(), directions_CC[:, -kept:]
        with torch.no_grad():
            self.project_in.weight[:kept] = (directions_CK / deviation_K).T.float()
            self.project_out.weight[:, :kept] = (directions_CK * deviation_K).float()
            self.project_in.bias.zero_()
            self.project_out.bias.zero_()

    def _windows(self, grid: Sequence[int]) -> tuple[int, int]:
        window = self.config.window
        return (grid[0] // window, grid[1] // window) if window else (1, 1)

    def _cut(self, own_LD: Tensor, grid: Sequence[int], like_BLD: Tensor) -> Tensor:
        """What each cell owns, for every window of every image."""
        own_1DHW = own_LD.T.unflatten(1, grid).unsqueeze(0)
        own_PLD = by_position(own_1DHW, self._windows(grid))
        each = like_BLD.shape[0] // own_PLD.shape[0]
        return own_PLD.unsqueeze(1).expand(-1, each, -1, -1).flatten(0, 1)

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if self.config.strict:
            return
        # Of the size of the projected tokens, so that attention can tell places apart from the
        # first step on: with 0.02, held-out parts were rebuilt 5 % worse after 300 steps.
        nn.init.normal_(self.position_LD, std=1.0)
        if self.config.query != "none":
            nn.init.normal_(self.query_LD, std=1.0)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Attention | Alone | FeedForward):
                    module.calm()


class EncoderLayer(nn.Module):
    """Post-norm self-attention over the tokens; positions enter queries and keys only."""

    def __init__(self, config: AdtrConfig) -> None:
        super().__init__()
        self.attention = mixer(config)
        self.feedforward = FeedForward(config)

    def forward(self, x_BLD: Tensor, position_BLD: Tensor) -> Tensor:
        placed_BLD = x_BLD + position_BLD
        x_BLD = self.attention(x_BLD, placed_BLD, placed_BLD, x_BLD)
        out_BLD: Tensor = self.feedforward(x_BLD)
        return out_BLD


class DecoderLayer(nn.Module):
    """Post-norm self-attention of what is rebuilt so far, then attention into the memory."""

    def __init__(self, config: AdtrConfig) -> None:
        super().__init__()
        self.self_attention = mixer(config)
        self.cross_attention = mixer(config)
        self.feedforward = FeedForward(config)

    def forward(
        self, x_BLD: Tensor, query_BLD: Tensor, memory_BLD: Tensor, position_BLD: Tensor
    ) -> Tensor:
        asked_BLD = x_BLD + query_BLD
        x_BLD = self.self_attention(x_BLD, asked_BLD, asked_BLD, x_BLD)
        keys_BLD = memory_BLD + position_BLD
        x_BLD = self.cross_attention(x_BLD, x_BLD + query_BLD, keys_BLD, memory_BLD)
        out_BLD: Tensor = self.feedforward(x_BLD)
        return out_BLD


class Attention(nn.Module):
    """Multi-head attention with its residual and norm: norm(x + attention(q, k, v))."""

    def __init__(self, config: AdtrConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            config.dimension, config.heads, dropout=config.attention_dropout, batch_first=True
        )
        rows, columns = config.window or config.height, config.window or config.width
        hidden_LL = around(rows, columns, config.masked) if config.masked else None
        self.register_buffer("hidden_LL", hidden_LL, persistent=False)
        self.hidden_LL: Tensor | None
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.dimension)

    def calm(self) -> None:
        """Start near the identity, and with attention that tells places apart."""
        self.attention.out_proj.weight *= _BRANCH
        queries_and_keys = self.attention.in_proj_weight[: 2 * self.attention.embed_dim]
        queries_and_keys *= _SHARPNESS

    def forward(self, x_BLD: Tensor, q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor) -> Tensor:
        mixed_BLD, _ = self.attention(
            q_BLD, k_BLD, v_BLD, need_weights=False, attn_mask=self.hidden_LL
        )
        out_BLD: Tensor = self.norm(x_BLD + self.dropout(mixed_BLD))
        return out_BLD


class Alone(nn.Module):
    """What is left of attention when each token sees itself alone: norm(x + W·v)."""

    def __init__(self, config: AdtrConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.dimension, config.dimension)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.dimension)

    def calm(self) -> None:
        """Start near the identity."""
        self.project.weight *= _BRANCH

    def forward(self, x_BLD: Tensor, q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor) -> Tensor:
        out_BLD: Tensor = self.norm(x_BLD + self.dropout(self.project(v_BLD)))
        return out_BLD


class FeedForward(nn.Module):
    """Two linear layers with their residual and norm."""

    def __init__(self, config: AdtrConfig) -> None:
        super().__init__()
        self.widen = nn.Linear(config.dimension, config.feedforward)
        self.narrow = nn.Linear(config.feedforward, config.dimension)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.dimension)

    def calm(self) -> None:
        """Start near the identity."""
        self.narrow.weight *= _BRANCH

    def forward(self, x_BLD: Tensor) -> Tensor:
        inner_BLF = self.dropout(torch.relu(self.widen(x_BLD)))
        out_BLD: Tensor = self.norm(x_BLD + self.dropout(self.narrow(inner_BLF)))
        return out_BLD


def mixer(config: AdtrConfig) -> Attention | Alone:
    """How tokens take from each other, or that they do not."""
    return Attention(config) if config.attention else Alone(config)


def around(height: int, width: int, side: int) -> Tensor:
    """Which tokens (L, L) lie in the side × side square around each, itself included."""
    y_L, x_L = (axis.flatten() for axis in torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing="ij"
    ))  # fmt: skip
    far_LL = torch.maximum((y_L[:, None] - y_L).abs(), (x_L[:, None] - x_L).abs())
    return far_LL <= side // 2
