"""Regions of a heatmap that reach a threshold, in the pixels of the image that was sent."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from service.areas import Area, areas
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
    """A connected area at or above the review threshold. `peak` is a raw heatmap value; the
    corners of `contour` lie between pixels, (0, 0) being the image's top left corner."""

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
    found = [
        (float(heatmap[area.rows, area.columns][area.inside].max()), area)
        for area in areas(heatmap >= threshold)
    ]
    found.sort(key=lambda pair: -pair[0])
    scale = np.array([width / heatmap.shape[1], height / heatmap.shape[0]])
    return [_region(peak, area, scale) for peak, area in found[:MOST]]


def _region(peak: float, area: Area, scale: np.ndarray) -> Region:
    left, top = np.floor((area.columns.start, area.rows.start) * scale).astype(int)
    right, bottom = np.ceil((area.columns.stop, area.rows.stop) * scale).astype(int)
    return Region(
        box=Box(x=left, y=top, width=right - left, height=bottom - top),
        area=round(float(area.inside.sum()) * float(scale.prod())),
        peak=peak,
        contour=[(int(x), int(y)) for x, y in np.rint(area.outline() * scale)],
    )
