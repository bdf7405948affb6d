"""What every peer does with images: the same decoding, the same bundle, and, where KEEP_IN names a
directory, what Kizu owes its callers: image, heatmap and row are on disk before the answer."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from models.bundle import MODEL, Bundle, open_bundle
from models.image import Pixels, decode, resize
from models.session import open_session
from service import heatmap
from service.store import records
from service.store.database import open_database
from service.store.local_blobs import LocalBlobs
from service.store.tables import Inspection


class Handler:
    """A bundle in a session of all cores."""

    def __init__(self, bundle: str) -> None:
        opened = open_bundle(Path(bundle))
        self._manifest = opened.manifest
        self._session = open_session(opened.read(MODEL), device="cpu")
        self._keeper = _Keeper(Path(os.environ["KEEP_IN"]), opened) if keeps() else None

    def read(self, body: bytes) -> Pixels:
        """An image at the network's size."""
        return resize(decode(body, self._manifest.pixels), self._manifest.input)

    def score(self, images: list[Pixels], bodies: list[bytes]) -> list[float]:
        """Of a batch, of which `bodies` are what was sent; empty where nothing is kept."""
        scores, heatmaps = self._session.run(["score", "heatmap"], {"image": np.stack(images)})
        if self._keeper:
            self._keeper.keep(bodies, scores, heatmaps)
        return [float(score) for score in scores]


def keeps() -> bool:
    """Whether results are kept."""
    return "KEEP_IN" in os.environ


class _Keeper:
    def __init__(self, directory: Path, bundle: Bundle) -> None:
        self._bundle = bundle
        self._blobs = LocalBlobs(directory / "blobs")
        self._database = open_database(f"sqlite:///{directory / 'kizu.sqlite3'}")
        self._threads = ThreadPoolExecutor(8)

    def keep(self, bodies: list[bytes], scores: np.ndarray, heatmaps: np.ndarray) -> None:
        if len(bodies) == 1:
            self._one(bodies[0], scores[0], heatmaps[0])
        else:
            list(self._threads.map(self._one, bodies, scores, heatmaps))

    def _one(self, body: bytes, score: np.float32, heatmap_hw: np.ndarray) -> None:
        kept = heatmap.keep(heatmap_hw)
        manifest = self._bundle.manifest
        thresholds = manifest.thresholds
        row = Inspection(
            id=records.new_id(), created_at=records.now(), recipe=manifest.recipe,
            part_id=None, camera=None, simulated=False, idempotency_key=None,
            request_sha256="", image_sha256=self._blobs.put(body), image_type="image/jpeg",
            width=0, height=0, pixels={}, bundle_version=manifest.version,
            bundle_digest=self._bundle.digest, device="cpu",
            verdict=thresholds.verdict(float(score)), score=float(score), percentile=0.0,
            review_threshold=thresholds.review, ng_threshold=thresholds.ng, regions=[],
            heatmap_sha256=self._blobs.put(kept.png), heatmap_low=kept.low,
            heatmap_high=kept.high, processing_times={},
        )  # fmt: skip
        with Session(self._database) as session:
            session.add(row)
            session.commit()
