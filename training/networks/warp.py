"""Images turned and shifted into one frame, and maps of that frame back into the image.

A transform is (cosine, sine, x, y): where a point of the aligned frame lies in the image, turned
about the frame's middle and shifted. Lengths are in halves of the frame's shorter side, so that a
turn stays a turn whatever the frame's proportions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TRANSFORM = 4  # values
Extent = tuple[float, float]  # half the width and half the height of a frame


def to_aligned(images_BCHW: Tensor, transform_B4: Tensor, extent: Extent) -> Tensor:
    """Images in the aligned frame. Beyond its border, an image goes on as its last pixel."""
    grid_BHW2 = _grid(images_BCHW.shape[2:], transform_B4, extent)
    aligned_BCHW: Tensor = F.grid_sample(
        images_BCHW, grid_BHW2, padding_mode="border", align_corners=False
    )
    return aligned_BCHW


def to_image(maps_BCHW: Tensor, transform_B4: Tensor, extent: Extent) -> Tensor:
    """Maps of the aligned frame where they lie in the image; 0 beyond."""
    cosine, sine, x, y = transform_B4.unbind(1)
    back_B4 = torch.stack([cosine, -sine, -(cosine * x + sine * y), sine * x - cosine * y], 1)
    grid_BHW2 = _grid(maps_BCHW.shape[2:], back_B4, extent)
    found_BCHW: Tensor = F.grid_sample(
        maps_BCHW, grid_BHW2, padding_mode="zeros", align_corners=False
    )
    return found_BCHW


def positions(across_HW: Tensor, down_HW: Tensor, transform_B4: Tensor, extent: Extent) -> Tensor:
    """Where points of the aligned frame lie in an image (B, H, W, 2), in `grid_sample`'s units."""
    cosine, sine, x, y = (each[:, None, None] for each in transform_B4.unbind(1))
    return torch.stack(
        [
            (cosine * across_HW - sine * down_HW + x) / extent[0],
            (sine * across_HW + cosine * down_HW + y) / extent[1],
        ],
        -1,
    )


def _grid(shape: torch.Size, transform_B4: Tensor, extent: Extent) -> Tensor:
    """`positions` of all pixels of a frame."""
    across = extent[0] * middles(shape[1])
    down = extent[1] * middles(shape[0])
    return positions(across[None, :], down[:, None], transform_B4, extent)


def inside(grid: Sequence[int], transform_B4: Tensor, extent: Extent) -> Tensor:
    """Which cells (B, H, W) of a grid on the aligned frame the image shows as a whole."""
    corners = [
        positions(
            extent[0] * (middles(grid[1]) + across / grid[1])[None, :],
            extent[1] * (middles(grid[0]) + down / grid[0])[:, None],
            transform_B4,
            extent,
        )
        for across in (-1, 1)
        for down in (-1, 1)
    ]
    farthest_BHW = torch.stack(corners).abs().amax((0, -1))
    return farthest_BHW <= 1


def compose(first_B4: Tensor, then_B4: Tensor) -> Tensor:
    """The transform that is `first` of what `then` makes of a point."""
    cosine, sine, x, y = first_B4.unbind(1)
    more_cosine, more_sine, more_x, more_y = then_B4.unbind(1)
    return torch.stack(
        [
            cosine * more_cosine - sine * more_sine,
            sine * more_cosine + cosine * more_sine,
            cosine * more_x - sine * more_y + x,
            sine * more_x + cosine * more_y + y,
        ],
        1,
    )


def turned(angle_B: Tensor) -> Tensor:
    """The transform (B, 4) of a turn by angles in radians, without a shift."""
    still_B = torch.zeros_like(angle_B)
    return torch.stack([angle_B.cos(), angle_B.sin(), still_B, still_B], 1)


def middles(count: int) -> Tensor:
    """The middles of so many pixels in a row that reaches from -1 to 1."""
    return (torch.arange(count) + 0.5) * 2 / count - 1
