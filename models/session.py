"""An ONNX Runtime session that runs on the device it was asked for, or none at all."""

from typing import Any, Literal, get_args

import onnxruntime as ort

from models.errors import DeviceError, ModelError

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
Precision = Literal["fp32", "fp16"]
DEVICES: tuple[Device, ...] = get_args(Device)

# HEURISTIC: the exhaustive search costs about 0.6 s for every new shape. No TF32: its 10 bits of
# mantissa would miss the golden vectors. The arena grows by what is asked for, not by doubling.
_CUDA = (
    "CUDAExecutionProvider",
    {
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
    },
)
# What runs a device, first, and what takes the parts of a graph that it cannot.
PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    "cuda": [_CUDA],
    "tensorrt": [("TensorrtExecutionProvider", {}), _CUDA],
    # Left to itself it computes in half precision where the processor can.
    "openvino": [("OpenVINOExecutionProvider", {"device_type": "CPU", "precision": "FP32"})],
}
_NVIDIA = ("cuda", "tensorrt")
# Devices whose runs share the processor's cores.
ON_CORES = ("cpu", "openvino")
# What lets a device compute in half precision. The others take a graph as it is written.
_HALF = {"tensorrt": {"trt_fp16_enable": "1"}}
# What lets a device record a run's launches once and repeat them, from and to the same memory.
# TensorRT has a switch as well, but whether it keeps one recording for each size is not known here.
_RECORDED = {"cuda": {"enable_cuda_graph": "1"}}


def open_session(
    model: bytes,
    *,
    device: Device = "auto",
    threads: int = 0,
    precision: Precision = "fp32",
    recorded: bool = False,
) -> ort.InferenceSession:
    """Load an ONNX model onto a device; `threads` bounds the CPU threads of one run, 0 is all.

    `auto` is CUDA or OpenVINO where the installed runtime was built for it, else the CPU. With
    `recorded`, runs are CUDA graphs: each names one by the run option `gpu_graph_id`, and its
    inputs and outputs stay where they are. Raises ModelError, or DeviceError when the device does
    not really run, or not so: ONNX Runtime falls back to the CPU without a word, and lists
    providers that cannot load.
    """
    chosen = resolved(device)
    if precision == "fp16" and chosen not in _HALF:
        raise DeviceError(
            f"The device {chosen!r} computes in fp32 alone.",
            remedy=f"Set the precision to fp32, or the device to {' or '.join(_HALF)}.",
        )
    if recorded and chosen not in _RECORDED:
        raise DeviceError(
            f"The device {chosen!r} has no CUDA graphs.",
            remedy=f"Leave them off, or set the device to {' or '.join(_RECORDED)}.",
        )
    if chosen in _NVIDIA:
        ort.preload_dlls()  # CUDA and cuDNN from their wheels, which the loader would not find
    (provider, choices), *others = PROVIDERS[chosen]
    if precision == "fp16":
        choices = choices | _HALF[chosen]
    if recorded:
        choices = choices | _RECORDED[chosen]
    providers: list[Any] = [(provider, choices), *others]
    if provider not in ort.get_available_providers():
        raise _not_running(chosen, f"this ONNX Runtime has no {provider}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its exceptions share no base but this
        raise ModelError(f"The model does not load on {chosen}: {error}") from error
    running = provider_of(session)
    if running != provider:
        raise _not_running(chosen, f"the model runs on {running}")
    return session


def provider_of(session: ort.InferenceSession) -> str:
    """The execution provider that really runs the session, such as `CPUExecutionProvider`."""
    return str(session.get_providers()[0])


def is_accelerator(session: ort.InferenceSession) -> bool:
    """Whether each new shape of input costs time there, and memory of a device's own."""
    return provider_of(session) in [PROVIDERS[device][0][0] for device in _NVIDIA]


def resolved(device: Device) -> Device:
    """Which device a session would be opened on."""
    if device != "auto":
        return device
    available = ort.get_available_providers()
    for device in ("cuda", "openvino"):
        if PROVIDERS[device][0][0] in available:
            return device
    return "cpu"


def _not_running(device: str, why: str) -> DeviceError:
    extra = {"cpu": "cpu", "openvino": "openvino"}.get(device, "gpu")
    return DeviceError(
        f"The device {device!r} was to run the model, but {why}.",
        remedy=f"Check the driver and install kizu[{extra}] alone, or set the device to cpu.",
    )
