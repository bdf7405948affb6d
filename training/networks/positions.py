"""Positions of a grid: blocks of cells that share their statistics.

A finer grid has more cells, but not more good parts to learn each from, and statistics kept for
each cell would outgrow memory. P positions, N tokens of one position, K channels.
"""

from collections.abc import Sequence

from torch import Tensor

MOST_PER_SIDE = 16


def positions_of(height: int, width: int, most: int = MOST_PER_SIDE) -> tuple[int, int]:
    """Rows and columns of positions on a grid, `most` along each side where the grid allows it."""
    return even_part(height, most), even_part(width, most)


def even_part(cells: int, most: int = MOST_PER_SIDE) -> int:
    """The largest divisor up to `most`; where that is less than half, the smallest one beyond."""
    divisors = [count for count in range(1, cells + 1) if cells % count == 0]
    few = max(count for count in divisors if count <= most)
    if cells <= most or few >= most // 2:
        return few
    return min(count for count in divisors if count > most)


def by_position(features_BKHW: Tensor, positions: tuple[int, int]) -> Tensor:
    """The cells of every position together, (P, N, K): batch, then row, then column."""
    rows, columns = positions
    blocks: Tensor = features_BKHW.unflatten(3, (columns, -1))
    blocks = blocks.unflatten(2, (rows, -1))  # B K R h C w
    return blocks.permute(2, 4, 0, 3, 5, 1).flatten(2, 4).flatten(0, 1)


def by_cell(tokens_PNK: Tensor, positions: tuple[int, int], grid: Sequence[int]) -> Tensor:
    """The inverse of `by_position`, (B, K, H, W)."""
    (rows, columns), (height, width) = positions, grid
    blocks: Tensor = tokens_PNK.unflatten(0, (rows, columns))
    blocks = blocks.unflatten(2, (-1, height // rows, width // columns))  # R C B h w K
    return blocks.permute(2, 5, 0, 3, 1, 4).flatten(4, 5).flatten(2, 3)
