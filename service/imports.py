"""Labelled images in the formats of others, sent to a service as inspections and labels.

Through the API, so that they are inspected as any other part is, and checked as any other label.
Keys are made of what is sent: an import that was interrupted goes on where it was.
"""

import base64
import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.errors import KizuError
from models.image import encode_png
from service.areas import filled
from service.client import Kizu
from service.schemas import FeedbackRequest
from service.spreadsheets import restored

ImportFormat = Literal["mvtec", "coco", "masks"]
_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}


class ImportingError(KizuError):
    """A folder that does not hold what its format says."""


@dataclass(frozen=True)
class Labelled:
    """One image file, and what is known of it; `mask` is a PNG of its size."""

    image: Path
    verdict: Literal["ok", "ng"]
    defect_class: str | None = None
    mask: bytes | None = None


def read_labelled(folder: Path, format: ImportFormat) -> list[Labelled]:
    """All labelled images of a folder. Raises ImportingError.

    `mvtec`: train/good, test/<good or defect>, ground_truth/<defect>/<stem>_mask.png. `coco`:
    annotations.json; images without an annotation are good. `masks`: labels.csv with the columns
    image, label, defect_class and mask.
    """
    readers = {"mvtec": _mvtec, "coco": _coco, "masks": _masks}
    try:
        found = list(readers[format](folder))
    except (OSError, KeyError, ValueError) as error:
        raise ImportingError(
            f"{folder} cannot be read as {format}: {type(error).__name__} {error}.",
            remedy="Name the folder that holds the whole set, and its format.",
        ) from error
    if not found:
        raise ImportingError(f"{folder} holds no labelled images in the format {format}.")
    return found


def send(kizu: Kizu, labelled: Labelled, recipe: str, operator: str) -> str:
    """Have one inspected and labelled; its inspection's id. Raises Refused or NoAnswer."""
    image = labelled.image.read_bytes()
    name = hashlib.sha256(image + recipe.encode()).hexdigest()[:40]
    result = kizu.inspect(
        image, recipe=recipe, image_type=_TYPES[labelled.image.suffix.lower()],
        part_id=labelled.image.stem, key=f"import-{name}",
    )  # fmt: skip
    facts: dict[str, Any] = {
        "inspection_id": result.id,
        "verdict": labelled.verdict,
        "operator": operator,
    }
    if labelled.verdict == "ng" and labelled.defect_class:
        facts["defect_class"] = labelled.defect_class
    if labelled.mask:
        facts["mask"] = base64.b64encode(labelled.mask).decode()
    said = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:40]
    kizu.label(FeedbackRequest.model_validate(facts), key=f"import-{said}")
    return result.id


def _mvtec(folder: Path) -> Iterator[Labelled]:
    for image in _images(folder / "train" / "good"):
        yield Labelled(image, "ok")
    test = folder / "test"
    for kind in sorted(test.iterdir()) if test.is_dir() else []:
        for image in _images(kind):
            if kind.name == "good":
                yield Labelled(image, "ok")
                continue
            mask = folder / "ground_truth" / kind.name / f"{image.stem}_mask.png"
            drawn = mask.read_bytes() if mask.exists() else None
            yield Labelled(image, "ng", kind.name, drawn)


def _masks(folder: Path) -> Iterator[Labelled]:
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as lines:
        for line in csv.DictReader(lines):
            mask = folder / line["mask"] if line["mask"] else None
            yield Labelled(
                _inside(folder, line["image"]),
                "ok" if line["label"] == "ok" else "ng",
                restored(line["defect_class"]) or None,
                _inside(folder, line["mask"]).read_bytes() if mask else None,
            )


def _coco(folder: Path) -> Iterator[Labelled]:
    document = json.loads((folder / "annotations.json").read_text("utf-8"))
    names = {one["id"]: one["name"] for one in document["categories"]}
    shapes: dict[int, list[dict[str, Any]]] = {}
    for one in document["annotations"]:
        shapes.setdefault(one["image_id"], []).append(one)
    for image in document["images"]:
        path = _inside(folder, image["file_name"])
        of_image = shapes.get(image["id"], [])
        if not of_image:
            yield Labelled(path, "ok")
            continue
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for shape in of_image:
            _draw(mask, shape)
        drawn = encode_png(mask) if mask.any() else None
        yield Labelled(path, "ng", names[of_image[0]["category_id"]], drawn)


def _draw(mask: np.ndarray, shape: dict[str, Any]) -> None:
    polygons = shape.get("segmentation") or []
    if isinstance(polygons, dict):
        raise ImportingError(
            "An annotation is run-length encoded; polygons and boxes can be imported.",
            remedy="Export the set with polygons.",
        )
    for polygon in polygons:
        mask[filled(np.array(polygon, np.float64).reshape(-1, 2), *mask.shape)] = 255
    if not polygons and "bbox" in shape:
        x, y, width, height = (round(value) for value in shape["bbox"])
        mask[max(y, 0) : y + height, max(x, 0) : x + width] = 255


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _TYPES)


def _inside(folder: Path, name: str) -> Path:
    """A file of the set; a name that leads out of it is refused."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix.lower() not in _TYPES:
        raise ImportingError(f"{name!r} is not an image of this set.")
    return path
