"""A few vectors that cover many: each next one is the farthest from those chosen (k-center greedy).

PatchCore (Roth et al., arXiv 2106.08265) chooses its memory so. Rare vectors of good parts are kept
where a random choice would lose them.
"""

import torch
from torch import Tensor

SHORTLIST = 256


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
    return _farthest_lazily(points, min(size, count), first)


def coreset_by_position(vectors_PNC: Tensor, size: int) -> Tensor:
    """Of N vectors at each of P positions, `size` that cover all there, (P, size, C)."""
    positions, count, channels = vectors_PNC.shape
    if count <= size:
        return vectors_PNC
    chosen = _farthest(vectors_PNC, size, 0)
    return vectors_PNC.gather(1, chosen.unsqueeze(2).expand(positions, size, channels))


def _farthest_lazily(points_NC: Tensor, size: int, first: int) -> Tensor:
    """Indices (size) of points, each next one the farthest from those before.

    Several are chosen among the farthest `SHORTLIST` before all distances are computed anew, in one
    product: as long as the farthest on the list is no nearer than all that are not on it were, it
    is the farthest of all.
    """
    squares_N = torch.linalg.vector_norm(points_NC, dim=1).square()
    nearest_N = torch.full_like(squares_N, torch.inf)
    chosen, new = [first], [first]
    while len(chosen) < size:
        centre_MC = points_NC[new]
        away_MN = torch.addmm(squares_N, centre_MC, points_NC.T, alpha=-2)
        away_MN += squares_N[new].unsqueeze(1)
        nearest_N = torch.minimum(nearest_N, away_MN.amin(0))
        nearest_N[new] = -torch.inf  # not 0: none twice, even where all are alike
        far_S, listed_S = nearest_N.topk(min(SHORTLIST, len(points_NC)))
        between_SS = torch.cdist(points_NC[listed_S], points_NC[listed_S]).square()
        least, new = float(far_S[-1]), []
        while len(chosen) < size and (not new or float(far_S.max()) >= least):
            number = int(far_S.argmax())
            new.append(int(listed_S[number]))
            chosen.append(new[-1])
            far_S = torch.minimum(far_S, between_SS[number])
            far_S[number] = -torch.inf
            if len(new) == SHORTLIST:
                break
    return torch.tensor(chosen)


def _farthest(points_PNC: Tensor, size: int, first: int) -> Tensor:
    """Indices (P, size) of points, each next one the farthest from those before, at each of P
    places by itself."""
    places, count, _ = points_PNC.shape
    every = torch.arange(places)
    squares_PN = torch.linalg.vector_norm(points_PNC, dim=2).square()
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
