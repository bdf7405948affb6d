"""The network's input: its size, and the views of its features."""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import ExifTags, Image

from models.backbone import Backbone, Stage
from models.bundle import Align
from models.image import InputSize, PixelContract
from training.backbones.aligned_graph import aligned_graph
from training.backbones.feature_graph import feature_graph, pixel_graph
from training.backbones.features import FeatureSource
from training.backbones.tiled_graph import Tiles
from training.backbones.views import FeatureView, ViewName, view_of
from training.data.folders import LabelledFile
from training.errors import DatasetError, TrainingError
from training.fitting.alignment import LearnedAlignment, learn_alignment, suitable_alignment
from training.fitting.settings import FitSettings
from training.methods.train_context import evenly
from training.networks.layout import FeatureLayout

# Of the shorter side, in pixels, where the size is chosen from the images.
SMALLEST, LARGEST = 256, 448
_LOOKED_AT = 200
_ON_ITS_SIDE = (5, 6, 7, 8)  # orientations of EXIF whose rows are the columns of what is seen
_CELLS = 16  # about so many along the shorter side, of a map of all stages


def feature_source(
    backbone: Backbone,
    views: Sequence[ViewName],
    files: Sequence[LabelledFile],
    settings: FitSettings,
) -> FeatureSource:
    """How images like `files` become the features that `views` need.

    Raises TrainingError where size, grid, tile and stages do not fit each other.
    """
    source = _upright_source(backbone, views, files, settings)
    found = find_alignment(files, source.size, settings)
    if found is None:
        return source
    network = found.network
    return replace(
        source,
        graph=aligned_graph(source.graph, network, (source.size.height, source.size.width)),
        layout=replace(source.layout, extent=network.extent),
    )


def with_alignment(files: Sequence[LabelledFile], settings: FitSettings) -> FitSettings:
    """The settings with the alignment that suits `files`, where none is chosen. Raises
    DatasetError."""
    if settings.align != "auto":
        return settings
    return replace(settings, align=_suitable(tuple(files), settings.pixels))


def find_alignment(
    files: Sequence[LabelledFile], size: InputSize, settings: FitSettings
) -> LearnedAlignment | None:
    """Where parts lie, learned from `files` for an input of this size, where they are aligned.
    Raises DatasetError."""
    align = with_alignment(files, settings).align
    if align == "none":
        return None
    return _alignment(tuple(files), size, settings.pixels, rotates=align == "rotate")


@functools.lru_cache(maxsize=4)
def _suitable(files: tuple[LabelledFile, ...], pixels: PixelContract) -> Align:
    return suitable_alignment(files, typical_size(files), pixels)


@functools.lru_cache(maxsize=4)
def _alignment(
    files: tuple[LabelledFile, ...], size: InputSize, pixels: PixelContract, *, rotates: bool
) -> LearnedAlignment:
    shape = typical_size(files) if size.resize == "stretch" else (size.width, size.height)
    return learn_alignment(files, size, shape, pixels, rotates=rotates)


