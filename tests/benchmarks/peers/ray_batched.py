"""Ray Serve: one replica that decodes in a thread and batches up to eight within 10 ms."""

import asyncio
import sys
import time

import ray
from handler import Handler
from ray import serve
from starlette.requests import Request

from models.image import Pixels


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Scorer:
    """The handler in Ray's replica."""

    def __init__(self, bundle: str) -> None:
        self._handler = Handler(bundle)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def score(self, images: list[Pixels], bodies: list[bytes]) -> list[float]:
        """Of a batch; the loop goes on reading meanwhile."""
        return await asyncio.to_thread(self._handler.score, images, bodies)

    async def __call__(self, request: Request) -> dict[str, float]:
        """One image."""
        if request.method == "GET":
            return {}
        body = await request.body()
        image = await asyncio.to_thread(self._handler.read, body)
        return {"score": await self.score(image, body)}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": int(sys.argv[2])})
    serve.run(Scorer.bind(sys.argv[1]), route_prefix="/")
    while True:
        time.sleep(1)
