"""Tiny but real ONNX graphs, shared by the tests of what stores and runs them."""

import onnx
import pytest
from onnx import TensorProto, helper


def _serialize(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def scorer() -> bytes:
    """A bundle's graph: `heatmap` is the mean of a pixel's channels, `score` its maximum."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])
    heatmap = helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["B", "H", "W"])
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["heatmap"], axes=[3], keepdims=0),
        helper.make_node("ReduceMax", ["heatmap"], ["score"], axes=[1, 2], keepdims=0),
    ]
    return _serialize(helper.make_graph(nodes, "scorer", [image], [score, heatmap]))


@pytest.fixture(scope="session")
def extractor() -> bytes:
    """A backbone's graph: one stage of stride 4, the mean of 4×4 pixels."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, "H", "W"])
    stage = helper.make_tensor_value_info("stage1", TensorProto.FLOAT, ["B", 3, "h", "w"])
    pool = helper.make_node(
        "AveragePool", ["image"], ["stage1"], kernel_shape=[4, 4], strides=[4, 4]
    )
    return _serialize(helper.make_graph([pool], "extractor", [image], [stage]))
