"""Connected areas of a mask, and polygons around and of such."""

from collections.abc import Iterator
from dataclasses import dataclass

import cc3d
import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Mask = NDArray[np.bool_]
Corners = NDArray[np.float64]

# Just below the middle between outside, 0, and inside, 1: pixels that touch by a corner are one.
_EDGE = 0.5 - 1e-6


@dataclass(frozen=True)
class Area:
    """An area of pixels that touch, if only by a corner, in a box of its mask: the box's `rows` and
    `columns`, and which pixels of the box it has, as `inside`."""

    rows: slice
    columns: slice
    inside: Mask

    def outline(self) -> Corners:
        """The corners (n, 2), x and y, of one polygon around the centres of the area's pixels and
        those of its holes, and no others. (0.5, 0.5) is the centre of the mask's first pixel."""
        padded = np.pad(self.inside, 1).astype(np.float64)
        lines: list[Corners] = contourpy.contour_generator(z=padded).lines(_EDGE)  # type: ignore[assignment]
        around = max(lines, key=lambda line: float(np.ptp(line, axis=0).prod()))  # not of a hole
        corners = np.round(around[:-1], 1)
        before = corners - np.roll(corners, 1, axis=0)
        after = np.roll(corners, -1, axis=0) - corners
        bends = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
        # The box's first pixel is the second one of the padded mask.
        outline: Corners = corners[bends] - 0.5 + (self.columns.start, self.rows.start)
        return outline


def areas(mask: Mask) -> Iterator[Area]:
    """The areas of a mask (h, w)."""
    if not mask.any():
        return
    labels = cc3d.connected_components(mask, connectivity=8)
    boxes = cc3d.statistics(labels)["bounding_boxes"]
    for label, box in enumerate(boxes[1:], start=1):
        rows, columns = box[0], box[1]
        yield Area(rows, columns, labels[rows, columns] == label)


def filled(corners: Corners, height: int, width: int) -> Mask:
    """The mask (height, width) of the pixels whose centres lie in a polygon, to a quarter of a
    pixel."""
    # At twice the size edges lie on even pixels, which are drawn as well, and centres on odd ones.
    canvas = Image.new("L", (2 * width + 1, 2 * height + 1))
    doubled = np.rint(corners * 2).astype(int)
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in doubled], fill=1)
    return np.asarray(canvas)[1::2, 1::2].astype(np.bool_)
