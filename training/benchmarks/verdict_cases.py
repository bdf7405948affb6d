"""What `benchmark verdicts` fits: drawn caps, and the shared sets of real parts, split by seed.

With seed 0 good parts are split as they are laid out; each other seed splits them anew, as many to
learn and to test. What was used to develop the default method is no evidence of how it does
elsewhere: FIGURES.md says which sets these are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.data.demo_product import write_demo
from training.data.folders import Dataset, LabelledFile, read_mvtec

TILE = "magnetic_tile"
SMALL_SETS = ("piped_bft01_tl", "piped_brg02_rl", "piped_fvn01_tl", "screws")
# Shoots that are learned where magnetic tiles are split by shoot, and good parts of the others
# that are given as `validation/good`.
LEARNED_SHOOTS = ("exp0", "exp1", "exp2")
OF_OTHERS = 20
# The quickstart's seeds, and draws of few good parts: chance decides more there.
QUICKSTARTS, DRAWS = 20, 10
# Good parts of a learning curve.
CURVE = (10, 20, 50, 100, 300)


@dataclass(frozen=True)
class VerdictCase:
    """One row of the table. `data` makes the set of a seed; `seeds` says how many there are, None
    for as many as are asked for. `served` also exports each model and times it."""

    name: str
    data: Callable[[int], Dataset]
    seeds: int | None = None
    served: bool = False


def verdict_cases(shared: Path, work: Path) -> dict[str, VerdictCase]:
    """All cases by name; drawn parts are written to `work`."""

    def real(name: str) -> Callable[[int], Dataset]:
        return lambda seed: redraw(read_mvtec(shared / "data" / name), seed)

    def tiles(count: int) -> Callable[[int], Dataset]:
        def draw(seed: int) -> Dataset:
            data = read_mvtec(shared / "data" / TILE)
            return fewer(data, count, seed)

        return draw

    cases = [
        VerdictCase("demo", lambda seed: demo(work, seed), served=True),
        VerdictCase("quickstart", lambda seed: quickstart(work, seed), QUICKSTARTS),
        VerdictCase("tile", real(TILE), served=True),
        VerdictCase("tile-50", tiles(50), DRAWS),
        VerdictCase("tile-20", tiles(20), DRAWS),
        VerdictCase("tile-shoots", lambda seed: by_shoot(read_mvtec(shared / "data" / TILE))),
        VerdictCase(
            "tile-shoots-validation",
            lambda seed: by_shoot(read_mvtec(shared / "data" / TILE), OF_OTHERS, seed),
        ),
        *(VerdictCase(name, real(name), served=True) for name in SMALL_SETS),
    ]
    return {case.name: case for case in cases}


def curve_cases(shared: Path, work: Path) -> dict[str, VerdictCase]:
    """Drawn caps and magnetic tiles, of which more and more good parts are learned."""

    def few(name: str, count: int, data: Callable[[int], Dataset]) -> VerdictCase:
        return VerdictCase(f"{name}-{count}", lambda seed: fewer(data(seed), count, seed))

    def caps(seed: int) -> Dataset:
        return demo(work, seed, good=CURVE[-1])

    def tiles(seed: int) -> Dataset:
        return read_mvtec(shared / "data" / TILE)

    cases = [
        *(few("demo", count, caps) for count in CURVE),
        *(few("tile", count, tiles) for count in CURVE),
        VerdictCase("tile-668", tiles, 1),
    ]
    return {case.name: case for case in cases}


def demo(work: Path, seed: int, *, good: int = 260) -> Dataset:
    """Drawn caps, with 200 good and 96 defective ones to test."""
    folder = work / f"demo-{good}-{seed}"
    if not folder.exists():
        write_demo(folder, seed=seed, good=good, test_good=200, per_defect=32)
    return read_mvtec(folder)


def quickstart(work: Path, seed: int) -> Dataset:
    """What `deploy/local.sh` draws and fits, and the two parts that it has inspected."""
    folder = work / f"quickstart-{seed}"
    if not folder.exists():
        write_demo(folder, seed=seed)
    data = read_mvtec(folder)
    shown = {folder / "test" / kind / "000.jpg" for kind in ("good", "scratch")}
    return replace(data, test=tuple(file for file in data.test if file.image in shown))


def redraw(data: Dataset, seed: int) -> Dataset:
    """The set with its good parts split anew, as many to learn and to test; seed 0 leaves it."""
    if seed == 0:
        return data
    tested = tuple(file for file in data.test if file.verdict == "ok")
    good = shuffled((*data.train, *tested), seed)
    return replace(
        data,
        train=good[: len(data.train)],
        test=(*good[len(data.train) :], *_defective(data)),
    )


def fewer(data: Dataset, count: int, seed: int) -> Dataset:
    """The set with so many of its good parts to learn, drawn by the seed."""
    return replace(data, train=shuffled(data.train, seed)[:count])


def by_shoot(data: Dataset, given: int = 0, seed: int = 0) -> Dataset:
    """Magnetic tiles of the first shoots to learn, and those of the others to test; of these,
    `given` good ones are the validation set."""
    good = (*data.train, *(file for file in data.test if file.verdict == "ok"))
    learned = tuple(file for file in good if _shoot(file) in LEARNED_SHOOTS)
    others = shuffled([file for file in good if _shoot(file) not in LEARNED_SHOOTS], seed)
    defective = tuple(file for file in _defective(data) if _shoot(file) not in LEARNED_SHOOTS)
    return replace(
        data, train=learned, validation=others[:given], test=(*others[given:], *defective)
    )


def shuffled(files: Sequence[LabelledFile], seed: int) -> tuple[LabelledFile, ...]:
    """The files in the order of a seed."""
    order = np.random.default_rng(seed).permutation(len(files))
    return tuple(files[number] for number in order)


def _shoot(file: LabelledFile) -> str:
    return file.image.name.partition("_")[0]


def _defective(data: Dataset) -> tuple[LabelledFile, ...]:
    return tuple(file for file in data.test if file.verdict == "ng")
