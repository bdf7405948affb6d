"""Where a part lies in its image: shifted, or shifted and turned, against the mean good part.

Brightness is compared by normalised cross-correlation, first over all shifts and turns at a coarse
resolution. Lights stand still while parts turn, so a round part's shading would be matched rather
than its print: turns are then told from circles around the part's middle, of which slow changes
along each circle are left out (as in Fourier-Mellin registration, Reddy & Chatterji 1996). R are
radii, M frequencies, K turns, A angles.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.warp import Extent, compose, middles, positions, to_aligned, turned

# Pixels along the shorter side of the frame: where a part lies is found coarsely, then finely.
COARSE, FINE = 32, 128
_REACH = 6  # coarse pixels by which a part is shifted at most, beyond a longer side's own room
_REFINED = 5  # fine pixels by which a coarse shift is mended at most
_TURNS = 24  # that the coarse search tries
_ANGLES, _RADII = 360, 48  # of the circles
# Changes along a circle that count, in periods: slower ones are lights, and for a first look faster
# ones are left out, which repeat (teeth, letters).
_SLOW, _FAST, _FASTEST = 8, 40, 90
_TURN_STEPS = 1440  # a quarter of a degree each
_REFINED_TURN = math.radians(4)
_SHARPNESS = 300.0  # of the mean over shifts near the best one
_DARKEST = 0.02  # of the local contrast that counts as any


class Alignment(nn.Module):
    """uint8 images (B, H, W, 3) to the same in the template's frame, and the transform (B, 4) of
    each (see `warp`).

    `template_HW` is the mean of aligned good parts in grey, 0 to 1, of `FINE` pixels along the
    shorter side. With `rotates`, parts are turned in any way, and the part's middle lies in the
    middle of the template.
    """

    def __init__(self, size: tuple[int, int], template_HW: Tensor, *, rotates: bool) -> None:
        super().__init__()
        height, width = size
        self.rotates = rotates
        self.extent: Extent = (template_HW.shape[1] / FINE, template_HW.shape[0] / FINE)
        fine = (template_HW.shape[0], template_HW.shape[1])
        coarse = (round(fine[0] * COARSE / FINE), round(fine[1] * COARSE / FINE))
        for name, grid in (("fine", fine), ("coarse", coarse)):
            self._constant(f"{name}_rows", _averages(height, grid[0]))
            self._constant(f"{name}_columns", _averages(width, grid[1]))
        small = _averages(fine[0], coarse[0]) @ template_HW @ _averages(fine[1], coarse[1]).T
        self._constant("fine_mask", _compared(fine, rotates=rotates))
        self._constant("coarse_mask", _compared(coarse, rotates=rotates))
        turns = torch.arange(_TURNS if rotates else 1) * 2 * math.pi / _TURNS
        self._constant("coarse_K1HW", self._templates(small, turns, self.coarse_mask))
        self._constant("fine_K1HW", self._templates(template_HW, turns[:1], self.fine_mask))
        frequency = torch.arange(1, _FASTEST + 1)
        angle = torch.arange(_ANGLES) * 2 * math.pi / _ANGLES
        self._constant("cosine_AM", torch.cos(torch.outer(angle, frequency)))
        self._constant("sine_AM", torch.sin(torch.outer(angle, frequency)))
        quick = 1 - torch.sinc(frequency / _SLOW)
        self._constant("weight_M", quick.square())
        self._constant("first_weight_M", quick.square() * torch.sinc(frequency / _FAST) ** 4)
        still = turned(torch.zeros(1))
        real_RM, imaginary_RM = self.spectra(template_HW[None, None], still)
        self._constant("template_real_RM", real_RM[0])
        self._constant("template_imaginary_RM", imaginary_RM[0])
        self.fine_rows: Tensor
        self.fine_columns: Tensor
        self.coarse_rows: Tensor
        self.coarse_columns: Tensor
        self.fine_mask: Tensor
        self.coarse_mask: Tensor
        self.coarse_K1HW: Tensor
        self.fine_K1HW: Tensor
        self.cosine_AM: Tensor
        self.sine_AM: Tensor
        self.weight_M: Tensor
        self.first_weight_M: Tensor
        self.template_real_RM: Tensor
        self.template_imaginary_RM: Tensor

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float(), persistent=False)

    def forward(self, image_BHW3: Tensor) -> tuple[Tensor, Tensor]:
        pixels_B3HW = image_BHW3.permute(0, 3, 1, 2).float()
        transform_B4, _ = self.found(pixels_B3HW)
        aligned_B3HW = to_aligned(pixels_B3HW, transform_B4, self.extent)
        return aligned_B3HW.round().to(torch.uint8).permute(0, 2, 3, 1), transform_B4

    def found(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The transform (B, 4) of images, 0 to 255, and how well each then agrees with the
        template (B), 1 at most."""
        grey_B1HW = pixels_B3HW.mean(1, keepdim=True) / 255
        fine_B1HW = self.working(pixels_B3HW)
        transform_B4 = self._searched(self.coarse_rows @ grey_B1HW @ self.coarse_columns.T)
        transform_B4, agreement_B = self._shifted(fine_B1HW, transform_B4)
        if self.rotates:
            transform_B4 = self._turned(fine_B1HW, transform_B4, self.first_weight_M)
            transform_B4, _ = self._shifted(fine_B1HW, transform_B4)
            transform_B4 = self._turned(fine_B1HW, transform_B4, self.weight_M, most=_REFINED_TURN)
            transform_B4, agreement_B = self._shifted(fine_B1HW, transform_B4)
        return transform_B4, agreement_B

    def working(self, pixels_B3HW: Tensor) -> Tensor:
        """Images, 0 to 255, in grey (B, 1, h, w), 0 to 1, at the template's resolution."""
        grey_B1HW = pixels_B3HW.mean(1, keepdim=True) / 255
        working_B1HW: Tensor = self.fine_rows @ grey_B1HW @ self.fine_columns.T
        return working_B1HW

    def _templates(self, template_HW: Tensor, turns_K: Tensor, mask_HW: Tensor) -> Tensor:
        """The template's local contrast turned by angles, (K, 1, h, w): of mean 0 and length 1
        where it is compared, which is as large as `mask`."""
        contrast = local_contrast(template_HW[None, None])
        if self.rotates:
            back_K4 = turned(-turns_K)
            contrast = to_aligned(contrast.expand(len(turns_K), -1, -1, -1), back_K4, self.extent)
        rows = (contrast.shape[2] - mask_HW.shape[0]) // 2
        columns = (contrast.shape[3] - mask_HW.shape[1]) // 2
        inside = contrast[
            :, :, rows : rows + mask_HW.shape[0], columns : columns + mask_HW.shape[1]
        ]
        mean = (inside * mask_HW).sum((2, 3), keepdim=True) / mask_HW.sum()
        centred = (inside - mean) * mask_HW
        length_K = centred.flatten(1).norm(dim=1).clamp_min(1e-6)
        templates: Tensor = centred / length_K[:, None, None, None]
        return templates

    def _searched(self, grey_B1HW: Tensor) -> Tensor:
        """The best of all turns and shifts at the coarse resolution."""
        similar_BKHW = _correlation(
            local_contrast(grey_B1HW), self.coarse_K1HW, self.coarse_mask, _REACH
        )
        rows, columns = similar_BKHW.shape[2:]
        best_B = similar_BKHW.flatten(1).argmax(1)
        turn_B = torch.div(best_B, rows * columns, rounding_mode="floor")
        place_B = best_B - turn_B * (rows * columns)
        row_B = torch.div(place_B, columns, rounding_mode="floor")
        column_B = place_B - row_B * columns
        angle_B = turn_B * (2 * math.pi / _TURNS)
        down_B = (row_B - (rows - 1) / 2) * (2 / COARSE)
        across_B = (column_B - (columns - 1) / 2) * (2 / COARSE)
        return torch.stack([angle_B.cos(), angle_B.sin(), across_B, down_B], 1)

    def _shifted(self, grey_B1HW: Tensor, transform_B4: Tensor) -> tuple[Tensor, Tensor]:
        """The transform with a finer shift: the mean of those near the best one; and how well the
        best one agrees (B)."""
        aligned = to_aligned(grey_B1HW, transform_B4, self.extent)
        similar_B1HW = _correlation(
            local_contrast(aligned), self.fine_K1HW, self.fine_mask, _REFINED, near=True
        )
        steps = torch.arange(-_REFINED, _REFINED + 1) * (2 / FINE)
        share_B1HW = (_SHARPNESS * similar_B1HW).flatten(1).softmax(1).view_as(similar_B1HW)
        across_B = (share_B1HW.sum((1, 2)) * steps).sum(1)
        down_B = (share_B1HW.sum((1, 3)) * steps).sum(1)
        shift_B4 = torch.stack(
            [torch.ones_like(down_B), torch.zeros_like(down_B), across_B, down_B], 1
        )
        return compose(transform_B4, shift_B4), similar_B1HW.flatten(1).amax(1)

    def _turned(
        self, grey_B1HW: Tensor, transform_B4: Tensor, weight_M: Tensor, most: float = math.pi
    ) -> Tensor:
        """The transform with a better angle, changed by `most` at most."""
        real_BRM, imaginary_BRM = self.spectra(grey_B1HW, transform_B4)
        real, imaginary = self.template_real_RM, self.template_imaginary_RM
        cross_BM = (real * real_BRM + imaginary * imaginary_BRM).sum(1) * weight_M
        turned_BM = (real * imaginary_BRM - imaginary * real_BRM).sum(1) * weight_M
        steps = round(most / (2 * math.pi) * _TURN_STEPS)
        angle_A = torch.arange(-steps, steps + 1) * (2 * math.pi / _TURN_STEPS)
        phase_MA = torch.outer(torch.arange(1, _FASTEST + 1), angle_A)
        similar_BA = cross_BM @ phase_MA.cos() + turned_BM @ phase_MA.sin()
        angle_B = (similar_BA.argmax(1) - steps) * (2 * math.pi / _TURN_STEPS)
        return compose(transform_B4, turned(angle_B))

    def spectra(self, grey_B1HW: Tensor, transform_B4: Tensor) -> tuple[Tensor, Tensor]:
        """How grey changes along circles around the part's middle: real and imaginary part of each
        frequency (B, R, M), each radius by its length."""
        seen_BRA = circles(grey_B1HW, transform_B4, self.extent)
        return seen_BRA @ self.cosine_AM, seen_BRA @ self.sine_AM


