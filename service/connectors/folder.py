"""Images that a station drops into a folder, inspected as if it had asked."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from models.durable import make_directory, sync_directory, write_file
from service.client import Kizu, NoAnswer, Refused

log = structlog.get_logger()

LOOK_S = 0.25
_TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".bmp": "image/bmp",
    ".tif": "image/tiff", ".tiff": "image/tiff", ".webp": "image/webp",
}  # fmt: skip


class Folder:
    """A folder, asked for images again and again: on a network's drive nobody says that there is
    a new one.

    An image that has not changed for `settled_s` is inspected, the oldest first. Then it lies in
    `done`, or in `failed` where it can have no result, with what the service said beside it as
    `<its name>.json`, which is there first; in both of them there is a `verdict`. One that the
    service could not be asked about stays, and is asked about again: under the same key, so that
    it is inspected once.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        recipe: str,
        *,
        part: re.Pattern[str] | None = None,
        camera: str | None = None,
        settled_s: float = 1.0,
    ) -> None:
        self.name = name
        self._path = path
        self._recipe = recipe
        self._part = part
        self._camera = camera or name
        self._settled_s = settled_s
        self._known: dict[Path, tuple[tuple[int, int], float]] = {}
        self._waiting = False

    def run(self, kizu: Kizu, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.wait(LOOK_S):
            try:
                settled = self._settled()
            except OSError as error:  # a network's drive can be away
                self._wait(error)
                continue
            for image in settled:
                if stop.is_set() or not self._inspect(kizu, image):
                    break

    def _settled(self) -> list[Path]:
        """The images that nobody writes to any more, the oldest first."""
        now = time.monotonic()
        known, ready = self._known, []
        self._known = {}
        for image, state in self._images():
            before, since = known.get(image, (None, now))
            self._known[image] = (state, since if state == before else now)
            if state == before and now - since >= self._settled_s:
                ready.append((state[1], image))
        return [image for _, image in sorted(ready)]

    def _images(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for image in self._path.iterdir():
            if image.suffix.lower() in _TYPES and not image.name.startswith("."):
                try:
                    found = image.stat()
                except FileNotFoundError:  # its station has taken it back
                    continue
                if image.is_file():
                    yield image, (found.st_size, found.st_mtime_ns)

    def _inspect(self, kizu: Kizu, image: Path) -> bool:
        """Whether it is through; if not, those after it wait, too."""
        try:
            data = image.read_bytes()
            key = hashlib.sha256(f"{self.name}/{image.name}/".encode() + data).hexdigest()
            part = self._part.match(image.stem) if self._part else None
            result = kizu.inspect(
                data,
                recipe=self._recipe,
                image_type=_TYPES[image.suffix.lower()],
                part_id=part["part"] if part else None,
                camera=self._camera,
                key=key,
            )
        except Refused as error:
            if error.problem.retryable:
                return self._wait(error)
            self._put_away(image, "failed", error.problem.model_dump_json())
        except (NoAnswer, OSError) as error:
            return self._wait(error)
        else:
            self._put_away(image, "done", result.model_dump_json())
        self._waiting = False
        return True

    def _wait(self, error: Exception) -> bool:
        if not self._waiting:
            log.warning("images wait in their folder", folder=self.name, error=str(error))
        self._waiting = True
        return False

    def _put_away(self, image: Path, place: str, said: str) -> None:
        target = self._path / place / image.name
        make_directory(target.parent)
        if target.exists():  # another image of that name
            target = target.with_stem(f"{image.stem}.{time.time_ns()}")
        write_file(target.with_name(f"{target.name}.json"), said.encode())
        image.replace(target)
        sync_directory(target.parent)
        sync_directory(self._path)
