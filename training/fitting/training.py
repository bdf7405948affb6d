"""From a folder of good parts to a scorer that has been tried: all of a fit but the bundle."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from models.backbone import Backbone, Stage
from models.image import InputSize, PixelContract
from models.session import Device
from models.signature import Signer
from training.backbones.feature_graph import feature_graph, pixel_graph
from training.backbones.features import FeatureCache, FeatureSource, channel_statistics
from training.backbones.tiled_graph import Tiles
from training.calibration.thresholds import LEAST, Rates
from training.data.drawn_defects import draw_anomalies, external_anomalies
from training.data.folders import Dataset, LabelledFile, check_masks, hold_out
from training.engine.distributed import Worker
from training.engine.loop import Schedule, TrainingState
from training.errors import TrainingError
from training.evaluation.scoring import Evaluation, evaluate, score_features
from training.finetuning.push_pull import PushPull, learn_labels
from training.methods.fusion import balance, count_what_learned, weigh
from training.methods.registry import Sight, method
from training.methods.train_context import Lesson, ScheduleName
from training.networks.scorer import Scorer, ScoreSettings
from training.progress import Reporter

HOLD_OUT = 0.15
# Drawn anomalies, whose features are computed once.
ANOMALIES = 600


@dataclass(frozen=True)
class FitSettings:
    """How a recipe is fitted. `size` is in pixels, a side or (width, height); `grid` is the number
    of cells along the shorter side. With a `tile`, in pixels, the backbone sees an image tile by
    tile.

    `anomalies` are kinds to draw on good parts, `external` is a folder of images of something else:
    with either, what has learned to rebuild good parts then learns by `push_pull` not to rebuild
    those.
    """

    recipe: str
    preset: str = "best"
    schedule: ScheduleName = "short"
    size: int | tuple[int, int] = 256
    grid: int | None = None
    tile: int | None = None
    stages: tuple[str, ...] = ()
    pixels: PixelContract = field(default_factory=PixelContract)
    seed: int = 0
    steps: int | None = None
    anomalies: tuple[str, ...] = ()
    external: Path | None = None
    push_pull: PushPull = field(default_factory=PushPull)
    score: ScoreSettings | None = None
    rates: Rates = field(default_factory=Rates)
    device: Device = "auto"

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height of the input, in pixels."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def cells(self) -> int:
        """Cells along the shorter side: 16, of a tiled image one for 16 pixels."""
        return self.grid or (min(self.sides) // 16 if self.tile else 16)

    @property
    def scored(self) -> ScoreSettings:
        """How distances become a score: by a window of a sixteenth of the shorter side, if nothing
        else is said. By a smaller one the finest cells of good parts would have their say, of which
        there are many: on drawn caps at 1024 pixels image AUROC fell from 95.5 to 76.4."""
        return self.score or ScoreSettings(pool=max(ScoreSettings.pool, min(self.sides) // 16))


@dataclass(frozen=True)
class Places:
    """Directories: where bundles go, and where features and checkpoints are kept; and who signs
    bundles."""

    store: Path
    cache: Path
    signer: Signer | None = None

    def training(self, recipe: str) -> Path:
        """Where what a training keeps while it runs lies."""
        return self.store / recipe / ".training"


@dataclass(frozen=True)
class Trained:
    """What a training leaves: `learned` and `normals` are the good parts, apart; `weighed` says
    what the scorer's parts count for, where that was chosen."""

    scorer: Scorer
    cache: FeatureCache
    learned: tuple[LabelledFile, ...]
    normals: tuple[LabelledFile, ...]
    curve: list[float]
    held_out: Evaluation
    test: Evaluation | None
    feature_seconds: float
    learning_seconds: float
    weighed: str = ""


def train_recipe(
    data: Dataset,
    backbone: Backbone,
    settings: FitSettings,
    places: Places,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    worker: Worker | None = None,
) -> Trained:
    """Hold out, learn, and score. Test images are reported on and decide nothing.

    Of several processes, only the first returns. Raises DatasetError or TrainingError.
    """
    reporter, worker = reporter or Reporter(), worker or Worker()
    chosen = method(settings.preset)
    if (settings.anomalies or settings.external) and not chosen.learns_anomalies:
        raise TrainingError(
            f"{settings.preset} only remembers good parts; it cannot learn from anomalies.",
            remedy="Choose --preset best, fast or paper, or leave the anomalies out.",
        )
    check_masks(data.test, settings.pixels)
    held_out = hold_out(data.train, HOLD_OUT, LEAST)
    if len(held_out) < LEAST:
        raise TrainingError(
            f"{len(data.train)} good images are not enough: {LEAST} are held out to set the "
            "thresholds, and at least as many are learned.",
            remedy=f"Give at least {2 * LEAST}; some 700 let 1 % false rejects be resolved.",
        )
    learned = tuple(file for file in data.train if file.sha256 not in held_out)
    normals = tuple(file for file in data.train if file.sha256 in held_out)

    source = _source(backbone, settings, chosen.sight)
    started = time.monotonic()
    cache = FeatureCache(places.cache, source, device=settings.device)
    gather_features(cache, worker.part(data.train + data.test), reporter)
    worker.wait()
    gathered = time.monotonic()
    lesson = Lesson(
        learned, cache, channel_statistics(cache, learned),
        settings.seed, settings.schedule, settings.steps, reporter,
        _states(settings, data, cache, places, resume=resume), worker,
    )  # fmt: skip
    scorer, curve = chosen.learn(lesson, settings.scored)
    exposed = bool(settings.anomalies or settings.external)
    if exposed:
        curve += _learn_anomalies(scorer, lesson, settings, places)
        count_what_learned(scorer, mix=0.0)
    worker.leave_to_the_first()
    balance(scorer, cache, normals)
    weighed = ""
    # What has learned drawn defects must not be judged by them, nor what has learned other things
    # by how it finds defects.
    if chosen.weighed and not exposed:
        scorer, weighed = weigh(
            scorer, cache, normals, places.cache / "anomalies",
            names=[part.name for part in chosen.parts],
            seed=settings.seed, reporter=reporter,
        )  # fmt: skip
    learned_at = time.monotonic()

    def scored(files: tuple[LabelledFile, ...]) -> Evaluation:
        return evaluate(score_features(scorer, cache, files), source.size)

    return Trained(
        scorer, cache, learned, normals, curve, scored(normals),
        scored(data.test) if data.test else None,
        feature_seconds=gathered - started, learning_seconds=learned_at - gathered, weighed=weighed,
    )  # fmt: skip


