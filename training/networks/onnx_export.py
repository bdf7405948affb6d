"""A network as an ONNX model in the operator set that all of Kizu's graphs share."""

import contextlib
import io
import logging
import warnings
from typing import Any

import onnx
import torch
from torch import nn

OPSET = 18


def export_onnx(
    network: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic_shapes: tuple[dict[int, Any], ...],
) -> onnx.ModelProto:
    """A network as one ONNX model in Kizu's operator set."""
    # The exporter warns, logs and talks about its own internals.
    for talkative in ("onnxscript", "torch.onnx"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            arguments,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origins(model.graph)
    return model


def _forget_origins(exported: onnx.GraphProto) -> None:
    """The exporter notes beside every part of a graph which file and line it comes from: on a plant
    that is nobody's business, and the same weights would not be the same bytes."""
    for part in (exported, *exported.node, *exported.value_info, *exported.initializer,
                 *exported.input, *exported.output):  # fmt: skip
        del part.metadata_props[:]
        part.doc_string = ""
