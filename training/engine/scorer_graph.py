"""A trained scorer written as an ONNX graph, node by node.

PyTorch's exporter takes ten seconds for the default's scorer, a fifth of the time of a fit of few
parts. Here what never changes is computed once, when the graph is written: the banks' squared
lengths, and whitenings joined with their directions where they are alike everywhere. Other
networks are exported by PyTorch and joined.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training.backbones.feature_graph import single_graph
from training.networks.discriminator import Discriminator
from training.networks.layout import FeatureLayout, Shape
from training.networks.memory_bank import AT_A_TIME, MemoryBank
from training.networks.memory_bank import SMALLEST as SMALLEST_OF_MEMORY
from training.networks.onnx_export import export_onnx
from training.networks.positional_bank import SMALLEST as SMALLEST_OF_POSITION
from training.networks.positional_bank import PositionalBank
from training.networks.scorer import NOTHING, SMALLEST, Fusion, Length, Scorer, Standardise
from training.networks.warp import Extent, middles
from training.networks.whitening import Whitening

# A map as a branch sees it: its name in the graph, and its shape (C, H, W) without the batch.
_Map = tuple[str, Shape]
_Point = tuple[str, str]


def scorer_graph(scorer: Scorer) -> onnx.ModelProto:
    """`features` (B, D) to `score` (B) and `heatmap` (B, h, w), as the scorer computes them."""
    graph = _Graph()
    with torch.inference_mode():
        _write(graph, scorer.eval())
    return single_graph(
        graph.nodes,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", scorer.layout.size])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
            helper.make_tensor_value_info(
                "heatmap", TensorProto.FLOAT,
                ["B", len(scorer.score.smooth_rows), len(scorer.score.smooth_columns)],
            ),
        ],
        graph.constants,
    )  # fmt: skip


class _Graph:
    """Nodes and constants under names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        (output,) = self.split(operator, 1, *inputs, **attributes)
        return output

    def split(self, operator: str, count: int, *inputs: str, **attributes: Any) -> tuple[str, ...]:
        """A node with so many outputs."""
        number = len(self.nodes)
        outputs = [f"{operator.lower()}_{number}_{each}" for each in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return tuple(outputs)

    def floats(self, values: Tensor | ArrayLike) -> str:
        return self.constant(np.asarray(values, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def reshape(self, name: str, *shape: int) -> str:
        return self.add("Reshape", name, self.integers(*shape))

    def join(self, model: onnx.ModelProto, source: str) -> str:
        """The first output of a whole model of one input."""
        prefix = f"part_{len(self.nodes)}_"
        part = onnx.compose.add_prefix(model, prefix).graph
        self.nodes.append(helper.make_node("Identity", [source], [part.input[0].name]))
        self.nodes.extend(part.node)
        self.constants.extend(part.initializer)
        return str(part.output[0].name)

    def constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self.constants):04}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def _write(graph: _Graph, scorer: Scorer) -> None:
    maps, transform = _split(graph, scorer.layout)
    standard = [
        _standardised(graph, cast(Standardise, each), found)
        for each, found in zip(scorer.standardise, maps, strict=True)
    ]
    whitened = _Whitened(graph, cast(Sequence[nn.Module], scorer.whitenings))
    distances = []
    for branch, source in zip(scorer.branches, scorer.inputs, strict=True):
        seen = standard[source.view]
        if isinstance(branch, PositionalBank):
            tokens, grid = whitened.tokens(seen, source.whitening, branch.config.positions)
            distance = _nearest_at_position(graph, branch, tokens, grid)
        else:
            if source.whitening is not None:
                seen = whitened.map(seen, source.whitening)
            distance = _distance(graph, branch, seen)
        distances.append(_at_finest(graph, distance, scorer.layout.grid))
    if scorer.layout.extent:
        judged = graph.add(
            "Or",
            _inside(graph, scorer.layout.grid, transform, scorer.layout.extent),
            graph.constant(np.asarray(scorer.always_HW > 0)),
        )
        nothing = [NOTHING if signed else 0.0 for signed in scorer.fusion.signed_P]
        distances = [
            graph.add("Where", judged, distance, graph.floats(value))
            for distance, value in zip(distances, nothing, strict=True)
        ]
    fused = graph.add("Mul", _fused(graph, scorer.fusion, distances), graph.floats(scorer.roi_HW))
    score = scorer.score
    windows = _along_both(graph, fused, score.window_rows, score.window_columns)
    graph.nodes.append(
        helper.make_node("ReduceMax", [windows, graph.integers(1, 2)], ["score"], keepdims=0)
    )
    heatmap = _along_both(graph, fused, score.smooth_rows, score.smooth_columns)
    if scorer.layout.extent:
        size = len(score.smooth_rows), len(score.smooth_columns)
        heatmap = _to_image(graph, heatmap, size, transform, scorer.layout.extent)
    graph.nodes.append(helper.make_node("Identity", [heatmap], ["heatmap"]))


def _split(graph: _Graph, layout: FeatureLayout) -> tuple[list[_Map], str]:
    """The maps of flat features, and the transform where images are aligned."""
    sizes = [int(np.prod(shape)) for shape in layout.shapes]
    rest = layout.size - sum(sizes)
    ends = [*sizes, rest] if rest else sizes
    flat = graph.split("Split", len(ends), "features", graph.integers(*ends), axis=1)
    maps = [
        (graph.reshape(name, -1, *shape), shape)
        for name, shape in zip(flat, layout.shapes, strict=False)
    ]
    return maps, flat[-1] if rest else ""


def _standardised(graph: _Graph, standardise: Standardise, given: _Map) -> _Map:
    name, shape = given
    centred = graph.add("Sub", name, graph.floats(standardise.mean))
    return graph.add("Div", centred, graph.floats(standardise.std)), shape


class _Whitened:
    """Whitened maps and tokens, each computed once."""

    def __init__(self, graph: _Graph, whitenings: Sequence[nn.Module]) -> None:
        self._graph = graph
        self._whitenings = whitenings
        self._maps: dict[int, _Map] = {}
        self._tokens: dict[int, str] = {}

    def map(self, seen: _Map, number: int) -> _Map:
        """What the whitening with this number makes of a map."""
        if number not in self._maps:
            self._maps[number] = self._map(seen, number)
        return self._maps[number]

    def tokens(
        self, seen: _Map, number: int | None, positions: tuple[int, int]
    ) -> tuple[str, tuple[int, int]]:
        """The same, or of a plain map, by position (P, N, K), and the map's grid."""
        _, (_, height, width) = seen
        if number is None:
            return self._by_position(seen, positions), (height, width)
        whitening = self._whitenings[number]
        if isinstance(whitening, Whitening) and (
            not whitening.config.pooled and whitening.config.positions == positions
        ):
            return self._white_tokens(seen, number, whitening), (height, width)
        return self._by_position(self.map(seen, number), positions), (height, width)

    def _map(self, seen: _Map, number: int) -> _Map:
        graph, whitening = self._graph, self._whitenings[number]
        name, (_, height, width) = seen
        if not isinstance(whitening, Whitening) or whitening.config.pooled:
            name, (kept, *_) = _exported(graph, whitening, seen)
            return name, (kept, height, width)
        kept = whitening.config.kept
        if whitening.config.positions == (1, 1):
            (mean_K,), (whitening_KK,) = whitening.mean_PK, whitening.whitening_PKK
            weight_KC = (whitening.direction_CK @ whitening_KK).T
            white = graph.add(
                "Conv", name, graph.floats(weight_KC[..., None, None]),
                graph.floats(-(mean_K @ whitening_KK)),
            )  # fmt: skip
        else:
            tokens = self._white_tokens(seen, number, whitening)
            white = _by_cell(graph, tokens, kept, whitening.config.positions, (height, width))
        return white, (kept, height, width)

    def _white_tokens(self, seen: _Map, number: int, whitening: Whitening) -> str:
        if number not in self._tokens:
            graph = self._graph
            along = self._by_position(seen, whitening.config.positions, whitening.direction_CK)
            centred = graph.add("Sub", along, graph.floats(whitening.mean_PK.unsqueeze(1)))
            self._tokens[number] = graph.add(
                "MatMul", centred, graph.floats(whitening.whitening_PKK)
            )
        return self._tokens[number]

    def _by_position(
        self, seen: _Map, positions: tuple[int, int], direction_CK: Tensor | None = None
    ) -> str:
        """The cells of every position together, (P, N, K); along directions, where any are
        given."""
        graph = self._graph
        name, (channels, height, width) = seen
        rows, columns = positions
        last = graph.add("Transpose", name, perm=[0, 2, 3, 1])
        if direction_CK is not None:
            last = graph.add("MatMul", last, graph.floats(direction_CK))
            channels = direction_CK.shape[1]
        blocks = graph.reshape(last, -1, rows, height // rows, columns, width // columns, channels)
        together = graph.add("Transpose", blocks, perm=[1, 3, 0, 2, 4, 5])
        return graph.reshape(together, rows * columns, -1, channels)


def _by_cell(
    graph: _Graph, tokens: str, kept: int, positions: tuple[int, int], grid: tuple[int, int]
) -> str:
    """Tokens by position (P, N, K) as a map (B, K, H, W)."""
    (rows, columns), (height, width) = positions, grid
    blocks = graph.reshape(
        tokens, rows, columns, -1, height // rows, width // columns, kept
    )  # R C B h w K
    ordered = graph.add("Transpose", blocks, perm=[2, 5, 0, 3, 1, 4])
    return graph.reshape(ordered, -1, kept, height, width)


def _nearest_at_position(
    graph: _Graph, bank: PositionalBank, tokens: str, grid: tuple[int, int]
) -> _Map:
    """The distance (B, 1, H, W) of tokens from the nearest vector of their position."""
    channels = bank.config.channels
    # Twice a vector of half precision is one, too: the file keeps it in half the space.
    product = graph.add("MatMul", tokens, graph.floats(-2 * bank.bank_PMC.mT))
    squares_P1M = bank.bank_PMC.square().sum(2).unsqueeze(1)
    squares = graph.add("Add", product, graph.floats(squares_P1M))
    nearest = graph.add("ReduceMin", squares, graph.integers(2), keepdims=1)
    length = graph.add("ReduceSumSquare", tokens, graph.integers(2), keepdims=1)
    square = graph.add("Add", nearest, length)
    distance = _root(graph, square, SMALLEST_OF_POSITION * channels)
    return _by_cell(graph, distance, 1, bank.config.positions, grid), (1, *grid)


def _nearest_anywhere(graph: _Graph, bank: MemoryBank, seen: _Map) -> _Map:
    """The distance (B, 1, H, W) of each cell from the nearest vector of the bank."""
    name, (channels, height, width) = seen
    centred = graph.add("Sub", name, graph.floats(bank.mean_C.view(1, -1, 1, 1)))
    flat = graph.reshape(centred, -1, channels, height * width)
    tokens = graph.add("Transpose", flat, perm=[0, 2, 1])
    # A channel of ones makes the vectors' squares part of the product, as `MemoryBank` does.
    pads = graph.integers(0, 0, 0, 0, 0, 1)
    tokens = graph.add("Pad", tokens, pads, graph.floats(1.0))
    squares_1N = bank.bank_NC.square().sum(1).unsqueeze(0)
    near = []
    for start in range(0, bank.config.size, AT_A_TIME):
        vectors_SC = bank.bank_NC[start : start + AT_A_TIME]
        weight = graph.add(
            "Concat", graph.floats(-2 * vectors_SC.T),
            graph.floats(squares_1N[:, start : start + AT_A_TIME]), axis=0,
        )  # fmt: skip
        product = graph.add("MatMul", tokens, weight)
        near.append(graph.add("ReduceMin", product, graph.integers(2), keepdims=1))
    joined = graph.add("Concat", *near, axis=2)
    nearest = graph.add("ReduceMin", joined, graph.integers(2), keepdims=0)
    length = graph.add("ReduceSumSquare", flat, graph.integers(1), keepdims=0)
    square = graph.reshape(graph.add("Add", nearest, length), -1, 1, height, width)
    distance = _root(graph, square, float(SMALLEST_OF_MEMORY * squares_1N.mean()))
    return distance, (1, height, width)


def _distance(graph: _Graph, branch: nn.Module, seen: _Map) -> _Map:
    """What a branch makes of a map: a map of one channel."""
    if isinstance(branch, MemoryBank):
        return _nearest_anywhere(graph, branch, seen)
    name, (_, height, width) = seen
    if isinstance(branch, Length):
        length = graph.add("ReduceL2", name, graph.integers(1), keepdims=1)
        return length, (1, height, width)
    if isinstance(branch, Discriminator):
        return _discriminated(graph, branch, seen)
    found, (rows, columns) = _exported(graph, branch, seen)
    return graph.reshape(found, -1, 1, rows, columns), (1, rows, columns)


def _discriminated(graph: _Graph, discriminator: Discriminator, seen: _Map) -> _Map:
    """The logits (B, 1, H, W) of a discriminator, whose layers all work on one cell."""
    name, (_, height, width) = seen
    for layer in discriminator.body:
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight.detach(), cast(Tensor, layer.bias).detach()
            name = graph.add("Conv", name, graph.floats(weight), graph.floats(bias))
        elif isinstance(layer, nn.GELU):
            error = graph.add("Erf", graph.add("Mul", name, graph.floats(math.sqrt(0.5))))
            half = graph.add("Mul", name, graph.floats(0.5))
            name = graph.add("Mul", half, graph.add("Add", error, graph.floats(1.0)))
        else:
            assert isinstance(layer, nn.Dropout)  # nothing, once learned
    return name, (1, height, width)


def _exported(graph: _Graph, network: nn.Module, seen: _Map) -> tuple[str, tuple[int, ...]]:
    """What a network makes of a map, by PyTorch's exporter, and its shape without the batch."""
    name, shape = seen
    example = torch.zeros(2, *shape)
    with torch.inference_mode():
        made: Tensor = network(example)
    model = export_onnx(network, (example,), ["seen"], ["made"], ({0: torch.export.Dim.DYNAMIC},))
    return graph.join(model, name), tuple(made.shape[1:])


def _root(graph: _Graph, square: str, smallest: float) -> str:
    return graph.add("Sqrt", graph.add("Max", square, graph.floats(smallest)))


def _at_finest(graph: _Graph, given: _Map, grid: tuple[int, int]) -> str:
    """A map of one channel as (B, H, W) on the finest grid."""
    name, (_, height, width) = given
    if (height, width) != grid:
        scales = graph.floats([1, 1, grid[0] / height, grid[1] / width])
        name = graph.add(
            "Resize", name, "", scales, mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        )  # fmt: skip
    return graph.add("Squeeze", name, graph.integers(1))


def _fused(graph: _Graph, fusion: Fusion, distances: Sequence[str]) -> str:
    """`Fusion` of each branch's distances (B, H, W)."""
    if len(distances) == 1:
        return distances[0]
    factor_P = fusion.reliable_P / fusion.scale_P
    offset_P = fusion.weight_P.log() - fusion.centre_P * factor_P
    against = _against(graph, fusion, distances)
    weighted = []
    for number, distance in enumerate(distances):
        evidence = distance
        if not fusion.signed_P[number]:
            evidence = graph.add("Log", graph.add("Max", distance, graph.floats(SMALLEST)))
        scaled = graph.add("Mul", evidence, graph.floats(factor_P[number]))
        shifted = graph.add("Add", scaled, graph.floats(offset_P[number]))
        if against and not fusion.signed_P[number]:
            shifted = graph.add("Add", shifted, against)
        weighted.append(graph.add("Unsqueeze", shifted, graph.integers(0)))
    stacked = graph.add("Concat", *weighted, axis=0)
    # Less the largest, so that no exponential overflows, however far a part is from good ones.
    largest = graph.add("ReduceMax", stacked, graph.integers(0), keepdims=1)
    apart = graph.add("Exp", graph.add("Sub", stacked, largest))
    total = graph.add("Log", graph.add("ReduceSum", apart, graph.integers(0), keepdims=0))
    joined = graph.add("Add", total, graph.add("Squeeze", largest, graph.integers(0)))
    return graph.add("Softplus", joined)


def _against(graph: _Graph, fusion: Fusion, distances: Sequence[str]) -> str:
    """What signed branches say against the others (B, H, W); "" where they do not count."""
    signed = [d for d, known in zip(distances, fusion.signed_P, strict=True) if known]
    if not signed or not float(fusion.against):
        return ""
    below = [graph.add("Min", each, graph.floats(0.0)) for each in signed]
    return graph.add("Mul", graph.add("Mean", *below), graph.floats(fusion.against))


def _along_both(graph: _Graph, name: str, rows: Tensor, columns: Tensor) -> str:
    """rows @ map @ columns.T."""
    return graph.add(
        "MatMul", graph.add("MatMul", graph.floats(rows), name), graph.floats(columns.T)
    )


def _values(graph: _Graph, transform: str) -> list[str]:
    """The four values of a transform, each (B, 1, 1)."""
    parts = graph.split("Split", 4, transform, graph.integers(1, 1, 1, 1), axis=1)
    return [graph.reshape(part, -1, 1, 1) for part in parts]


def _positions(
    graph: _Graph, across: Tensor, down: Tensor, values: Sequence[str], extent: Extent
) -> _Point:
    """`training.networks.warp.positions`, the two coordinates apart."""
    cosine, sine, x, y = values
    right, below = graph.floats(across), graph.floats(down)

    def coordinate(first: str, second: str, shift: str, half: float) -> str:
        turned = graph.add("Add", graph.add("Sub", first, second), shift)
        return graph.add("Div", turned, graph.floats(half))

    minus_sine = graph.add("Neg", sine)
    return (
        coordinate(graph.add("Mul", cosine, right), graph.add("Mul", sine, below), x, extent[0]),
        coordinate(
            graph.add("Mul", cosine, below), graph.add("Mul", minus_sine, right), y, extent[1]
        ),
    )


def _inside(graph: _Graph, grid: tuple[int, int], transform: str, extent: Extent) -> str:
    """`training.networks.warp.inside`: which cells (B, H, W) an image shows as a whole."""
    values = _values(graph, transform)
    farthest = []
    for across in (-1, 1):
        for down in (-1, 1):
            point = _positions(
                graph,
                extent[0] * (middles(grid[1]) + across / grid[1])[None, :],
                extent[1] * (middles(grid[0]) + down / grid[0])[:, None],
                values, extent,
            )  # fmt: skip
            farthest += [graph.add("Abs", each) for each in point]
    return graph.add("LessOrEqual", graph.add("Max", *farthest), graph.floats(1.0))


def _to_image(
    graph: _Graph, heatmap: str, size: tuple[int, int], transform: str, extent: Extent
) -> str:
    """`training.networks.warp.to_image` of a map (B, h, w)."""
    cosine, sine, x, y = _values(graph, transform)

    def turned(first: str, second: str, operator: str) -> str:
        return graph.add(operator, graph.add("Mul", cosine, first), graph.add("Mul", sine, second))

    back = (
        cosine, graph.add("Neg", sine), graph.add("Neg", turned(x, y, "Add")),
        graph.add("Neg", turned(y, x, "Sub")),
    )  # fmt: skip
    point = _positions(
        graph, extent[0] * middles(size[1])[None, :], extent[1] * middles(size[0])[:, None],
        back, extent,
    )  # fmt: skip
    last = [graph.add("Unsqueeze", each, graph.integers(3)) for each in point]
    grid = graph.add("Concat", *last, axis=3)
    found = graph.add(
        "GridSample", graph.add("Unsqueeze", heatmap, graph.integers(1)), grid,
        mode="bilinear", padding_mode="zeros", align_corners=0,
    )  # fmt: skip
    return graph.add("Squeeze", found, graph.integers(1))
