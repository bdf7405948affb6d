"""`/v2`: the Open Inference Protocol, for clients of Triton and KServe.

A model is a recipe, its version the bundle that decides. What it gives are raw scores and heatmaps:
there is no verdict, and nothing is stored.
"""

from importlib.metadata import version as version_of
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from models.bundle import Bundle, Manifest
from service.engine import Outputs
from service.errors import NotFound, UnsupportedMedia
from service.open_inference import LENGTH_HEADER, metadata, read_request, write_response
from service.routes.access import needs
from service.routes.problems import PROBLEMS, files
from service.state import CurrentState

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=PROBLEMS)

_INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

_INFERRED = PROBLEMS | files("application/json", "application/octet-stream")


@router.get("", operation_id="server_metadata", dependencies=[needs("camera")])
async def server() -> dict[str, Any]:
    """Who answers."""
    return {"name": "kizu", "version": version_of("kizu"), "extensions": ["binary_tensor_data"]}


@router.get("/health/live", operation_id="server_live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready", operation_id="server_ready")
async def ready(response: Response, state: CurrentState) -> dict[str, bool]:
    """Whether every recipe can be inferred."""
    able = bool(state.registry.champions) and not (state.watchdog.problem or state.watchdog.absence)
    response.status_code = 200 if able else 503
    return {"ready": able}


@router.get("/models/{recipe}", operation_id="model_metadata", dependencies=[needs("camera")])
@router.get(
    "/models/{recipe}/versions/{version}",
    operation_id="model_version_metadata",
    dependencies=[needs("camera")],
)
async def model(state: CurrentState, recipe: str, version: str | None = None) -> dict[str, Any]:
    """What a model takes and gives."""
    manifest = _decides(state.registry.champion(recipe).bundle, version)
    return metadata(recipe, manifest.version, manifest.input)


@router.get("/models/{recipe}/ready", operation_id="model_ready", dependencies=[needs("camera")])
@router.get(
    "/models/{recipe}/versions/{version}/ready",
    operation_id="model_version_ready",
    dependencies=[needs("camera")],
)
async def model_ready(
    state: CurrentState, recipe: str, version: str | None = None
) -> dict[str, bool | str]:
    """Whether this model can be inferred."""
    state.watchdog.check()
    _decides(state.registry.champion(recipe).bundle, version)
    return {"name": recipe, "ready": True}


@router.post(
    "/models/{recipe}/infer",
    operation_id="infer",
    dependencies=[needs("camera")],
    openapi_extra=_INFER_BODY,
    response_class=Response,
    responses=_INFERRED,
)
@router.post(
    "/models/{recipe}/versions/{version}/infer",
    operation_id="infer_version",
    dependencies=[needs("camera")],
    openapi_extra=_INFER_BODY,
    response_class=Response,
    responses=_INFERRED,
)
async def infer(
    request: Request, state: CurrentState, recipe: str, version: str | None = None
) -> Response:
    """Raw scores and heatmaps of images at the network's size."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMedia("Compressed bodies are not read.", remedy="Send it as it is.")
    loaded = await state.inspector.loaded(recipe)
    manifest = _decides(loaded.bundle, version)
    asked = read_request(
        await request.body(), request.headers.get(LENGTH_HEADER), manifest.input,
        state.settings.max_batch_images,
    )  # fmt: skip
    scored = await state.inspector.score(loaded, list(asked.images))
    outputs = Outputs(
        np.array([one.score for one in scored], np.float32),
        np.stack([one.heatmap for one in scored]),
    )
    body, length = write_response(asked, outputs, name=recipe, version=manifest.version)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(
        body, media_type="application/octet-stream", headers={LENGTH_HEADER: str(length)}
    )


def _decides(bundle: Bundle, version: str | None) -> Manifest:
    """The manifest, where this version was asked for or none."""
    manifest = bundle.manifest
    if version not in (None, str(manifest.version)):
        raise NotFound(
            f"Version {version} of {manifest.recipe!r} is not loaded; {manifest.version} decides."
        )
    return manifest
