"""Good parts mirrored: more good parts, where a product looks the same."""

from dataclasses import replace

import numpy as np

from models.bundle import Mirror
from models.image import Pixels
from training.data.folders import LabelledFile

MIRRORS: tuple[Mirror, ...] = ("left-right", "top-bottom", "half-turn")


def mirrored(file: LabelledFile, mirror: Mirror) -> LabelledFile:
    """The file's mirror image: of the same image file, with a hash of its own as its name."""
    return replace(file, sha256=f"{file.sha256}-{mirror}")


def mirror_pixels(image: Pixels, mirror: Mirror) -> Pixels:
    """An image (H, W, 3) mirrored."""
    match mirror:
        case "left-right":
            return np.ascontiguousarray(image[:, ::-1])
        case "top-bottom":
            return np.ascontiguousarray(image[::-1])
        case "half-turn":
            return np.ascontiguousarray(image[::-1, ::-1])
