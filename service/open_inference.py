"""Requests and responses of the Open Inference Protocol v2, with its binary tensor extension.

https://github.com/kserve/open-inference-protocol; binary tensors follow the JSON, which the header
Inference-Header-Content-Length gives the length of.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from models.image import InputSize, Pixels
from service.engine import Outputs
from service.errors import BadRequest

LENGTH_HEADER = "Inference-Header-Content-Length"
INPUT, SCORE, HEATMAP = "image", "score", "heatmap"


class _Parameters(BaseModel):
    binary_data_size: int | None = Field(None, ge=0)
    binary_data: bool | None = None
    binary_data_output: bool = False


class _Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters = _Parameters()
    data: list[Any] | None = None


class _Output(BaseModel):
    name: str
    parameters: _Parameters = _Parameters()


class _Request(BaseModel):
    id: str | None = None
    parameters: _Parameters = _Parameters()
    inputs: list[_Input]
    outputs: list[_Output] = []


@dataclass(frozen=True)
class InferenceRequest:
    """Images uint8 (B, H, W, 3), and which outputs are asked for, each binary or not."""

    id: str | None
    images: Pixels
    outputs: dict[str, bool]


def metadata(name: str, version: int, size: InputSize) -> dict[str, Any]:
    """What a model takes and gives."""
    tensors = {
        INPUT: ("UINT8", [-1, size.height, size.width, 3]),
        SCORE: ("FP32", [-1]),
        HEATMAP: ("FP32", [-1, size.height, size.width]),
    }
    described = {
        tensor: {"name": tensor, "datatype": datatype, "shape": shape}
        for tensor, (datatype, shape) in tensors.items()
    }
    return {
        "name": name,
        "versions": [str(version)],
        "platform": "onnxruntime_onnx",
        "inputs": [described[INPUT]],
        "outputs": [described[SCORE], described[HEATMAP]],
    }


def read_request(body: bytes, length: str | None, size: InputSize, most: int) -> InferenceRequest:
    """Raises BadRequest for what is not a request for at most `most` images of this size."""
    if length is not None and not (
        length.isdecimal() and len(length) < 12 and int(length) <= len(body)
    ):
        raise BadRequest(f"{LENGTH_HEADER} is {length!r}, of a body of {len(body):,} bytes.")
    end = len(body) if length is None else int(length)
    try:
        asked = _Request.model_validate_json(body[:end])
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise BadRequest(f"This is no inference request: {wrong}.") from error
    return InferenceRequest(
        asked.id, _images(asked.inputs, memoryview(body)[end:], size, most), _outputs(asked)
    )


def write_response(
    request: InferenceRequest, outputs: Outputs, *, name: str, version: int
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where binary tensors follow."""
    values = {SCORE: outputs.scores, HEATMAP: outputs.heatmaps}
    described, tensors = [], []
    for output, binary in request.outputs.items():
        tensor = np.ascontiguousarray(values[output], "<f4")
        entry: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": list(tensor.shape)}
        if binary:
            entry["parameters"] = {"binary_data_size": tensor.nbytes}
            tensors.append(tensor.tobytes())
        else:
            entry["data"] = tensor.ravel().tolist()
        described.append(entry)
    answer: dict[str, Any] = {
        "model_name": name, "model_version": str(version), "outputs": described
    }  # fmt: skip
    if request.id is not None:
        answer["id"] = request.id
    header = json.dumps(answer).encode()
    return b"".join([header, *tensors]), len(header) if tensors else None


def _images(inputs: list[_Input], rest: memoryview, size: InputSize, most: int) -> Pixels:
    if [given.name for given in inputs] != [INPUT]:
        raise BadRequest(
            f"The inputs are {', '.join(given.name for given in inputs) or 'none'}.",
            remedy=f"Send one, {INPUT!r}.",
        )
    (given,) = inputs
    shape = (size.height, size.width, 3)
    if given.datatype != "UINT8" or tuple(given.shape[1:]) != shape or given.shape[0] < 1:
        raise BadRequest(
            f"{INPUT} is {given.datatype} of the shape {given.shape}.",
            remedy=f"Send UINT8 of [n, {', '.join(map(str, shape))}], n at least 1.",
        )
    if given.shape[0] > most:
        raise BadRequest(
            f"{given.shape[0]} images are too many.", remedy=f"Send at most {most} at once."
        )
    count = math.prod(given.shape)
    binary = given.parameters.binary_data_size
    if binary is not None:
        if binary != count or len(rest) != count or given.data is not None:
            raise BadRequest(
                f"{len(rest):,} bytes follow the JSON, {binary:,} are announced for {INPUT}, and "
                f"its shape holds {count:,}."
            )
        return np.frombuffer(rest, np.uint8).reshape(given.shape)
    return _numbers(given.data or [], count).reshape(given.shape)


def _numbers(data: list[Any], count: int) -> Pixels:
    try:
        values: NDArray[Any] = np.asarray(data)
    except ValueError as error:  # lists of different lengths
        raise BadRequest(f"The data of {INPUT} is ragged.") from error
    if values.size != count or values.dtype.kind not in "iu":
        raise BadRequest(
            f"The data of {INPUT} holds {values.size:,} values, its shape {count:,}.",
            remedy="Send whole numbers from 0 to 255, or better binary tensors.",
        )
    if values.min() < 0 or values.max() > 255:
        raise BadRequest(f"The data of {INPUT} leaves 0 to 255.")
    return values.astype(np.uint8)


def _outputs(asked: _Request) -> dict[str, bool]:
    names = [output.name for output in asked.outputs] or [SCORE, HEATMAP]
    unknown = set(names) - {SCORE, HEATMAP}
    if unknown:
        raise BadRequest(
            f"There is no output {', '.join(sorted(unknown))}.",
            remedy=f"Ask for {SCORE} or {HEATMAP}.",
        )
    usual = asked.parameters.binary_data_output
    said = {output.name: output.parameters.binary_data for output in asked.outputs}
    return {name: usual if said.get(name) is None else bool(said[name]) for name in names}
