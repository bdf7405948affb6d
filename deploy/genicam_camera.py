"""Frames of a GenICam camera, each inspected as it comes. An example to begin a station with: it
has not run with a camera yet.

    pip install kizu harvesters
    python genicam_camera.py --cti producer.cti --recipe cap --camera top

The camera's maker has the GenTL producer (`--cti`). Set the camera to Mono8, Mono16, BGR8 or
BayerRG8 with its own tool. A line for each frame: `ok`, `review`, or `ng` and why. Where none comes
in time, because this has ended, the part is not good either.
"""

import argparse
import os
import uuid
from collections.abc import Iterator
from typing import Any

from models.errors import KizuError
from service.client import Kizu

# As GenICam names them, and as Kizu does. Mono10 and Mono12 come as 16-bit samples, too: the
# recipe's pixels must be of that depth.
FORMATS = {
    "Mono8": "Mono8", "Mono10": "Mono16", "Mono12": "Mono16", "Mono16": "Mono16",
    "BGR8": "BGR8", "BayerRG8": "BayerRG8",
}  # fmt: skip


def verdict(kizu: Kizu, buffer: Any, *, recipe: str, camera: str, key: str, takt_ms: int) -> str:
    """What becomes of the part: `ok`, `review` or `ng`. No frame, half a frame, another format, no
    answer and every error is `ng`, since nobody has seen that the part is good."""
    if buffer is None:
        return "ng: there was no whole frame in time"
    try:
        frame = buffer.payload.components[0]
        result = kizu.inspect(
            frame.data.tobytes(),
            recipe=recipe,
            camera=camera,
            image_type="application/octet-stream",
            width=frame.width,
            height=frame.height,
            pixel_format=FORMATS[frame.data_format],
            deadline_ms=takt_ms,
            key=key,
        )
    except (AttributeError, IndexError) as error:
        return f"ng: the frame holds no image ({error})"
    except KeyError as error:
        return f"ng: the camera is set to {error}; Kizu reads {', '.join(FORMATS)}"
    except KizuError as error:
        return f"ng: {error}"
    return result.verdict


def frames(cti: str, timeout_s: float) -> Iterator[Any]:
    """Of the first camera of a producer; None where none came in time, or not all of it."""
    from harvesters.core import Harvester

    with Harvester() as harvester:
        harvester.add_file(cti)
        harvester.update()
        with harvester.create(0) as camera:
            camera.start()
            while True:
                buffer = camera.try_fetch(timeout=timeout_s)
                yield buffer
                if buffer is not None:
                    buffer.queue()  # the camera fills it anew


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    asked.add_argument("--cti", required=True, help="the GenTL producer")
    asked.add_argument("--recipe", required=True)
    asked.add_argument("--camera", default="camera")
    asked.add_argument("--service", default="http://127.0.0.1:8000")
    asked.add_argument("--takt-ms", type=int, default=1000, help="after so long a part is ng")
    given = asked.parse_args()
    about = {"recipe": given.recipe, "camera": given.camera, "takt_ms": given.takt_ms}
    takt_s, run = given.takt_ms / 1000, uuid.uuid4().hex
    # KIZU_KEY is of `kizu key add "line 1"`. After the takt there is no use in trying again.
    key = os.environ.get("KIZU_KEY")
    with Kizu(given.service, key=key, patience_s=takt_s, timeout_s=takt_s) as kizu:
        for number, buffer in enumerate(frames(given.cti, takt_s)):
            print(verdict(kizu, buffer, key=f"{run}-{number}", **about), flush=True)


if __name__ == "__main__":
    main()
