"""LitServe: decoding in the request's step, batches of up to eight within 10 ms."""

import sys
from typing import Any

import litserve as ls
from fastapi import Request
from handler import Handler

from models.image import Pixels

Read = tuple[Pixels, bytes]


class Scorer(ls.LitAPI):
    """The handler's steps as LitServe's."""

    def __init__(self, bundle: str) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.01, api_path="/predict")
        self._bundle = bundle

    def setup(self, device: str) -> None:
        """In the process that runs the model."""
        self._handler = Handler(self._bundle)

    def decode_request(self, request: Request, **kwargs: Any) -> Read:
        """A form's file."""
        body = request["image"].file.read()
        return self._handler.read(body), body

    def batch(self, inputs: list[Read]) -> list[Read]:
        """As they are."""
        return inputs

    def predict(self, inputs: list[Read], **kwargs: Any) -> list[float]:
        """Scores."""
        return self._handler.score([pixels for pixels, _ in inputs], [body for _, body in inputs])

    def unbatch(self, output: list[float]) -> list[float]:
        """As they are."""
        return output

    def encode_response(self, output: float, **kwargs: Any) -> dict[str, float]:
        """As JSON."""
        return {"score": output}


if __name__ == "__main__":
    server = ls.LitServer(Scorer(sys.argv[1]), accelerator="cpu")
    server.run(port=int(sys.argv[2]), log_level="error", generate_client_file=False)
