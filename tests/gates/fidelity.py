"""What the engine sees is what was drawn, for every kind of file and buffer; or it is refused.

The mapping to 8-bit RGB that a recipe's pixels declare is computed here, from what was drawn.
"""

import http.client
import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle
from models.image import InputSize, PixelContract, Pixels
from models.raw import PIXEL_FORMATS
from service.app import create_app
from service.engine import FakeEngine
from service.routes.inspect import IMAGE_TYPES
from service.settings import Settings
from tests.gates.drawn import H, Picture, W, pictures, upright
from tests.gates.gate import Findings
from tests.gates.written import Values
from tests.grey_parts import write_version
from tests.listening import listening

LEVELS = 1.0
AT_ONCE = 50  # kinds
FAR = 4.0  # on average, of what a lossy codec keeps of a smooth picture
_LUMA = np.array([0.299, 0.587, 0.114])
RECIPES = [
    PixelContract(colour=colour, bit_depth=depth)
    for depth in (8, 10, 12, 14, 16)
    for colour in ("rgb", "grey")
]


@dataclass(frozen=True)
class Trial:
    """A file, and the recipes that it is for."""

    picture: Picture
    orientation: int
    data: bytes
    contracts: list[PixelContract]


@dataclass(frozen=True)
class Shot:
    """What became of one file that one recipe was sent."""

    trial: Trial
    contract: PixelContract
    status: int
    answer: dict[str, Any]
    seen: list[Pixels]  # by the engine


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Every kind in every orientation to every recipe; the short form takes one of each."""
    found = Findings()
    kinds = list(pictures())
    found.count("kinds", len(kinds))
    for what in (*IMAGE_TYPES, *PIXEL_FORMATS):
        if not any(what == kind.media or kind.query.endswith(f"={what}") for kind in kinds):
            found.fail(f"{what}: nothing was drawn as that")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(len(RECIPES)) as many:
        seen: dict[str, list[Pixels]] = {}
        with _served(Path(name), seen) as address:
            lines = [Line(contract, address, seen) for contract in RECIPES]
            for start in range(0, len(kinds), AT_ONCE):
                part = range(start, min(start + AT_ONCE, len(kinds)))
                tried = [one for number in part for one in _tried(kinds[number], number, full=full)]
                for shots in many.map(Line.send, lines, repeat(tried)):
                    for shot in shots:
                        _judge(shot, found)
                progress(part.stop / len(kinds))
    return found


def _served(folder: Path, seen: dict[str, list[Pixels]]) -> Any:
    # Inputs have the size of the picture, so that nothing is resized on the way.
    for contract, (height, width) in product(RECIPES, ((H, W), (W, H))):
        write_version(
            folder / "store", recipe=_recipe(contract, width), pixels=contract,
            input=InputSize(height=height, width=width),
        )  # fmt: skip
    settings = Settings(
        store=folder / "store", data=folder / "data",
        canary_seconds=86_400,  # or the engine would see other images in between
    )  # fmt: skip

    def open_engine(bundle: Bundle) -> FakeEngine:
        return FakeEngine(seen.setdefault(bundle.manifest.recipe, []).append)

    return listening(create_app(settings, open_engine=open_engine))


def _tried(picture: Picture, number: int, *, full: bool) -> list[Trial]:
    orientations = range(1, 9) if picture.turns else (1,)
    contracts = RECIPES
    if not full:
        orientations = (orientations[number % len(orientations)],)
        near = [one for one in RECIPES if (one.bit_depth > 8) == (picture.depth > 8)]
        suited = [one for one in near if declared(picture, one) is not None] or near
        contracts = [suited[number % len(suited)]]
    return [
        Trial(picture, orientation, picture.write(orientation), contracts)
        for orientation in orientations
    ]


def declared(picture: Picture, contract: PixelContract) -> Values | None:
    """The picture's RGB (H, W, 3) in 0 .. 255, or None where the recipe has none for it."""
    values, deep = picture.values, picture.depth > 8
    if values is None or deep != (contract.bit_depth > 8):
        return None
    if deep:
        top = (1 << contract.bit_depth) - 1
        if values.max() > top or picture.depth not in (16, contract.bit_depth):
            return None
        return np.repeat(values.astype(float)[..., None] * 255 / top, 3, axis=2)
    if contract.colour == "grey":
        return np.repeat((values @ _LUMA)[..., None], 3, axis=2)
    return values.astype(float)


class Line:
    """Sends one recipe's pictures, one after the other."""

    def __init__(
        self, contract: PixelContract, address: tuple[str, int], seen: dict[str, list[Pixels]]
    ) -> None:
        self._contract = contract
        self._seen = seen
        self._connection = http.client.HTTPConnection(*address, timeout=30)

    def send(self, tried: list[Trial]) -> list[Shot]:
        """Those that are for this recipe, over one connection."""
        with closing(self._connection):
            return [self._send(trial) for trial in tried if self._contract in trial.contracts]

    def _send(self, trial: Trial) -> Shot:
        recipe = _recipe(self._contract, W if trial.orientation < 5 else H)
        self._connection.request(
            "POST", f"/v1/inspect?recipe={recipe}{trial.picture.query}", trial.data,
            {"Content-Type": trial.picture.media},
        )  # fmt: skip
        answer = self._connection.getresponse()
        content = json.loads(answer.read())
        images = [image for batch in self._seen[recipe] for image in batch]
        self._seen[recipe].clear()
        return Shot(trial, self._contract, answer.status, content, images)


def _judge(shot: Shot, found: Findings) -> None:
    picture, orientation, answer = shot.trial.picture, shot.trial.orientation, shot.answer
    expected = declared(picture, shot.contract)
    name = f"{picture.name}, turned {orientation}, to {shot.contract.colour} "
    name += f"of {shot.contract.bit_depth}"
    if shot.status != 200:
        found.count("refused")
        if not 400 <= shot.status < 500 or answer.get("verdict") != "error" or shot.seen:
            found.fail(f"{name}: {shot.status} {answer}")
        elif expected is not None and not picture.odd:
            found.fail(f"{name}: refused: {answer['detail']}")
        return
    found.count("inspected")
    if expected is None:
        found.fail(f"{name}: inspected, and there is no right mapping")
        return
    shown = upright(expected, orientation)
    if [image.shape for image in shot.seen] != [shown.shape]:
        found.fail(f"{name}: the engine saw {[image.shape for image in shot.seen]}")
        return
    if (answer["height"], answer["width"]) != shown.shape[:2]:
        found.fail(f"{name}: said to be {answer['width']} × {answer['height']}")
    off = float(np.abs(shot.seen[0] - shown).max())
    found.most("farthest off, levels", round(off, 2))
    if off > LEVELS:
        found.fail(f"{name}: {off:.1f} levels off")
    if picture.near is not None and shot.contract.colour == "rgb":
        near = upright(picture.near, orientation).astype(float)
        far = float(np.abs(shot.seen[0] - near).mean())
        if far > FAR:
            found.fail(f"{name}: {far:.1f} levels from what was drawn, on average")


def _recipe(contract: PixelContract, width: int) -> str:
    return f"{contract.colour}{contract.bit_depth}-{width}"