def _upright_source(
    backbone: Backbone,
    views: Sequence[ViewName],
    files: Sequence[LabelledFile],
    settings: FitSettings,
) -> FeatureSource:
    """The same where nothing is aligned."""
    stages = _stages(backbone, settings.stages)
    if settings.size == "auto":
        typical = typical_size(files)
        width, height = scaled_size(
            typical, usual_side(min(typical)), backbone, settings.stages, settings.tile
        )
    else:
        size = settings.size
        width, height = size if isinstance(size, tuple) else (size, size)
    if "pixels" in views:
        if settings.tile:
            raise TrainingError(
                f"{settings.preset} sees pixels, and no backbone that could see tiles.",
                remedy="Leave --tile out, or choose another --preset.",
            )
        layout = FeatureLayout(((3, height, width),))
        input_size = InputSize(height=height, width=width, resize=settings.resize)
        return FeatureSource(pixel_graph(), input_size, settings.pixels, layout)
    made = [_view(name, stages, width, height, settings) for name in views]
    tiles = _tiles(made, width, height, settings.tile) if settings.tile else None
    layout = FeatureLayout(
        tuple((view.channels, height // view.cell, width // view.cell) for view in made)
    )
    return FeatureSource(
        feature_graph(backbone, made, tiles),
        InputSize(height=height, width=width, resize=settings.resize, tile=settings.tile),
        settings.pixels,
        layout,
    )


def typical_size(files: Sequence[LabelledFile]) -> tuple[float, float]:
    """The median width and height of the images as they are seen. Raises DatasetError where none
    can be read."""
    sizes = []
    for file in evenly(files, _LOOKED_AT):
        try:
            with Image.open(file.image) as image:
                width, height = image.size
                lies = image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
                sizes.append((height, width) if lies else (width, height))
        except OSError:  # named with all other broken images, when features are computed
            continue
    if not sizes:
        raise DatasetError(
            f"None of {len(files)} images can be read, the first is {files[0].image}.",
            remedy="Give images that open in an image viewer.",
        )
    typical = np.median(np.array(sizes), 0)
    return float(typical[0]), float(typical[1])


def usual_side(own: float) -> float:
    """The shorter side of the input of images with a shorter side of `own` pixels: as it is, within
    bounds."""
    return min(max(own, SMALLEST), LARGEST)


def scaled_size(
    typical: tuple[float, float],
    shorter: float,
    backbone: Backbone,
    stages: tuple[str, ...] = (),
    tile: int | None = None,
) -> tuple[int, int]:
    """Width and height in the proportion of the images' typical size, the shorter about `shorter`:
    multiples of each stage's stride, and of `tile`."""
    strides = [stage.stride for stage in _stages(backbone, stages)]
    step = math.lcm(*strides, tile or 1)
    scale = shorter / min(typical)
    width, height = (max(step, round(side * scale / step) * step) for side in typical)
    return width, height


def _view(
    name: ViewName, stages: tuple[Stage, ...], width: int, height: int, settings: FitSettings
) -> FeatureView:
    shorter = min(height, width)
    cells = settings.grid
    seen = view_of(name, stages, 1).stages
    cell = shorter // cells if cells else _cell(seen, width, height, settings.tile)
    if name in ("all", "last") and (height % cell or width % cell or (cells and shorter % cells)):
        raise TrainingError(
            f"A grid of {cells or shorter // cell} does not divide an input of {width}×{height} "
            "pixels.",
            remedy="Choose --size as a multiple of --grid.",
        )
    view = view_of(name, stages, cell)
    for stage in view.stages:
        if view.cell % stage.stride and stage.stride % view.cell:
            raise TrainingError(
                f"Stage {stage.name} has a stride of {stage.stride}, which does not fit cells of "
                f"{view.cell} pixels.",
                remedy="Leave that stage out with --stages, or choose another --grid.",
            )
        if height % stage.stride or width % stage.stride or height % view.cell or width % view.cell:
            raise TrainingError(
                f"An input of {width}×{height} pixels is no multiple of a stage's stride of "
                f"{stage.stride} and of cells of {view.cell} pixels.",
                remedy="Choose another --size, or leave that stage out with --stages.",
            )
    return view


def _cell(stages: Sequence[Stage], width: int, height: int, tile: int | None) -> int:
    """The side in pixels of a cell of all stages: about a sixteenth of the shorter side, or 16 of a
    tile, so that cells divide the input and fit each stage's."""
    wanted = 16 if tile else min(height, width) // _CELLS
    common = math.gcd(height, width)
    fitting = [
        cell
        for cell in range(1, common + 1)
        if common % cell == 0
        and all(cell % stage.stride == 0 or stage.stride % cell == 0 for stage in stages)
    ]
    return min(fitting, key=lambda cell: abs(math.log(cell / wanted)))


def _tiles(views: Sequence[FeatureView], width: int, height: int, tile: int) -> Tiles:
    strides = [stage.stride for view in views for stage in view.stages]
    stride = math.lcm(max(strides), *(view.cell for view in views))
    if tile % stride or height % tile or width % tile:
        raise TrainingError(
            f"Tiles of {tile} pixels do not divide an input of {width}×{height}, or are no "
            f"multiple of {stride}.",
            remedy=f"Choose --tile and --size so, for instance --tile {16 * stride}.",
        )
    return Tiles(height, width, tile, stride)


def _stages(backbone: Backbone, names: tuple[str, ...]) -> tuple[Stage, ...]:
    known = {stage.name: stage for stage in backbone.manifest.stages}
    unknown = set(names) - set(known)
    if unknown:
        raise TrainingError(
            f"The backbone has no stage {', '.join(sorted(unknown))}.",
            remedy=f"Choose --stages among {', '.join(known)}.",
        )
    return tuple(known[name] for name in names or known)
