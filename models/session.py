"""An ONNX Runtime session that runs on the device it was asked for, or none at all."""

from typing import Any, Literal

import onnxruntime as ort

from models.errors import DeviceError, ModelError

Device = Literal["auto", "cpu", "cuda"]

_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # HEURISTIC: the exhaustive search costs about 0.6 s for every new shape. No TF32: its 10 bits
    # of mantissa would miss the golden vectors.
    "cuda": (
        "CUDAExecutionProvider",
        {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
    ),
}


def open_session(
    model: bytes, *, device: Device = "auto", threads: int = 0
) -> ort.InferenceSession:
    """Load an ONNX model onto a device; `threads` bounds the CPU threads of one run, 0 is all.

    `auto` is CUDA where the installed runtime was built for it and the CPU otherwise. Raises
    ModelError, or DeviceError when the device does not really run: ONNX Runtime falls back to the
    CPU without a word, and lists providers that cannot load.
    """
    chosen = device
    if device == "auto":
        chosen = "cuda" if "CUDAExecutionProvider" in ort.get_available_providers() else "cpu"
    if chosen == "cuda":
        ort.preload_dlls()  # CUDA and cuDNN from their wheels, which the loader would not find
    provider, settings = _PROVIDERS[chosen]
    if provider not in ort.get_available_providers():
        raise _not_running(chosen, f"this ONNX Runtime has no {provider}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers: list[Any] = [(provider, settings)]
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


def _not_running(device: str, why: str) -> DeviceError:
    return DeviceError(
        f"The device {device!r} was to run the model, but {why}.",
        remedy="Check the driver and install kizu[gpu] instead of kizu[cpu], or set the device "
        "to cpu.",
    )
