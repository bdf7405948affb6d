"""Two backbones as one: the same pixels go through both, and each keeps its stages.

What one network does not see of a product another may: their features stand beside each other in
each view, and the statistics of good parts say which directions count.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import onnx
from onnx import TensorProto, helper

from models.backbone import Backbone, BackboneManifest
from training.backbones.feature_graph import at_opset, single_graph
from training.errors import TrainingError

JOINT = "+"  # between the names of backbones that are fused


def fuse_backbones(backbones: Sequence[Backbone]) -> Backbone:
    """One backbone with the stages of all, called by their names with a + between them.

    Raises TrainingError where one is there twice, or their cells do not divide each other.
    """
    manifests = [backbone.manifest for backbone in backbones]
    name = JOINT.join(manifest.name for manifest in manifests)
    if len({manifest.name for manifest in manifests}) < len(manifests):
        raise TrainingError(
            f"{name} fuses a backbone with itself.", remedy="Name different backbones."
        )
    if not can_fuse(backbones):
        raise TrainingError(
            f"The backbones of {name} cannot be fused: their strides do not divide each other.",
            remedy="Fuse convolutional networks, whose strides are powers of two.",
        )
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, "H", "W"])]
    nodes, weights, outputs, stages = [], [], [], []
    for backbone, manifest in zip(backbones, manifests, strict=True):
        prefix = f"{manifest.name}/"
        graph = onnx.compose.add_prefix(
            at_opset(onnx.load_from_string(backbone.model)), prefix
        ).graph
        nodes += [helper.make_node("Identity", ["pixels"], [graph.input[0].name]), *graph.node]
        weights += graph.initializer
        outputs += graph.output
        stages += [
            stage.model_copy(update={"name": prefix + stage.name, "backbone": manifest.name})
            for stage in manifest.stages
        ]
    model = single_graph(nodes, inputs, outputs, weights).SerializeToString()
    return Backbone(
        BackboneManifest(
            name=name,
            stages=tuple(stages),
            licence=_each(manifest.licence for manifest in manifests),
            origin=_each(manifest.origin for manifest in manifests),
            training_data=_each(manifest.training_data for manifest in manifests),
            sha256=hashlib.sha256(model).hexdigest(),
        ),
        model,
    )


def can_fuse(backbones: Sequence[Backbone]) -> bool:
    """Whether the cells of all stages divide each other."""
    strides = {stage.stride for backbone in backbones for stage in backbone.manifest.stages}
    ordered = sorted(strides)
    return all(coarse % fine == 0 for fine, coarse in itertools.pairwise(ordered))


def _each(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
