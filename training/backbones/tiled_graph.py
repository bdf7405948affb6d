"""A backbone that sees a large image tile by tile, so that memory is that of one tile.

The tiles' features are put together before anything is learned from them: a model of a tiled image
knows each place of the part, and gives one score and one heatmap, as any other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# What a window shows around its tile, in pixels at least. Without it, features would know where the
# tiles meet: a convolution sees nothing beyond the edge.
MARGIN = 64


@dataclass(frozen=True)
class Tiles:
    """An image of `height` × `width` pixels cut into squares of `tile`, which divides both.

    All windows are of one size. They start at multiples of `stride`, which divides `tile`: what a
    cell of the coarsest stage sees lies where it would in the whole image.
    """

    height: int
    width: int
    tile: int
    stride: int

    def windows(self) -> list[tuple[int, int, int, int]]:
        """(top, left, down, across) of each tile, row by row, in pixels: where its window starts,
        and where the tile starts in the window."""
        found = []
        for y in range(0, self.height, self.tile):
            for x in range(0, self.width, self.tile):
                top = self._start(y, self.height)
                left = self._start(x, self.width)
                found.append((top, left, y - top, x - left))
        return found

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of every window, in pixels."""
        return min(self.height, self._most), min(self.width, self._most)

    @property
    def _margin(self) -> int:
        return self.stride * math.ceil(MARGIN / self.stride)

    @property
    def _most(self) -> int:
        return self.tile + 2 * self._margin

    def _start(self, tile: int, side: int) -> int:
        return max(0, min(tile - self._margin, side - min(side, self._most)))


def map_name(number: int) -> str:
    """What the map of a view is called in a graph."""
    return f"kizu_map_{number}"


def tile_by_tile(body: onnx.GraphProto, tiles: Tiles, cells: Sequence[int]) -> onnx.GraphProto:
    """uint8 `image` (B, H, W, 3) to the maps (B, C, H / cell, W / cell) of a graph that makes them
    of an `image` of any size, run on one window after the other; `cells` are in pixels."""
    channels = [value.type.tensor_type.shape.dim[1].dim_value for value in body.output]
    rows, columns = tiles.height // tiles.tile, tiles.width // tiles.tile
    windows = tiles.windows()
    height, width = tiles.window
    nodes: list[onnx.NodeProto] = []
    # Where each tile lies in its window, in cells of each map.
    starts = [_constant(f"starts_{number}", [[down // cell, across // cell]
              for *_, down, across in windows]) for number, cell in enumerate(cells)]  # fmt: skip
    constants = [_constant("axes", [1, 2]), _constant("first", [0]), *starts]
    for number, (top, left, _, _) in enumerate(windows):
        constants.append(_constant(f"start_{number}", [top, left]))
        constants.append(_constant(f"end_{number}", [top + height, left + width]))
        cut = ["image", *(_name(n) for n in (f"start_{number}", f"end_{number}", "axes"))]
        nodes.append(helper.make_node("Slice", cut, [_name(f"cut_{number}")]))
        nodes.append(
            helper.make_node(
                "Unsqueeze", [_name(f"cut_{number}"), _name("first")], [_name(f"window_{number}")]
            )
        )
    every = [_name(f"window_{number}") for number in range(len(windows))]
    sides = [tiles.tile // cell for cell in cells]
    nodes += [
        helper.make_node("Concat", every, [_name("windows")], axis=0),
        helper.make_node(
            "Scan",
            [_name("windows"), *(start.name for start in starts)],
            [_name(f"tiles_{number}") for number in range(len(cells))],
            body=_one(body, channels, sides),
            num_scan_inputs=1 + len(cells),
        ),
    ]
    for number, (count, side) in enumerate(zip(channels, sides, strict=True)):
        apart = _constant(f"apart_{number}", [rows, columns, -1, count, side, side])
        together = _constant(f"together_{number}", [-1, count, rows * side, columns * side])
        constants += [apart, together]
        grid, turned = _name(f"grid_{number}"), _name(f"turned_{number}")
        nodes += [
            helper.make_node("Reshape", [_name(f"tiles_{number}"), apart.name], [grid]),
            helper.make_node("Transpose", [grid], [turned], perm=[2, 3, 0, 4, 1, 5]),
            helper.make_node("Reshape", [turned, together.name], [map_name(number)]),
        ]
    return helper.make_graph(nodes, "kizu", list(body.input), list(body.output), constants)


def _one(body: onnx.GraphProto, channels: Sequence[int], sides: Sequence[int]) -> onnx.GraphProto:
    """A window, and where its tile lies in each map, to the tile's maps (B, C, side, side)."""
    nodes, constants = list(body.node), [*body.initializer, _constant("grid_axes", [2, 3])]
    inputs, outputs = list(body.input), []
    for number, (count, side) in enumerate(zip(channels, sides, strict=True)):
        here, there = _name(f"here_{number}"), _name(f"there_{number}")
        extent = _constant(f"side_{number}", [side, side])
        constants.append(extent)
        tile = _name(f"tile_{number}")
        nodes += [
            helper.make_node("Add", [here, extent.name], [there]),
            helper.make_node("Slice", [map_name(number), here, there, _name("grid_axes")], [tile]),
        ]
        inputs.append(helper.make_tensor_value_info(here, TensorProto.INT64, [2]))
        outputs.append(
            helper.make_tensor_value_info(tile, TensorProto.FLOAT, ["B", count, side, side])
        )
    return helper.make_graph(
        nodes, "kizu_tile", inputs, outputs, sorted(constants, key=lambda tensor: tensor.name)
    )


def _name(what: str) -> str:
    return f"kizu_tiles_{what}"


def _constant(what: str, values: Sequence[object]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), _name(what))
