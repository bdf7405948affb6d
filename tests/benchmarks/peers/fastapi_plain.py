"""A plain FastAPI handler, as it is written first: one image, one run, in the thread pool."""

import sys

import uvicorn
from fastapi import Body, FastAPI
from handler import Handler

handler = Handler(sys.argv[1])
app = FastAPI()


@app.post("/predict")
def predict(image: bytes = Body(media_type="image/jpeg")) -> dict[str, float]:
    """The score of one image."""
    return {"score": handler.score([handler.read(image)], [image])[0]}


@app.get("/health")
def health() -> dict[str, str]:
    """It answers."""
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error")
