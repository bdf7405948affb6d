"""A trained scorer to a bundle: one ONNX graph, proven equal to what was trained."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from models import bundle as files
from models.bundle import Manifest, write_bundle
from models.golden import Golden
from models.image import Pixels
from models.session import Device, open_session
from training.backbones import feature_graph as graph
from training.backbones.features import Features, FeatureSource
from training.directories import Directories
from training.engine.checkpoint import dump_checkpoint
from training.engine.scorer_graph import scorer_graph
from training.errors import TrainingError
from training.networks.scorer import Scorer


@dataclass(frozen=True)
class Exported:
    """A bundle's `model.onnx` with the golden vectors that it was checked against."""

    model: bytes
    golden: Golden


def export(
    scorer: Scorer, source: FeatureSource, images: Pixels, *, device: Device = "auto"
) -> Exported:
    """Join the feature graph and the scorer, and replay `images` (B, H, W, 3) through the whole.

    Raises TrainingError when the graph and the trained network disagree.
    """
    head = export_head(scorer)
    model = graph.join(source.graph, head)
    golden = _golden(scorer, source, images, device)
    session = open_session(model, device=device)
    scores, heatmaps = session.run(["score", "heatmap"], {"image": images})
    difference = golden.disagreement(scores, heatmaps)
    if difference:
        raise TrainingError(
            f"The exported graph disagrees with the trained network: its {difference}.",
            remedy="Keep the checkpoint and report this; no bundle was written.",
        )
    return Exported(model, golden)


def export_head(scorer: Scorer) -> onnx.ModelProto:
    """A scorer, features (B, D) to score and heatmap, as ONNX with a dynamic batch."""
    return graph.store_half(scorer_graph(scorer), lossless=True)


def golden_images(good: Sequence[Pixels]) -> Pixels:
    """Golden inputs (B, H, W, 3) from a few good parts: these, and one with a dark patch."""
    height, width = good[0].shape[:2]
    patched = good[0].copy()
    patched[height // 4 : height // 2, width // 4 : width // 2] = 0
    return np.stack([*good, patched])


def save_bundle(
    directories: Directories,
    manifest: Manifest,
    exported: Exported,
    scorer: Scorer,
    trained_on: Mapping[str, float | None],
    report: str,
) -> Path:
    """Write everything as `<store>/<recipe>/<version>`, signed where there is a key; its path.

    `trained_on` names what was learned by its hash, with the score by models that did not learn it,
    where there is one.
    """
    return write_bundle(
        directories.store,
        manifest,
        {
            files.MODEL: exported.model,
            files.CHECKPOINT: dump_checkpoint(scorer),
            files.GOLDEN: exported.golden.to_bytes(),
            files.TRAINED_ON: _listed(trained_on),
            files.REPORT: report.encode(),
        },
        sign=directories.signer.sign if directories.signer else None,
    )


def _listed(trained_on: Mapping[str, float | None]) -> bytes:
    lines = (
        sha256 if score is None else f"{sha256} {score!r}"
        for sha256, score in sorted(trained_on.items())
    )
    return "".join(f"{line}\n" for line in lines).encode()


def next_version(store: Path, recipe: str) -> int:
    """One more than the highest version that the store holds of a recipe."""
    return max(files.list_versions(store, recipe), default=0) + 1


def git_commit() -> str | None:
    """The commit that the training code stands at, or None outside of a checkout of its own."""
    here = Path(__file__)
    tracked = _git("ls-files", "--error-unmatch", here.name, cwd=here.parent)
    return _git("rev-parse", "HEAD", cwd=here.parent) if tracked else None


def _git(*arguments: str, cwd: Path) -> str | None:
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _golden(scorer: Scorer, source: FeatureSource, images: Pixels, device: Device) -> Golden:
    session = open_session(source.graph, device=device)
    features: Features = session.run(["features"], {"image": images})[0]
    with torch.inference_mode():
        score, heatmap = scorer(torch.from_numpy(features))
    return Golden(images, score.numpy(), heatmap.numpy())
