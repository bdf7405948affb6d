"""What is served in the benchmarks: bundles of known size, and camera images of 1.3 megapixels."""

import io
from pathlib import Path

import torch
from PIL import Image

from models.backbone import MANIFEST, open_backbone
from training.backbones.sources import _complete_torchvision, pull_backbone
from training.data.demo_product import write_demo
from training.data.folders import read_mvtec
from training.directories import Directories
from training.fitting.fit import fit
from training.fitting.settings import FitSettings

# Only what they cost counts: their weights are random.
ARCHITECTURES = {"efficientnet_b4": "efficientnet_b4", "mobilenet_v2": "mobilenetv2_100"}
SIDES = (1280, 1024)


def camera_images(work: Path, count: int = 16) -> list[bytes]:
    """JPEG files of a drawn part, each another one."""
    folder = work / "parts"
    if not folder.exists():
        write_demo(folder, good=count, test_good=2, per_defect=1, size=1024, seed=5)
    images = []
    for path in sorted((folder / "train" / "good").iterdir())[:count]:
        buffer = io.BytesIO()
        Image.open(path).resize(SIDES).save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    return images


def quantisers(jpeg: bytes) -> int:
    """Where the steps of middle frequencies begin, of which a change shows a little everywhere."""
    table = b"\xff\xdb\x00\x43\x00"
    return jpeg.index(table) + len(table) + 20


def bundle_of(name: str, work: Path) -> Path:
    """A store with one recipe, `cap`, of a bundle on a backbone of this size."""
    store = work / name / "store"
    if (store / "cap" / "1").exists():
        return store
    product = work / "product"
    if not product.exists():
        write_demo(product, good=30, test_good=4, per_defect=2, size=256)
    settings = FitSettings("cap", preset="adtr-whitened", size=256, grid=16, steps=10)
    backbone = _random_backbone(name, work / "backbones")
    fit(
        read_mvtec(product),
        open_backbone(backbone),
        settings,
        Directories(store, work / name / "cache"),
    )
    return store


def _random_backbone(name: str, root: Path) -> Path:
    if not (root / name / MANIFEST).exists():
        _complete_torchvision()
        import timm

        torch.manual_seed(0)
        weights = root / f"{name}.pth"
        root.mkdir(parents=True, exist_ok=True)
        architecture = ARCHITECTURES[name]
        torch.save(timm.create_model(architecture, pretrained=False).state_dict(), weights)
        pull_backbone(architecture, root, name=name, weights=weights)
        weights.unlink()
    return root / name
