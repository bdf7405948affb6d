"""A few vectors that cover many: each next one is the farthest from those chosen (k-center greedy).

PatchCore (Roth et al., arXiv 2106.08265) chooses its memory so. Rare vectors of good parts are kept
where a random choice would lose them.
"""

import torch
from torch import Tensor


def greedy_coreset(vectors_NC: Tensor, size: int, *, seed: int, projected: int = 128) -> Tensor:
    """Indices (size) of vectors that cover all.

    Distances are measured in a random projection to `projected` dimensions (Johnson-Lindenstrauss),
    as in PatchCore.
    """
    generator = torch.Generator().manual_seed(seed)
    count, channels = vectors_NC.shape
    projection = torch.randn(channels, projected, generator=generator) / projected**0.5
    points = vectors_NC @ projection if projected < channels else vectors_NC
    first = int(torch.randint(count, (1,), generator=generator))
    return _farthest(points.unsqueeze(0), min(size, count), first)[0]


def coreset_by_position(vectors_PNC: Tensor, size: int) -> Tensor:
    """Of N vectors at each of P positions, `size` that cover all there, (P, size, C)."""
    positions, count, channels = vectors_PNC.shape
    if count <= size:
        return vectors_PNC
    chosen = _farthest(vectors_PNC, size, 0)
    return vectors_PNC.gather(1, chosen.unsqueeze(2).expand(positions, size, channels))


def _farthest(points_PNC: Tensor, size: int, first: int) -> Tensor:
    """Indices (P, size) of points, each next one the farthest from those before, at each of P
    places by itself."""
    places, count, _ = points_PNC.shape
    every = torch.arange(places)
    squares_PN = points_PNC.square().sum(2)
    nearest_PN = torch.full((places, count), torch.inf)
    chosen = torch.full((places, size), first, dtype=torch.long)
    for number in range(1, size):
        last = chosen[:, number - 1]
        # One row times a matrix: twice as fast as a matrix times one column.
        centre_P1C = points_PNC[every, last].unsqueeze(1)
        sums_P1N = (squares_PN + squares_PN[every, last].unsqueeze(1)).unsqueeze(1)
        away_PN = torch.baddbmm(sums_P1N, centre_P1C, points_PNC.mT, alpha=-2).squeeze(1)
        torch.minimum(nearest_PN, away_PN, out=nearest_PN)
        chosen[:, number] = nearest_PN.argmax(1)
    return chosen
