"""Regions of a heatmap that reach a threshold, in the pixels of the image that was sent."""

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from service.engine import Floats

MOST = 32


class Box(BaseModel):
    """A rectangle in pixels of the original image; x and y are its top left corner."""

    model_config = ConfigDict(extra="forbid")

    x: int
    y: int
    width: int
    height: int


class Region(BaseModel):
    """A connected area at or above the review threshold. `peak` is a raw heatmap value."""

    box: Box
    area: int
    peak: float
    contour: list[tuple[int, int]]
    area_mm2: float | None = None  # where the recipe says how large a pixel is

    def in_millimetres(self, mm_per_pixel: float) -> "Region":
        """The same with its area in square millimetres."""
        return self.model_copy(update={"area_mm2": round(self.area * mm_per_pixel**2, 4)})


def find_regions(heatmap: Floats, threshold: float, *, width: int, height: int) -> list[Region]:
    """The regions of a heatmap (h, w) of an image of `width` × `height`, the highest peak first.

    At most `MOST` are given; areas are in square pixels of the image.
    """
    above = (heatmap >= threshold).astype(np.uint8)
    outlines, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array([width / heatmap.shape[1], height / heatmap.shape[0]])
    regions = [_region(heatmap, above, outline, scale) for outline in outlines]
    return sorted(regions, key=lambda region: -region.peak)[:MOST]


def _region(heatmap: Floats, above: np.ndarray, outline: np.ndarray, scale: np.ndarray) -> Region:
    x, y, width, height = cv2.boundingRect(outline)
    inside = np.zeros((height, width), np.uint8)
    cv2.drawContours(inside, [outline - (x, y)], 0, 1, cv2.FILLED)
    inside &= above[y : y + height, x : x + width]
    left, top = np.floor((x, y) * scale).astype(int)
    right, bottom = np.ceil((x + width, y + height) * scale).astype(int)
    points = np.floor((outline[:, 0] + 0.5) * scale).astype(int)
    return Region(
        box=Box(x=left, y=top, width=right - left, height=bottom - top),
        area=round(float(inside.sum()) * float(scale.prod())),
        peak=float(heatmap[y : y + height, x : x + width][inside > 0].max()),
        contour=[(int(px), int(py)) for px, py in points],
    )