def gather_features(
    cache: FeatureCache, files: tuple[LabelledFile, ...], reporter: Reporter
) -> None:
    """Compute the missing features under a progress bar."""
    with reporter.bar("Features", len(files)) as advance:
        cache.add(files, lambda done, _: advance(done, ""))


def _source(backbone: Backbone, settings: FitSettings, sight: Sight) -> FeatureSource:
    width, height = settings.sides
    if sight == "pixels":
        if settings.tile:
            raise TrainingError(
                f"{settings.preset} sees pixels, and no backbone that could see tiles.",
                remedy="Leave --tile out, or choose another --preset.",
            )
        return FeatureSource(pixel_graph(), InputSize(height=height, width=width), settings.pixels)
    shorter = min(height, width)
    cell = shorter // settings.cells
    if shorter % settings.cells or height % cell or width % cell:
        raise TrainingError(
            f"A grid of {settings.cells} does not divide an input of {width}×{height} pixels.",
            remedy="Choose --size as a multiple of --grid.",
        )
    stages = _stages(backbone, settings.stages)
    if sight == "last":
        stages = stages[-1:]
    coarsest = max(stage.stride for stage in stages)
    if height % coarsest or width % coarsest:
        raise TrainingError(
            f"An input of {width}×{height} pixels is no multiple of the coarsest stage's stride "
            f"of {coarsest}.",
            remedy="Choose another --size, or leave that stage out with --stages.",
        )
    tiles = None
    if settings.tile:
        stride = math.lcm(coarsest, cell)
        if settings.tile % stride or height % settings.tile or width % settings.tile:
            raise TrainingError(
                f"Tiles of {settings.tile} pixels do not divide an input of {width}×{height}, or "
                f"are no multiple of {stride}.",
                remedy=f"Choose --tile and --size so, for instance --tile {16 * stride}.",
            )
        tiles = Tiles(height, width, settings.tile, stride)
    return FeatureSource(
        feature_graph(backbone, stages, cell, tiles),
        InputSize(height=height, width=width, tile=settings.tile),
        settings.pixels,
    )


def _stages(backbone: Backbone, names: tuple[str, ...]) -> tuple[Stage, ...]:
    known = {stage.name: stage for stage in backbone.manifest.stages}
    unknown = set(names) - set(known)
    if unknown:
        raise TrainingError(
            f"The backbone has no stage {', '.join(sorted(unknown))}.",
            remedy=f"Choose --stages among {', '.join(known)}.",
        )
    return tuple(known[name] for name in names or known)


def _learn_anomalies(
    scorer: Scorer, lesson: Lesson, settings: FitSettings, places: Places
) -> list[float]:
    anomalies: tuple[LabelledFile, ...] = ()
    if settings.anomalies:
        directory = places.cache / "anomalies"
        anomalies = draw_anomalies(
            lesson.files, lesson.cache, settings.anomalies, ANOMALIES, directory,
            seed=settings.seed, reporter=lesson.reporter,
        )  # fmt: skip
    if settings.external:
        others = external_anomalies(settings.external)
        gather_features(lesson.cache, others, lesson.reporter)
        anomalies += others
    how = replace(settings.push_pull, seed=settings.seed)
    return learn_labels(
        scorer, lesson.cache, lesson.files, anomalies, how, lesson.reporter, lesson.worker
    )


def _states(
    settings: FitSettings, data: Dataset, cache: FeatureCache, places: Places, *, resume: bool
) -> Callable[[int, Schedule], TrainingState]:
    """Where each part's checkpoint is kept, tied to all that decides its result."""

    def state(number: int, schedule: Schedule) -> TrainingState:
        facts = [settings.seed, settings.preset, data.digest, cache.source.digest, number]
        identity = hashlib.sha256(json.dumps([*facts, asdict(schedule)]).encode()).hexdigest()
        return TrainingState(
            places.training(settings.recipe) / f"checkpoint-{number}.pt", identity, resume=resume
        )

    return state
