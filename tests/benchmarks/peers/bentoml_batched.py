"""BentoML: batches of up to eight, adapted by BentoML, which decodes within them.

A service of its own for decoding loses a few requests in a hundred on the way to the other.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from handler import Handler


@bentoml.service(traffic={"timeout": 60}, workers=1)
class Scorer:
    """Decoding and the model."""

    def __init__(self) -> None:
        self._handler = Handler(os.environ["BUNDLE"])

    @bentoml.api(route="/predict", batchable=True, max_batch_size=8, max_latency_ms=10_000)
    def predict(self, image: list[Annotated[Path, ContentType("image/jpeg")]]) -> list[float]:
        """Of a batch."""
        bodies = [path.read_bytes() for path in image]
        return self._handler.score([self._handler.read(body) for body in bodies], bodies)


if __name__ == "__main__":
    os.environ["BUNDLE"] = sys.argv[1]  # for the process that it starts
    Scorer.serve_http(port=int(sys.argv[2]))
