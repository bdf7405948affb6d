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


def tile_by_tile(body: onnx.GraphProto, tiles: Tiles, cell: int) -> onnx.GraphProto:
    """uint8 `image` (B, H, W, 3) to `features` (B, C, H / cell, W / cell), by a graph that makes
    `features` of an `image` of any size, run on one window after the other."""
    channels = body.output[0].type.tensor_type.shape.dim[1].dim_value
    rows, columns, side = tiles.height // tiles.tile, tiles.width // tiles.tile, tiles.tile // cell
    windows = tiles.windows()
    height, width = tiles.window
    nodes: list[onnx.NodeProto] = []
    constants = [
        _constant("axes", [1, 2]),
        _constant("first", [0]),
        _constant("apart", [rows, columns, -1, channels, side, side]),
        _constant("together", [-1, channels, rows * side, columns * side]),
        # Where each tile lies in its window, in cells.
        _constant("place", [[down // cell, across // cell] for *_, down, across in windows]),
    ]
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
    nodes += [
        helper.make_node("Concat", every, [_name("windows")], axis=0),
        helper.make_node(
            "Scan",
            [_name("windows"), _name("place")],
            [_name("tiles")],
            body=_one(body, channels, side),
            num_scan_inputs=2,
        ),
        helper.make_node("Reshape", [_name("tiles"), _name("apart")], [_name("grid")]),
        helper.make_node("Transpose", [_name("grid")], [_name("turned")], perm=[2, 3, 0, 4, 1, 5]),
        helper.make_node("Reshape", [_name("turned"), _name("together")], ["features"]),
    ]
    return helper.make_graph(nodes, "kizu", list(body.input), list(body.output), constants)


def _one(body: onnx.GraphProto, channels: int, side: int) -> onnx.GraphProto:
    """A window and where its tile lies in it to the tile's features (B, C, side, side)."""
    nodes = [
        *body.node,
        helper.make_node("Add", [_name("here"), _name("side")], [_name("there")]),
        helper.make_node(
            "Slice",
            ["features", _name("here"), _name("there"), _name("grid_axes")],
            [_name("tile")],
        ),
    ]
    constants = [*body.initializer, _constant("side", [side, side]), _constant("grid_axes", [2, 3])]
    return helper.make_graph(
        nodes,
        "kizu_tile",
        [*body.input, helper.make_tensor_value_info(_name("here"), TensorProto.INT64, [2])],
        [
            helper.make_tensor_value_info(
                _name("tile"), TensorProto.FLOAT, ["B", channels, side, side]
            )
        ],
        sorted(constants, key=lambda tensor: tensor.name),
    )


def _name(what: str) -> str:
    return f"kizu_tiles_{what}"


def _constant(what: str, values: Sequence[object]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), _name(what))