def circles(grey_B1HW: Tensor, transform_B4: Tensor, extent: Extent) -> Tensor:
    """Grey along circles around the part's middle (B, R, A), by the root of their length."""
    radius_R = (torch.arange(_RADII) + 0.5) / _RADII
    angle_A = torch.arange(_ANGLES) * 2 * math.pi / _ANGLES
    across_RA = torch.outer(radius_R, angle_A.cos())
    down_RA = torch.outer(radius_R, angle_A.sin())
    grid_BRA2 = positions(across_RA, down_RA, transform_B4, extent)
    seen_B1RA = F.grid_sample(grey_B1HW, grid_BRA2, padding_mode="border", align_corners=False)
    weighted_BRA: Tensor = seen_B1RA.squeeze(1) * radius_R.sqrt()[:, None]
    return weighted_BRA


def _averages(pixels: int, cells: int) -> Tensor:
    """The matrix (cells, pixels) of means over cells, which need not be whole pixels."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    starts = torch.arange(pixels, dtype=torch.float64)
    upper = torch.minimum(edges[1:, None], starts + 1)
    lower = torch.maximum(edges[:-1, None], starts)
    covered = (upper - lower).clamp_min(0)
    return (covered / covered.sum(1, keepdim=True)).float()


def _compared(grid: tuple[int, int], *, rotates: bool) -> Tensor:
    """Which pixels of a template are compared (h, w): all, or a circle that turns within itself."""
    if not rotates:
        return torch.ones(grid)
    side = min(grid)
    row = middles(side)
    return (row.square()[:, None] + row.square() <= 1).float()


def local_contrast(grey_B1HW: Tensor) -> Tensor:
    """Grey less its surroundings' mean, in units of their contrast."""
    side, around = (7, 15) if min(grey_B1HW.shape[2:]) <= COARSE else (11, 33)
    above = grey_B1HW - _surroundings(grey_B1HW, side)
    return above / (_surroundings(above.square(), around).sqrt() + _DARKEST)


