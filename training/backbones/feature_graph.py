"""ONNX graphs joined into one: pixels → backbone → features → network → score and heatmap."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from models.backbone import Backbone, Stage
from training.backbones.tiled_graph import Tiles, map_name, tile_by_tile
from training.backbones.views import FeatureView
from training.errors import TrainingError
from training.networks.onnx_export import OPSET

IR_VERSION = 10
BACKBONE = "backbone_"


def fold_normalisation(
    model: onnx.ModelProto, mean: tuple[float, ...], std: tuple[float, ...]
) -> onnx.ModelProto:
    """A backbone that takes RGB in 0..1 from one that takes (RGB - mean) / std, as input `x`."""
    # Prefixed, so that no name of theirs can be one of ours.
    graph = onnx.compose.add_prefix(at_opset(model), "body_", rename_outputs=False).graph
    weights = {tensor.name for tensor in graph.initializer}  # older files list them as inputs
    source = next(value.name for value in graph.input if value.name not in weights)
    shape = (1, 3, 1, 1)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(mean, np.float32).reshape(shape), "kizu_mean"),
            numpy_helper.from_array(np.array(std, np.float32).reshape(shape), "kizu_std"),
        ]
    )
    nodes = [
        helper.make_node("Sub", ["pixels", "kizu_mean"], ["kizu_centred"]),
        helper.make_node("Div", ["kizu_centred", "kizu_std"], [source]),
        *graph.node,
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, "H", "W"])]
    return single_graph(nodes, inputs, list(graph.output), list(graph.initializer))


def store_half(model: onnx.ModelProto, *, lossless: bool = False) -> onnx.ModelProto:
    """The same model with its weights kept in float16, and computed with in float32 as before.

    `lossless` leaves those alone that half precision does not hold exactly.
    """
    kept, casts = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            kept.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if lossless and not (np.isfinite(rounded).all() and np.array_equal(rounded, values)):
            kept.append(tensor)
            continue
        if not np.isfinite(rounded).all():
            raise TrainingError(
                f"The weights {tensor.name} are too large for half precision.",
                remedy="Train again with a lower learning rate.",
            )
        half = f"{tensor.name}_half"
        kept.append(numpy_helper.from_array(rounded, half))
        casts.append(helper.make_node("Cast", [half], [tensor.name], to=TensorProto.FLOAT))
    graph = model.graph
    return single_graph([*casts, *graph.node], list(graph.input), list(graph.output), kept)


def feature_graph(
    backbone: Backbone, views: Sequence[FeatureView], tiles: Tiles | None = None
) -> bytes:
    """uint8 `image` (B, H, W, 3) to float32 `features` (B, D): the maps of all views, flattened.

    Of each view, finer stages are averaged over each cell, coarser ones interpolated, and all are
    concatenated in the view's order. With `tiles`, the backbone sees one after the other, and the
    image has their height and width. The graph is used for training and stands unchanged in the
    bundle.
    """
    body = onnx.compose.add_prefix(onnx.load_from_string(backbone.model), BACKBONE).graph
    source = body.input[0].name
    nodes = [
        helper.make_node("Cast", ["image"], ["kizu_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["kizu_float"], ["kizu_nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["kizu_nchw", "kizu_255"], [source]),
        *body.node,
    ]
    brightest = numpy_helper.from_array(np.array(255, np.float32), "kizu_255")
    initializers = [*body.initializer, brightest]
    maps = []
    for number, view in enumerate(views):
        resized = []
        for stage in view.stages:
            added, constants = _to_grid(stage, view, f"kizu_{number}_{stage.name}")
            nodes += added
            initializers += constants
            resized.append(added[-1].output[0])
        name = map_name(number)
        nodes.append(helper.make_node("Concat", resized, [name], axis=1))
        maps.append(
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["B", view.channels, f"h{number}", f"w{number}"]
            )
        )
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])]
    if tiles:
        whole = helper.make_graph(nodes, "kizu", inputs, maps, initializers)
        tiled = tile_by_tile(whole, tiles, [view.cell for view in views])
        nodes, initializers = list(tiled.node), list(tiled.initializer)
    nodes += _flattened([value.name for value in maps])
    return _serialised(single_graph(nodes, inputs, [_FEATURES], initializers))


_FEATURES = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", "D"])


def _flattened(maps: Sequence[str]) -> list[onnx.NodeProto]:
    """`features` (B, D) of maps."""
    flat = [f"{name}_flat" for name in maps]
    return [
        *(
            helper.make_node("Flatten", [name], [out], axis=1)
            for name, out in zip(maps, flat, strict=True)
        ),
        helper.make_node("Concat", flat, ["features"], axis=1),
    ]


def pixel_graph() -> bytes:
    """uint8 `image` (B, H, W, 3) to float32 `features` (B, 3·H·W): pixels in 0..1 themselves."""
    nodes = [
        helper.make_node("Cast", ["image"], ["kizu_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["kizu_float"], ["kizu_nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["kizu_nchw", "kizu_255"], [map_name(0)]),
        *_flattened([map_name(0)]),
    ]
    model = single_graph(
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [_FEATURES],
        [numpy_helper.from_array(np.array(255, np.float32), "kizu_255")],
    )
    return _serialised(model)


def join(features: bytes, head: onnx.ModelProto) -> bytes:
    """Feed the `features` output of one graph to the only input of another."""
    first = onnx.load_from_string(features)
    joined = onnx.compose.merge_models(
        first,
        onnx.compose.add_prefix(at_opset(head), "head_", rename_outputs=False),
        io_map=[("features", f"head_{head.graph.input[0].name}")],
    )
    onnx.checker.check_model(joined)
    return _serialised(joined)


def feature_part(model: bytes) -> bytes:
    """The graph that `feature_graph` made, out of the bundle's graph that it was joined into.

    Equal to the byte, so that features cached for the one are found for the other.
    """
    part = onnx.utils.Extractor(onnx.load_from_string(model)).extract_model(["image"], ["features"])
    graph = part.graph
    return _serialised(
        single_graph(
            list(graph.node), list(graph.input), list(graph.output), list(graph.initializer)
        )
    )


def at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in the operator set that all of Kizu's graphs share."""
    version = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    if version == OPSET:
        converted = model
    elif version > OPSET:
        raise TrainingError(
            f"The ONNX file uses operator set {version}; Kizu's graphs use {OPSET}.",
            remedy=f"Export it again with operator set {OPSET} or lower.",
        )
    else:
        converted = version_converter.convert_version(model, OPSET)
    converted.ir_version = IR_VERSION
    return converted


