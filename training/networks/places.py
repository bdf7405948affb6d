"""Grids cut into places: blocks of cells that share what is known of them.

A finer grid has more cells, but not more good parts to learn each from; and what is kept for each
place would outgrow memory. P places, N tokens of one place, K channels.
"""

from torch import Tensor

# Per side, if the grid can be cut so. On a grid of 16 each cell is a place.
MOST = 16


def places_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of places on a grid."""
    return even_part(height), even_part(width)


def even_part(cells: int) -> int:
    """The largest divisor up to 16; where that is less than 8, the smallest one beyond."""
    divisors = [count for count in range(1, cells + 1) if cells % count == 0]
    few = max(count for count in divisors if count <= MOST)
    if cells <= MOST or few >= MOST // 2:
        return few
    return min(count for count in divisors if count > MOST)


def by_place(features_BKHW: Tensor, places: tuple[int, int]) -> Tensor:
    """The cells of every place together, (P, N, K): batch, then row, then column."""
    rows, columns = places
    blocks = features_BKHW.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # B K R h C w
    return blocks.permute(2, 4, 0, 3, 5, 1).flatten(2, 4).flatten(0, 1)


def by_cell(tokens_PNK: Tensor, places: tuple[int, int], grid: tuple[int, ...]) -> Tensor:
    """The inverse of `by_place`, (B, K, H, W)."""
    (rows, columns), (height, width) = places, grid
    blocks = tokens_PNK.unflatten(0, (rows, columns))
    blocks = blocks.unflatten(2, (-1, height // rows, width // columns))  # R C B h w K
    return blocks.permute(2, 5, 0, 3, 1, 4).flatten(4, 5).flatten(2, 3)