def _surroundings(maps_B1HW: Tensor, side: int) -> Tensor:
    """The mean over a square of an odd side around each pixel, the last pixel going on beyond."""
    rows, columns = (_moving_mean(count, side) for count in maps_B1HW.shape[2:])
    # By products: pooling over large squares takes ten times as long in ONNX Runtime.
    return rows @ maps_B1HW @ columns.T


def _moving_mean(count: int, side: int) -> Tensor:
    """The matrix (count, count) of means over `side` values around each."""
    near = torch.arange(count)[:, None] + torch.arange(side) - side // 2
    matrix = torch.zeros(count, count)
    return matrix.scatter_add_(1, near.clamp(0, count - 1), torch.full(near.shape, 1 / side))


def _correlation(
    maps_B1HW: Tensor, templates_K1HW: Tensor, mask_HW: Tensor, reach: int, *, near: bool = False
) -> Tensor:
    """Normalised cross-correlation with templates (B, K, rows, columns), at all shifts by `reach`
    pixels at most and by what the maps are larger than the templates; or, `near`, by `reach` alone.
    """
    padded = F.pad(maps_B1HW, [reach] * 4, mode="replicate")
    if near:
        height, width = (side + 2 * reach for side in mask_HW.shape)
        top, left = (padded.shape[2] - height) // 2, (padded.shape[3] - width) // 2
        padded = padded[:, :, top : top + height, left : left + width]
    mask_11HW = mask_HW[None, None]
    mean = F.conv2d(padded, mask_11HW) / mask_HW.sum()
    squares = F.conv2d(padded.square(), mask_11HW) - mask_HW.sum() * mean.square()
    return F.conv2d(padded, templates_K1HW) / squares.clamp_min(1e-6).sqrt()