def _to_grid(
    stage: Stage, view: FeatureView, name: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes that bring a stage to a view's grid, the last one's output being the result."""
    nodes, source = [], BACKBONE + stage.name
    if view.smooth > 1:
        margin = view.smooth // 2
        nodes.append(
            helper.make_node(
                "AveragePool", [source], [f"{name}_smooth"], kernel_shape=[view.smooth] * 2,
                strides=[1, 1], pads=[margin] * 4, count_include_pad=0,
            )
        )  # fmt: skip
        source = f"{name}_smooth"
    output, cell = f"{name}_grid", view.cell
    if stage.stride == cell:
        return [*nodes, helper.make_node("Identity", [source], [output])], []
    if cell % stage.stride == 0:
        side = [cell // stage.stride] * 2
        return [
            *nodes,
            helper.make_node("AveragePool", [source], [output], kernel_shape=side, strides=side),
        ], []
    factor = stage.stride / cell
    scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), f"{name}_scales")
    return [
        *nodes, helper.make_node("Resize", [source, "", scales.name], [output], mode="linear")
    ], [scales]  # fmt: skip


def single_graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto],
) -> onnx.ModelProto:
    ordered = sorted(initializers, key=lambda tensor: tensor.name)
    graph = helper.make_graph(nodes, "kizu", inputs, outputs, ordered)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="kizu"
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _serialised(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString()
    return content
