"""Images that a station drops into a folder, inspected as if it had asked."""

import hashlib
import os
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
# What another image could be answered otherwise, and the same one, asked for again, would not: too
# large, of no known type, not readable, or one that breaks the model. A key, a recipe or a service
# that is not there is not its fault.
_THE_IMAGE_S_OWN = (413, 415, 422, 500)


class Folder:
    """A folder, asked for images again and again: on a network's drive nobody says that there is
    a new one.

    An image that has not changed for `settled_s` is taken into `inspecting`, so that what comes
    under its name meanwhile is another one, and inspected, the oldest first. Then it lies in
    `done`, or in `failed` where it can have no result, with what the service said beside it as
    `<its name>.json`, which is there first; in both of them there is a `verdict`. Whatever else is
    wrong, it stays and is asked about again: under the same key, so that it is inspected once.
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
        self.images = 0  # that were taken and have no result yet

    def run(self, kizu: Kizu, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.wait(LOOK_S):
            try:
                images = self._taken()
            except OSError as error:  # a network's drive can be away
                self._wait(error)
                continue
            for done, image in enumerate(images):
                self.images = len(images) - done
                if stop.is_set() or not self._inspect(kizu, image):
                    break
            else:
                self.images = 0

    def _taken(self) -> list[Path]:
        """Take what has settled; all that was taken, the oldest first."""
        place = self._path / "inspecting"
        settled = self._settled()
        if settled:
            make_directory(place)
        for image in settled:
            if not (place / image.name).exists():  # else one of its name goes first
                image.replace(place / image.name)
        taken = _images(place) if place.is_dir() else ()
        return [image for image, _ in sorted(taken, key=lambda one: (one[1].st_mtime_ns, one[0]))]

    def _settled(self) -> list[Path]:
        """The images that nobody writes to any more."""
        now = time.monotonic()
        known, self._known = self._known, {}
        ready = []
        for image, found in _images(self._path):
            state = found.st_size, found.st_mtime_ns
            before, since = known.get(image, (None, now))
            self._known[image] = (state, since if state == before else now)
            if state == before and now - since >= self._settled_s:
                ready.append(image)
        return ready

    def _inspect(self, kizu: Kizu, image: Path) -> bool:
        """Whether it is through; if not, those after it wait, too."""
        try:
            before = image.stat()
            place, said = self._ask(kizu, image, image.read_bytes())
            now = image.stat()
            # Where somebody still writes into it, what was inspected is not what lies here.
            if (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
                self._put_away(image, place, said)
        except (Refused, NoAnswer, OSError) as error:
            return self._wait(error)
        self._waiting = False
        return True

    def _ask(self, kizu: Kizu, image: Path, data: bytes) -> tuple[str, str]:
        """Where the image goes, and what the service said. Raises Refused and NoAnswer."""
        part = self._part.match(image.stem) if self._part else None
        try:
            result = kizu.inspect(
                data,
                recipe=self._recipe,
                image_type=_TYPES[image.suffix.lower()],
                part_id=part["part"] if part else None,
                camera=self._camera,
                key=hashlib.sha256(f"{self.name}/{image.name}/".encode() + data).hexdigest(),
            )
        except Refused as error:
            if error.problem.status not in _THE_IMAGE_S_OWN:
                raise
            return "failed", error.problem.model_dump_json()
        return "done", result.model_dump_json()

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


def _images(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for image in place.iterdir():
        if image.suffix.lower() in _TYPES and not image.name.startswith(".") and image.is_file():
            try:
                yield image, image.stat()
            except FileNotFoundError:  # its station has taken it back
                continue
