"""What every peer does with images: the same decoding, the same bundle, the score."""

from pathlib import Path

import numpy as np

from models.bundle import MODEL, open_bundle
from models.image import Pixels, decode, resize
from models.session import open_session


class Handler:
    """A bundle in a session of all cores."""

    def __init__(self, bundle: str) -> None:
        opened = open_bundle(Path(bundle))
        self._manifest = opened.manifest
        self._session = open_session(opened.read(MODEL), device="cpu")

    def read(self, body: bytes) -> Pixels:
        """An image at the network's size."""
        return resize(decode(body, self._manifest.pixels), self._manifest.input)

    def score(self, images: list[Pixels]) -> list[float]:
        """Of a batch."""
        scores, _ = self._session.run(["score", "heatmap"], {"image": np.stack(images)})
        return [float(score) for score in scores]
