"""A feature graph that sees parts aligned, and says where each lay in its image."""

import onnx
import torch
from onnx import TensorProto, helper

from training.networks.alignment import Alignment
from training.networks.onnx_export import export_onnx


def aligned_graph(features: bytes, alignment: Alignment, size: tuple[int, int]) -> bytes:
    """uint8 `image` (B, H, W, 3) to `features` (B, D + 4): those that the graph `features` makes of
    the aligned image, and after them the transform (see `training.networks.warp`).

    `size` is (H, W).
    """
    first = onnx.compose.add_prefix(
        export_onnx(
            alignment.eval(),
            (torch.zeros(2, *size, 3, dtype=torch.uint8),),
            ["image"],
            ["aligned", "transform"],
            ({0: torch.export.Dim.DYNAMIC},),
        ),
        _PREFIX, rename_inputs=False,
    )  # fmt: skip
    then = onnx.load_from_string(features)
    joined = onnx.compose.merge_models(
        first,
        onnx.compose.add_prefix(then, "seen_"),
        io_map=[(f"{_PREFIX}aligned", "seen_image")],
    )
    graph = joined.graph
    whole = helper.make_graph(
        [
            *graph.node,
            helper.make_node(
                "Concat", ["seen_features", f"{_PREFIX}transform"], ["features"], axis=1
            ),
        ],
        "kizu",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", "D"])],
        sorted(graph.initializer, key=lambda tensor: tensor.name),
    )
    model = helper.make_model(whole, opset_imports=list(joined.opset_import), producer_name="kizu")
    model.ir_version = joined.ir_version
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


_PREFIX = "kizu_align_"
