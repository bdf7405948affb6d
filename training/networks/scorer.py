"""From features to distances, to one fused map, to a heatmap of the image's size and a score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.layout import FeatureLayout
from training.networks.positional_bank import PositionalBank
from training.networks.warp import inside, to_image
from training.networks.whitening import Whitening

STD_FLOOR = 0.1  # of the mean deviation over all channels
NOTHING = -1e4  # the evidence of a signed branch where an image shows nothing
SMALLEST = 1e-6  # of a distance, before its logarithm is taken


@dataclass(frozen=True)
class ScoreSettings:
    """`sigma` smooths the heatmap. The score is the largest mean over a window of `pool` × `pool`
    pixels, moved by a quarter of its side; a window as large as the image makes it the mean.
    """

    sigma: float = 4.0
    pool: int = 16


class HeatmapScore(nn.Module):
    """A map (B, H, W) to score (B) and heatmap (B, h, w), both from the upsampled map.

    The heatmap is smoothed, the score is not: a small defect is not smoothed twice. Upsampling,
    smoothing and the mean over windows are linear, and work on rows and columns apart: each is one
    matrix for the rows and one for the columns.
    """

    def __init__(
        self, stride: int, grid: tuple[int, int], settings: ScoreSettings | None = None
    ) -> None:
        super().__init__()
        self.settings = settings = settings or ScoreSettings()
        self.stride = stride
        for name, cells in zip(("rows", "columns"), grid, strict=True):
            upsampled = _upsampled(cells, stride)
            smooth = _smoothed(upsampled, settings.sigma)
            self.register_buffer(f"smooth_{name}", smooth, persistent=False)
            means = _window_means(upsampled, settings.pool)
            self.register_buffer(f"window_{name}", means, persistent=False)
        self.smooth_rows: Tensor
        self.smooth_columns: Tensor
        self.window_rows: Tensor
        self.window_columns: Tensor

    def forward(self, distance_BHW: Tensor) -> tuple[Tensor, Tensor]:
        heatmap = self.smooth_rows @ distance_BHW @ self.smooth_columns.T
        return self.scores(distance_BHW), heatmap

    def scores(self, distance_BHW: Tensor) -> Tensor:
        """The score (B) alone, in a fraction of the time."""
        return (self.window_rows @ distance_BHW @ self.window_columns.T).amax(dim=(1, 2))


def _upsampled(cells: int, stride: int) -> Tensor:
    """The matrix (pixels, cells) that interpolates a row of cells linearly."""
    each = torch.eye(cells).unsqueeze(0)
    return F.interpolate(each, scale_factor=stride, mode="linear", align_corners=False)[0].T


def _smoothed(pixels_LC: Tensor, sigma: float) -> Tensor:
    """Each column smoothed by a Gaussian, of which three deviations are kept on each side."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    padded = F.pad(pixels_LC.T.unsqueeze(1), (radius, radius), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum()).view(1, 1, -1)).squeeze(1).T


