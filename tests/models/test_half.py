"""A backbone in half precision, in a graph that otherwise stays what it is."""

import onnx
import onnxruntime as ort
import pytest

from models.bundle import GOLDEN, MODEL, Bundle
from models.errors import ModelError
from models.golden import Golden
from models.half import in_half


def test_its_backbone_is_in_half_precision_and_agrees(bundle: Bundle) -> None:
    model = in_half(bundle.read(MODEL))
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    kind = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    made = [node.output[0] for node in graph.node if node.op_type in ("Conv", "MatMul")]
    of_backbone = {kind[name] for name in made if name.startswith("backbone_")}
    of_head = {kind[name] for name in made if name.startswith("head_")}
    assert of_backbone == {onnx.TensorProto.FLOAT16}
    assert of_head == {onnx.TensorProto.FLOAT}

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    outputs = session.run(["score", "heatmap"], {"image": golden.images})
    assert golden.disagreement(*outputs, precision="fp16") is None
    assert golden.disagreement(*outputs)  # it is another arithmetic


def test_what_sees_pixels_has_nothing_to_compute_in_half_precision(scorer: bytes) -> None:
    with pytest.raises(ModelError, match="no backbone"):
        in_half(scorer)
