"""A bundle's graph in half precision: its backbone, where nearly all of the arithmetic is."""

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from models.errors import ModelError

# What the names of a backbone's values begin with, where graphs are joined.
BACKBONE = "backbone_"


def in_half(model: bytes) -> bytes:
    """The same graph with its backbone in float16. Images, scores and heatmaps stay what they are.

    What measures features stays in float32: the square of a distance is soon above 65504, where
    float16 ends. Raises ModelError for a graph without a backbone.
    """
    loaded = onnx.load_from_string(model)
    if not _halve(loaded.graph, list(loaded.opset_import)):
        raise ModelError("The model sees pixels, and has no backbone to compute in fp16.")
    return bytes(loaded.SerializeToString())


def _halve(graph: onnx.GraphProto, opsets: Sequence[onnx.OperatorSetIdProto]) -> bool:
    """Whether there was a backbone, here or in what sees tiles."""
    backbone = [node for node in graph.node if _of_backbone(node)]
    others = [node for node in graph.node if not _of_backbone(node)]
    if not backbone:
        return any(_halve(inner, opsets) for node in others for inner in _inside(node))
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made = {name for node in backbone for name in node.output}
    read = dict.fromkeys(name for node in backbone for name in node.input if name)
    elsewhere = {name for node in others for name in _read(node)} | {o.name for o in graph.output}
    part = helper.make_model(
        helper.make_graph(
            backbone,
            "backbone",
            [_floats(name) for name in read if name not in made and name not in weights],
            [_floats(name) for node in backbone for name in node.output if name in elsewhere],
            [weights[name] for name in read if name in weights],
        ),
        opset_imports=opsets,
    )
    half = convert_float_to_float16(part, keep_io_types=True, disable_shape_infer=True).graph
    OnnxModel.graph_topological_sort(half, is_deterministic=True)
    first = list(graph.node).index(backbone[0])
    _replace(graph.node, [*others[:first], *half.node, *others[first:]])
    kept = [t for name, t in weights.items() if name not in read or name in elsewhere]
    _replace(graph.initializer, [*kept, *half.initializer])
    return True


def _of_backbone(node: onnx.NodeProto) -> bool:
    return bool(node.output[0].startswith(BACKBONE))


def _inside(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    return (one.g for one in node.attribute if one.type == onnx.AttributeProto.GRAPH)


def _read(node: onnx.NodeProto) -> Iterable[str]:
    """The names of all values that a node reads, also by graphs inside of it."""
    yield from node.input
    for graph in _inside(node):
        for inner in graph.node:
            yield from _read(inner)


def _floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def _replace(field: Any, items: Sequence[Any]) -> None:
    """A message that belongs to a field is gone when the field is cleared."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