def _window_means(pixels_LC: Tensor, pool: int) -> Tensor:
    """The mean (windows, cells) over windows that start at every quarter of their side.

    One that ends at the far border is added where the steps do not reach it: no strip of the image
    is left out. Beyond the border the image is continued by its last pixel, which no window counts
    alone.
    """
    step = max(1, pool // 4)
    beyond = -(len(pixels_LC) - pool) % step
    padded = F.pad(pixels_LC.T.unsqueeze(1), (0, beyond), mode="replicate")
    return F.avg_pool1d(padded, pool, stride=step).squeeze(1).T


class Standardise(nn.Module):
    """Features to zero mean and unit deviation per channel, as seen on good parts."""

    def __init__(self, mean_C: Tensor, std_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_C.view(1, -1, 1, 1))
        # A channel that hardly varies on good parts must not drown all others when it does.
        floor = STD_FLOOR * std_C.mean() + 1e-6
        self.register_buffer("std", std_C.clamp_min(floor).view(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    @classmethod
    def blank(cls, channels: int) -> "Standardise":
        """One to load values into."""
        return cls(torch.zeros(channels), torch.ones(channels))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return (features_BCHW - self.mean) / self.std


class Reconstruction(nn.Module):
    """The distance (B, H, W) between features (B, C, H, W) and what `network` makes of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features_BCHW: Tensor) -> Tensor:
        difference_BCHW = features_BCHW - self.network(features_BCHW)
        distance_BHW: Tensor = torch.linalg.vector_norm(difference_BCHW, dim=1)
        return distance_BHW


class Length(nn.Module):
    """The length (B, H, W) of features (B, C, H, W): of whitened ones, their Mahalanobis distance
    from good parts."""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        length_BHW: Tensor = torch.linalg.vector_norm(features_BCHW, dim=1)
        return length_BHW


class Fusion(nn.Module):
    """The maps of several branches (P, B, H, W) joined into one (B, H, W).

    Each branch's map becomes a number of deviations: its logarithm, less the median of the
    logarithms of good parts' scores, divided by their deviation, times how `reliable` the branch is
    on this product (0 to 1). The joined map is the logarithm of 1 and the weighted sum of their
    exponentials: what one branch is sure of counts, however quiet
    the others are, what several suspect adds up, and what none suspects is near 0.

    A branch that is `signed` knows labelled defects: it is evidence already, and no logarithm is
    taken of it. What signed branches say below 0, in the mean, speaks `against` what the others
    suspect: it is added to their deviations, times `against`.

    One branch alone passes as it is, in the units of its distance.
    """

    def __init__(self, signed: Sequence[bool]) -> None:
        super().__init__()
        count = len(signed)
        self.register_buffer("signed_P", torch.tensor(list(signed), dtype=torch.bool))
        self.register_buffer("centre_P", torch.zeros(count))
        self.register_buffer("scale_P", torch.ones(count))
        self.register_buffer("reliable_P", torch.ones(count))
        self.register_buffer("weight_P", torch.full((count,), 1 / count))
        self.register_buffer("against", torch.zeros(()))
        self.signed_P: Tensor
        self.centre_P: Tensor
        self.scale_P: Tensor
        self.reliable_P: Tensor
        self.weight_P: Tensor
        self.against: Tensor

    def forward(self, distance_PBHW: Tensor) -> Tensor:
        if len(self.signed_P) == 1:
            return distance_PBHW[0]
        evidence = self.evidence(distance_PBHW)
        factor_P = self.reliable_P / self.scale_P
        deviations = (evidence - self.centre_P.view(-1, 1, 1, 1)) * factor_P.view(-1, 1, 1, 1)
        if bool(self.signed_P.any()):
            below_BHW = distance_PBHW[self.signed_P].clamp(max=0).mean(0)
            signed = self.signed_P.view(-1, 1, 1, 1)
            deviations = deviations + torch.where(signed, 0.0, self.against * below_BHW)
        weighted = deviations + self.weight_P.log().view(-1, 1, 1, 1)
        return F.softplus(weighted.logsumexp(0))

    def evidence(self, distance_P: Tensor) -> Tensor:
        """Maps or scores (P, …) on the scale that deviations are counted on."""
        signed = self.signed_P.view(-1, *[1] * (distance_P.dim() - 1))
        return torch.where(signed, distance_P, distance_P.clamp_min(SMALLEST).log())


@dataclass(frozen=True)
class BranchInput:
    """What a branch sees: the map with this number, as the whitening with this number turns it."""

    view: int
    whitening: int | None = None


class Scorer(nn.Module):
    """Flat features (B, D) to score (B) and heatmap (B, h, w): what a bundle holds.

    Each map of the features is standardised. A branch turns it, or its whitening, into distances
    (B, H, W). All are brought to the finest grid and fused. Cells outside of the region of interest
    `roi_HW` (1 inside, 0 outside; everything by default) count as 0. Of aligned images, `always_HW`
    is 1 on cells that every good part shows.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        standardise: Sequence[Standardise],
        whitenings: Sequence[Whitening],
        branches: Sequence[nn.Module],
        inputs: Sequence[BranchInput],
        score: HeatmapScore,
        roi_HW: Tensor | None = None,
        always_HW: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("roi_HW", torch.ones(layout.grid) if roi_HW is None else roi_HW)
        self.roi_HW: Tensor
        self.register_buffer(
            "always_HW", torch.zeros(layout.grid) if always_HW is None else always_HW
        )
        self.always_HW: Tensor
        self.layout = layout
        self.standardise = nn.ModuleList(standardise)
        self.whitenings = nn.ModuleList(whitenings)
        self.branches = nn.ModuleList(branches)
        self.inputs = tuple(inputs)
        self.fusion = Fusion([getattr(branch, "signed", False) for branch in branches])
        self.score = score

    def seen(self, features_BD: Tensor, branch: int) -> Tensor:
        """Flat features as the branch with this number sees them, (B, K, H, W)."""
        source = self.inputs[branch]
        standard_BCHW: Tensor = self.standardise[source.view](
            self.layout.map(features_BD, source.view)
        )
        if source.whitening is None:
            return standard_BCHW
        white_BKHW: Tensor = self.whitenings[source.whitening](standard_BCHW)
        return white_BKHW

    def distances(self, features_BD: Tensor) -> Tensor:
        """Each branch's distances on the finest grid, (P, B, H, W), before they are fused. Where an
        aligned image shows nothing, there is no distance, unless all good parts show something
        there: a part that the image cuts off is no good one."""
        maps = self.layout.split(features_BD)
        standard = [
            standardise(each) for standardise, each in zip(self.standardise, maps, strict=True)
        ]
        white: dict[int, Tensor] = {}
        found = []
        for branch, source in zip(self.branches, self.inputs, strict=True):
            seen = standard[source.view]
            whitening = None if source.whitening is None else self.whitenings[source.whitening]
            if isinstance(branch, PositionalBank) and _by_position(whitening, branch):
                # Without laying tokens out as a map in between, which takes as long as the rest.
                distance = branch.nearest(whitening.tokens(seen), seen.shape[2:])
            elif source.whitening is not None:
                if source.whitening not in white:
                    white[source.whitening] = self.whitenings[source.whitening](seen)
                distance = branch(white[source.whitening])
            else:
                distance = branch(seen)
            found.append(self._at_finest(distance))
        if not self.layout.extent:
            return torch.stack(found)
        transform_B4 = self.layout.transform(features_BD)
        shown_BHW = inside(self.layout.grid, transform_B4, self.layout.extent)
        nothing_P = torch.where(self.fusion.signed_P, NOTHING, 0.0)
        judged_BHW = shown_BHW | (self.always_HW > 0)
        return torch.where(judged_BHW, torch.stack(found), nothing_P.view(-1, 1, 1, 1))

    def forward(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        joined_BHW = self.fused(self.distances(features_BD))
        return self.shown(joined_BHW, self.layout.transform(features_BD))

    def shown(self, joined_BHW: Tensor, transform_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Score (B) and heatmap (B, h, w) of fused maps; of an aligned image, the heatmap lies
        where the part lay."""
        score_B, heatmap_Bhw = self.score(joined_BHW)
        if self.layout.extent:
            heatmap_Bhw = to_image(
                heatmap_Bhw.unsqueeze(1), transform_BT, self.layout.extent
            ).squeeze(1)
        return score_B, heatmap_Bhw

    def fused(self, distance_PBHW: Tensor) -> Tensor:
        """The one map (B, H, W) of all branches' distances, 0 outside of the region of interest."""
        joined: Tensor = self.fusion(distance_PBHW) * self.roi_HW
        return joined

    def _at_finest(self, distance_BHW: Tensor) -> Tensor:
        grid = self.layout.grid
        if tuple(distance_BHW.shape[1:]) == grid:
            return distance_BHW
        factors = (grid[0] / distance_BHW.shape[1], grid[1] / distance_BHW.shape[2])
        finer = F.interpolate(
            distance_BHW.unsqueeze(1), scale_factor=factors, mode="bilinear", align_corners=False
        )
        return finer.squeeze(1)


def _by_position(whitening: nn.Module | None, bank: PositionalBank) -> TypeGuard[Whitening]:
    """Whether a bank's positions are those of its whitening."""
    return isinstance(whitening, Whitening) and (
        not whitening.config.pooled and whitening.config.positions == bank.config.positions
    )
