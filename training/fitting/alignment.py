"""Where good parts lie in their images, learned from them: the template that all are brought to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.bundle import Align
from models.errors import ImageError
from models.image import InputSize, PixelContract, decode, resize
from training.data.folders import LabelledFile
from training.errors import DatasetError
from training.methods.train_context import evenly
from training.networks.alignment import FINE, Alignment, circles, local_contrast
from training.networks.warp import inside, middles, to_aligned

# Parts that the template is the mean of, at most, and how often it is made anew.
_PARTS, _ROUNDS = 40, 3
_PIVOTS = (0.06, 0.02), (0.02, 0.005)  # how far and in which steps a turn's middle is looked for
# The shorter side of what places are compared at.
_COMPARED = 256
# Good parts that lie in many ways are aligned; of a fixture's few, the place is worth judging, too:
# half of the parts turned by so many degrees, or shifted by such a share of the shorter side.
_TURNED, _SHIFTED = 10.0, 0.02
# How well parts agree with the mean of others in the contrast of each place, at least: textures do
# by 0.1, turned caps by 0.8, screws by 0.5.
_SHARED = 0.3
# The same in what tells the alignment, and how much more than when not aligned: along circles
# textures agree by 0.4 at most.
_ALIKE, _BETTER = 0.45, 0.2


@dataclass(frozen=True)
class LearnedAlignment:
    """The alignment, and where `parts` good parts lay: how far apart at most, as a share of the
    frame's shorter side, the spread of their turns in degrees, and how well they agree with their
    mean, 1 at most."""

    network: Alignment
    parts: int
    shift: float
    turn: float
    agreement: float

    def __str__(self) -> str:
        turns = f" and up to {self.turn:.0f}° turned" if self.network.rotates else ""
        text = (
            f"The parts are aligned: they lay up to {self.shift:.0%} of the image's shorter side "
            f"apart{turns}, and agree with their mean by {self.agreement:.2f}."
        )
        if self.agreement < _ALIKE:
            text += (
                " That is little: with --align none, or in another lighting, the verdict may be "
                "better."
            )
        return text


def suitable_alignment(
    files: Sequence[LabelledFile], typical: tuple[float, float], pixels: PixelContract
) -> Align:
    """How good parts should be aligned: where they lie in many ways, by what brings them to agree
    far better. `typical` are width and height of their images. Raises DatasetError."""
    shorter = min(typical)
    width, height = (round(_COMPARED * side / shorter) for side in typical)
    size = InputSize(height=height, width=width)
    images_B3HW = _read(evenly(files, _PARTS), size, pixels)
    turned_parts = _across_halves(images_B3HW, size, typical, rotates=True)
    if turned_parts.turned >= _TURNED and turned_parts.better:
        return "rotate"
    shifted_parts = _across_halves(images_B3HW, size, typical, rotates=False)
    if shifted_parts.shifted >= _SHIFTED and shifted_parts.better:
        return "shift"
    return "none"


@dataclass(frozen=True)
class _Agreement:
    """How parts agree with the mean of others that were aligned without them: in the contrast of
    each place, and in what tells the alignment, `aligned` and `otherwise`. Half of the parts are
    turned by `turned` degrees, and `shifted` by such a share of the shorter side."""

    contrast: float
    aligned: float
    otherwise: float
    turned: float
    shifted: float

    @property
    def better(self) -> bool:
        """Whether parts that share much share more of it when aligned."""
        return self.contrast >= _SHARED and self.aligned >= max(_ALIKE, self.otherwise + _BETTER)


def _across_halves(
    images_B3HW: Tensor, size: InputSize, typical: tuple[float, float], *, rotates: bool
) -> _Agreement:
    """A mean of parts that were aligned with each other agrees with them by construction: so half
    of them make the mean that the others are compared with."""
    contrast, aligned, otherwise, transforms = [], [], [], []
    with torch.inference_mode():
        for learned_B in (torch.arange(len(images_B3HW)) % 2 == half for half in (0, 1)):
            network = _learned(images_B3HW[learned_B], size, typical, rotates=rotates)
            found_B4, _ = network.found(images_B3HW)
            without_B4 = found_B4.clone()
            if rotates:
                without_B4[:, :2] = torch.tensor([1.0, 0.0])
            else:
                without_B4[:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
            seen = _spectra if rotates else _contrasts
            contrast.append(_similar(_contrasts(network, images_B3HW, found_B4), learned_B))
            aligned.append(_similar(seen(network, images_B3HW, found_B4), learned_B))
            otherwise.append(_similar(seen(network, images_B3HW, without_B4), learned_B))
            transforms.append(found_B4)
    place_B2 = transforms[0][:, 2:] - transforms[0][:, 2:].median(0).values
    return _Agreement(
        float(torch.cat(contrast).median()),
        float(torch.cat(aligned).median()),
        float(torch.cat(otherwise).median()),
        _spread_of_turns(transforms[0]),
        float(place_B2.norm(dim=1).median()) / 2,
    )


def _similar(values_BD: Tensor, learned_B: Tensor) -> Tensor:
    """The similarity (cosine) of each of the others with the mean of the learned ones."""
    mean_1D = values_BD[learned_B].mean(0, keepdim=True)
    return torch.cosine_similarity(values_BD[~learned_B], mean_1D, dim=1)


def _spectra(network: Alignment, images_B3HW: Tensor, transform_B4: Tensor) -> Tensor:
    """What each part (B, D) shows along circles around its middle."""
    spectra = network.spectra(network.working(images_B3HW), transform_B4)
    weight_M = network.weight_M.sqrt()
    return torch.cat([each * weight_M for each in spectra], 2).flatten(1)


def _contrasts(network: Alignment, images_B3HW: Tensor, transform_B4: Tensor) -> Tensor:
    """The contrast of each place (B, D)."""
    aligned = to_aligned(network.working(images_B3HW), transform_B4, network.extent)
    shown_BHW = inside(aligned.shape[2:], transform_B4, network.extent)
    return (local_contrast(aligned).squeeze(1) * shown_BHW).flatten(1)


def _spread_of_turns(transform_B4: Tensor) -> float:
    """By how many degrees half of the parts are turned against the mean at least."""
    cosine, sine = transform_B4[:, 0], transform_B4[:, 1]
    away_B = torch.atan2(sine, cosine) - torch.atan2(sine.mean(), cosine.mean())
    return float(torch.atan2(away_B.sin(), away_B.cos()).abs().median().rad2deg())


def learn_alignment(
    files: Sequence[LabelledFile],
    size: InputSize,
    typical: tuple[float, float],
    pixels: PixelContract,
    *,
    rotates: bool,
) -> LearnedAlignment:
    """Bring good parts to the place of the first one, and all to their mean, a few times.

    `typical` are width and height of their images. Raises DatasetError where none can be read.
    """
    images_B3HW = _read(evenly(files, _PARTS), size, pixels)
    network = _learned(images_B3HW, size, typical, rotates=rotates)
    with torch.inference_mode():
        transform_B4, agreement_B = network.found(images_B3HW)
    shift_B2, turn_B = transform_B4[:, 2:], torch.atan2(transform_B4[:, 1], transform_B4[:, 0])
    return LearnedAlignment(
        network,
        len(images_B3HW),
        float(torch.cdist(shift_B2, shift_B2).max()) / 2,
        _widest(turn_B.numpy()),
        float(agreement_B.mean()),
    )


def _learned(
    images_B3HW: Tensor, size: InputSize, typical: tuple[float, float], *, rotates: bool
) -> Alignment:
    shorter = min(typical)
    width, height = (2 * round(FINE / 2 * side / shorter) for side in typical)

    def aligned_to(template_HW: Tensor) -> Alignment:
        network = Alignment((size.height, size.width), template_HW, rotates=rotates)
        return network.eval()

    with torch.inference_mode():
        network = aligned_to(torch.zeros(height, width))
        working_B1HW = network.working(images_B3HW)
        first = working_B1HW[:1]
        if rotates:
            first = to_aligned(first, _pivot(first[0, 0], network.extent), network.extent)
        network = aligned_to(first[0, 0])
        for _ in range(_ROUNDS):
            transform_B4, _ = network.found(images_B3HW)
            mean_HW = to_aligned(working_B1HW, transform_B4, network.extent).mean(0)[0]
            network = aligned_to(mean_HW)
    return network


def _read(files: Sequence[LabelledFile], size: InputSize, pixels: PixelContract) -> Tensor:
    found = []
    for file in files:
        try:
            found.append(resize(decode(file.image.read_bytes(), pixels), size))
        except (OSError, ImageError):  # named with all other broken images, for their features
            continue
    if not found:
        raise DatasetError(
            f"None of {len(files)} images can be read, the first is {files[0].image}.",
            remedy="Give images that open in an image viewer.",
        )
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()


def _widest(turns: np.ndarray) -> float:
    """The largest turn between two parts, in degrees."""
    between = turns[:, None] - turns[None]
    return float(np.degrees(np.abs(np.arctan2(np.sin(between), np.cos(between))).max()))


def _pivot(grey_HW: Tensor, extent: tuple[float, float]) -> Tensor:
    """The transform (1, 4) that brings a part's middle to the frame's: the centre of what differs
    from the image's border, and near it the point around which the image looks most alike."""
    border = torch.cat([grey_HW[0], grey_HW[-1], grey_HW[:, 0], grey_HW[:, -1]]).median()
    differs = (grey_HW - border).abs()
    differs = (differs - 0.1 * differs.max()).clamp_min(0)
    x = extent[0] * middles(grey_HW.shape[1])
    y = extent[1] * middles(grey_HW.shape[0])
    weight = differs.sum().clamp_min(1e-6)
    middle = torch.stack([(differs * x).sum() / weight, (differs * y[:, None]).sum() / weight])
    for reach, step in _PIVOTS:
        offsets = torch.arange(-reach, reach + step / 2, step)
        tried_B2 = torch.cartesian_prod(offsets, offsets) + middle
        upright_B2 = torch.tensor([1.0, 0.0]).expand(len(tried_B2), -1)
        tried_B4 = torch.cat([upright_B2, tried_B2], 1)
        images_B1HW = grey_HW.expand(len(tried_B2), 1, -1, -1)
        seen_BRA = circles(images_B1HW, tried_B4, extent)
        middle = tried_B2[seen_BRA.var(2).sum(1).argmin()]
    return torch.cat([torch.tensor([1.0, 0.0]), middle])[None]
