"""BentoML: one service decodes, another scores in batches of up to eight, adapted by BentoML."""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType
from handler import Handler


@bentoml.service(traffic={"timeout": 60})
class Scorer:
    """The model, in a process of its own."""

    def __init__(self) -> None:
        self._handler = Handler(os.environ["BUNDLE"])

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=10_000)
    def score(self, images: np.ndarray) -> np.ndarray:
        """Of a batch."""
        return np.array(self._handler.score(list(images)))


@bentoml.service(traffic={"timeout": 60}, workers=1, threads=2)
class Front:
    """What is asked."""

    scorer = bentoml.depends(Scorer)

    def __init__(self) -> None:
        self._handler = Handler(os.environ["BUNDLE"])

    @bentoml.api(route="/predict")
    async def predict(self, image: Annotated[Path, ContentType("image/jpeg")]) -> dict[str, float]:
        """The score of one image."""
        pixels = self._handler.read(image.read_bytes())
        scores = await self.scorer.to_async.score(pixels[None])
        return {"score": float(scores[0])}


if __name__ == "__main__":
    os.environ["BUNDLE"] = sys.argv[1]  # for the processes that it starts
    Front.serve_http(port=int(sys.argv[2]))
