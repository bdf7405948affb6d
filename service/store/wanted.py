"""Which inspections are wanted: what a search, an export or a chart asks for."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import aliased

from models.bundle import Verdict
from service.store.tables import Feedback, Inspection
from service.wire import Name, Number, Time

_Withdrawal = aliased(Feedback)


class Wanted(BaseModel):
    """Inspections for which all of this is so; what is left out does not matter.

    `since` counts, `until` does not any more. `label` is the one that counts; `none` wants those
    without. Of `missed` parts the verdict was ok and the label is ng; of `overturned`, the other
    way round.
    """

    recipe: Name | None = None
    verdict: Verdict | None = None
    part_id: Name | None = None
    lot: Name | None = None
    camera: Name | None = None
    bundle_version: Number | None = None
    since: Time | None = None
    until: Time | None = None
    label: Literal["ok", "ng", "unsure", "none", "any", "missed", "overturned"] | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """As SQL, each to be fulfilled."""
        for name in ("recipe", "verdict", "part_id", "lot", "camera", "bundle_version"):
            value = getattr(self, name)
            if value is not None:
                yield getattr(Inspection, name) == value
        if self.since:
            yield Inspection.created_at >= self.since
        if self.until:
            yield Inspection.created_at < self.until
        if self.label:
            yield from _labelled(self.label)


def _labelled(label: str) -> Iterator[ColumnElement[bool]]:
    newest = select(func.max(Feedback.number)).where(stands()).group_by(Feedback.inspection_id)
    counts = select(Feedback.inspection_id).where(Feedback.number.in_(newest))
    match label:
        case "none":
            yield Inspection.id.not_in(counts)
        case "any":
            yield Inspection.id.in_(counts)
        case "missed":
            yield Inspection.verdict == "ok"
            yield Inspection.id.in_(counts.where(Feedback.verdict == "ng"))
        case "overturned":
            yield Inspection.verdict != "ok"
            yield Inspection.id.in_(counts.where(Feedback.verdict == "ok"))
        case _:
            yield Inspection.id.in_(counts.where(Feedback.verdict == label))


def stands() -> ColumnElement[bool]:
    """Whether a label was not taken back, and is no taking back."""
    taken_back = select(_Withdrawal.id).where(_Withdrawal.withdraws == Feedback.id)
    return and_(Feedback.withdraws.is_(None), ~taken_back.exists())
