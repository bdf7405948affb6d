"""The use case: retrainings that people ask for, and what is foreseen of them.

A worker carries them out, in a process of its own; they meet in the database alone.
"""

from collections import Counter

from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session

from models.bundle import Bundle, Effort
from service.errors import BadRequest, NotFound
from service.registry import Registry
from service.schemas import LabelChoice, LabelCount, TrainingEstimate, TrainingRequest
from service.store import records, trainings
from service.store.advisory_locks import AdvisoryLock
from service.store.snapshot import settled
from service.store.tables import Feedback, Training
from service.store.wanted import Wanted

ENDED = ("succeeded", "refused", "failed", "cancelled")


def wanted(recipe: str, labels: LabelChoice) -> Wanted:
    """The inspections whose labels are chosen, but for those that are left out by id."""
    return Wanted(recipe=recipe, **labels.model_dump(exclude={"without"}))


class Trainings:
    """Asks for trainings, and ends them."""

    def __init__(self, registry: Registry, database: Database) -> None:
        self._registry = registry
        self._database = database

    def ask(self, recipe: str, asked: TrainingRequest, *, retry_of: str | None = None) -> Training:
        """Put a retraining from the present champion into the queue.

        Raises NotFound, or BadRequest where one of this recipe is under way or nothing is chosen.
        """
        champion = self._registry.champion(recipe).bundle.manifest
        with Session(self._database, expire_on_commit=False) as session:
            if not any(self._labels(session, recipe, asked.labels)):
                raise BadRequest(
                    "No labelled inspection is among those chosen.",
                    remedy="Label some first, or choose others.",
                )
            records.write_alone(session, AdvisoryLock.TRAINING)
            for other in trainings.of_recipe(session, recipe, limit=20):
                if other.state not in ENDED:
                    raise BadRequest(
                        f"{recipe!r} is being retrained already.",
                        remedy="Wait for its end, or cancel it.",
                    )
            training = Training(
                id=records.new_id(),
                created_at=records.now(),
                recipe=recipe,
                by=asked.by,
                reason=asked.reason,
                labels=asked.labels.model_dump(mode="json"),
                retry_of=retry_of,
                champion_version=champion.version,
                state="queued",
                attempts=0,
                step="",
                done=0,
                total=0,
                peak_mb=0.0,
                message="",
                log="",
            )
            session.add(training)
            session.commit()
        return training

    def cancel(self, id: str, *, by: str) -> Training:
        """End a training; one that runs is ended within seconds. Raises NotFound or BadRequest."""
        with Session(self._database, expire_on_commit=False) as session:
            training = self.find(session, id)
            records.hold(session, training)
            if training.state in ENDED:
                raise BadRequest(f"This training is over: it {_PAST[training.state]}.")
            training.cancelled_by = by
            if training.state == "queued":
                training.state, training.finished_at = "cancelled", records.now()
            session.commit()
        return training

    def retry(self, id: str, *, by: str) -> Training:
        """Ask for a training again that did not succeed, with the same choice of labels."""
        with Session(self._database) as session:
            earlier = self.find(session, id)
            if earlier.state not in ENDED:
                raise BadRequest("This training is not over yet.")
            asked = TrainingRequest(
                labels=LabelChoice.model_validate(earlier.labels), by=by, reason=earlier.reason
            )
        return self.ask(earlier.recipe, asked, retry_of=id)

    def find(self, session: Session, id: str) -> Training:
        """One training. Raises NotFound."""
        training = trainings.find(session, id)
        if training is None:
            raise NotFound(f"There is no training {id!r}.")
        return training

    def estimate(self, recipe: str, labels: LabelChoice) -> TrainingEstimate:
        """What the chosen labels are, and what learning them most likely takes."""
        champion = self._registry.champion(recipe).bundle
        with Session(self._database) as session:
            chosen = list(self._labels(session, recipe, labels))
            last = trainings.last_measured(session, recipe)
            worker = trainings.any_worker(session)
        kinds = Counter((label.verdict, label.defect_class) for label in chosen)
        located = Counter(
            (label.verdict, label.defect_class)
            for label in chosen
            if label.mask_sha256 or label.boxes
        )
        effort = champion.manifest.effort
        return TrainingEstimate(
            labels=[
                LabelCount.model_validate(
                    {
                        "verdict": verdict,
                        "defect_class": defect,
                        "labels": count,
                        "masks": located[verdict, defect],
                    }
                )
                for (verdict, defect), count in sorted(kinds.items(), key=str)
            ],
            seconds=_seconds(effort, last, len(chosen)),
            peak_mb=last.peak_mb if last and last.peak_mb else effort.peak_mb if effort else None,
            from_measurement=last is not None,
            worker=worker,
            problem=_problem(champion, kinds),
        )

    def _labels(self, session: Session, recipe: str, labels: LabelChoice) -> list[Feedback]:
        left_out = set(labels.without)
        found = settled(session, wanted(recipe, labels))
        return [label for inspection, label in found if inspection.id not in left_out]


_PAST = {
    "succeeded": "succeeded",
    "refused": "was refused",
    "failed": "failed",
    "cancelled": "was cancelled",
}


def _seconds(effort: Effort | None, last: Training | None, labels: int) -> float | None:
    if last and last.started_at and last.finished_at:
        return round((last.finished_at - last.started_at).total_seconds())
    if effort is None or effort.retrain_seconds is None:
        return None
    return round(effort.seconds_per_image * labels + effort.retrain_seconds)


def _problem(champion: Bundle, kinds: Counter[tuple[str, str | None]]) -> str | None:
    """What no training could mend; the rest it says itself."""
    defective = sum(count for (verdict, _), count in kinds.items() if verdict == "ng")
    if not kinds:
        return "No inspection is labelled."
    if not defective:
        return (
            "All labels say ok. To learn what is defective, at least two parts labelled ng are "
            "needed: one to learn from, and one to try the result on."
        )
    if defective < 2:
        return (
            "One label says ng. A second one is needed: one to learn from, and one to try the "
            "result on."
        )
    effort = champion.manifest.effort
    if effort and effort.retrain_seconds == 0:
        return (
            f"This model ({champion.manifest.method}) only remembers good parts; it cannot learn "
            "from labels. Fit the recipe with --preset best or adtr."
        )
    return None
