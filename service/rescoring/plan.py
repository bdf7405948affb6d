"""What is to be done, written down before it begins, so that it can go on where it was."""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from models.bundle import Thresholds
from models.durable import make_directory, new_directory, write_file
from models.errors import KizuError
from service.recipe_settings import RecipeSettings
from service.rescoring.images import OldImage
from service.rescoring.verdict import FIELDS, NewVerdict

PER_CHUNK = 64
_PLAN, _TERMS, _RESULTS, _REFUSED = "plan", "terms.json", "results", "refused.csv"


class RescoringError(KizuError):
    """A re-scoring that cannot begin or go on."""


class Terms(BaseModel):
    """By what images are judged. `source` says which they are."""

    recipe: str
    version: int
    digest: str
    thresholds: Thresholds
    settings: RecipeSettings
    source: str


class Plan:
    """A folder: what is to be done, in chunks of images, and what was found of those done."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self._folder = folder
        self.terms = terms
        self._chunks = sorted((folder / _PLAN).glob("*.jsonl"))
        make_directory(folder / _RESULTS)

    @classmethod
    def begin(cls, folder: Path, terms: Terms, images: Iterable[OldImage]) -> "Plan":
        """A new one; or, where its folder holds one that says the same, that one: nothing is then
        asked of `images`. Raises RescoringError."""
        known = folder / _PLAN
        if known.exists():  # and so whole
            before = Terms.model_validate_json((known / _TERMS).read_bytes())
            if before != terms:
                raise RescoringError(
                    f"{folder} holds another re-scoring: of {before.source} by version "
                    f"{before.version} of {before.recipe!r}, or by other thresholds.",
                    remedy="Name another folder, or remove it.",
                )
            return cls(folder, terms)
        with new_directory(known) as place:
            (place / _TERMS).write_text(terms.model_dump_json(indent=2), "utf-8")
            for number, chunk in enumerate(_chunks(images)):
                lines = "".join(f"{image.model_dump_json()}\n" for image in chunk)
                (place / f"{number:08}.jsonl").write_text(lines, "utf-8")
        return cls(folder, terms)

    @property
    def size(self) -> int:
        """How many chunks there are."""
        return len(self._chunks)

    def unfinished(self) -> list[Path]:
        """The chunks of which nothing was found yet."""
        return [chunk for chunk in self._chunks if not self._result(chunk.stem).exists()]

    def finish(self, name: str, found: Iterable[NewVerdict]) -> None:
        """Keep what was found of a chunk, all of it or nothing."""
        write_file(self._result(name), _table(found))

    def found(self) -> Iterator[NewVerdict]:
        """All that was found, in the order of the images."""
        for chunk in self._chunks:
            with self._result(chunk.stem).open(encoding="utf-8", newline="") as file:
                yield from map(NewVerdict.of_row, csv.DictReader(file))

    def write_refused(self) -> Path:
        """A table of what passed then, and would not now."""
        passed_then = (one for one in self.found() if one.verdict == "ok" != one.new_verdict)
        write_file(self._folder / _REFUSED, _table(passed_then))
        return self._folder / _REFUSED

    def changes(self) -> Counter[tuple[str, str]]:
        """How many images went from which verdict to which; without one before, from ``-``."""
        return Counter((one.verdict or "-", one.new_verdict) for one in self.found())

    def _result(self, name: str) -> Path:
        return self._folder / _RESULTS / f"{name}.csv"


def _table(found: Iterable[NewVerdict]) -> bytes:
    written = io.StringIO()
    rows = csv.DictWriter(written, FIELDS)
    rows.writeheader()
    rows.writerows(one.row() for one in found)
    return written.getvalue().encode()


def _chunks(images: Iterable[OldImage]) -> Iterator[list[OldImage]]:
    rest = iter(images)
    while chunk := list(itertools.islice(rest, PER_CHUNK)):
        yield chunk
