"""Ray Data around it all."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray.data
from ray.data import Dataset

from models.bundle import open_bundle
from service.rescoring.images import OldImage
from service.rescoring.plan import Plan, Terms
from service.rescoring.scorer import Scorer
from service.rescoring.verdict import NewVerdict
from service.settings import Settings

# Chunks that an engine works at side by side: while one ends, another keeps the device busy.
_CHUNKS_AT_ONCE = 2
# What Ray is told of at a time: an archive of millions fits into no memory.
_CHUNKS_PLANNED = 500


class _Work:
    """One engine of it, in a process of Ray's."""

    def __init__(self, bundle: str, terms: Terms, settings: dict[str, Any]) -> None:
        self._scorer = Scorer(open_bundle(Path(bundle)), terms, Settings(**settings))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        images = [OldImage.model_validate_json(line) for line in row["images"]]
        found = self._scorer.score(images)
        return {"name": row["name"], "found": [one.model_dump_json() for one in found]}


def rescore(
    plan: Plan, bundle: Path, settings: Settings, *, engines: int = 1, gpus: float = 0
) -> Iterator[int]:
    """Do what is not done yet; after each chunk, how many are done.

    `engines` run side by side, each with so many GPUs; the bundle and the images must be found at
    the same place on all computers that they run on.
    """
    todo = plan.unfinished()
    done = plan.size - len(todo)
    yield done
    if todo:
        ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
    work = partial(
        Dataset.map,
        fn=cast(Any, _Work),
        fn_constructor_args=(str(bundle.absolute()), plan.terms, settings.model_dump()),
        compute=ray.data.ActorPoolStrategy(size=engines),
        num_gpus=gpus,
        max_concurrency=_CHUNKS_AT_ONCE,
    )
    while todo:
        now, todo = todo[:_CHUNKS_PLANNED], todo[_CHUNKS_PLANNED:]
        rows = [{"name": one.stem, "images": one.read_text("utf-8").splitlines()} for one in now]
        for row in work(ray.data.from_items(rows, override_num_blocks=len(rows))).iter_rows():
            plan.finish(row["name"], map(NewVerdict.model_validate_json, row["found"]))
            done += 1
            yield done
