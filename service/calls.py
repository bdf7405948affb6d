"""What the API can be asked, each as a call that any client can send: typed, and safe to repeat."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter

from models.raw import PixelFormat
from service.schemas import (
    BundleStatus,
    CancelRequest,
    CandidateRecord,
    CandidateRequest,
    ClaimRequest,
    Desk,
    DriftReport,
    FeedbackRequest,
    FeedbackResult,
    Health,
    InspectionFeed,
    InspectionPage,
    InspectionResult,
    InspectionTrail,
    LabelChoice,
    PartResult,
    PromotionRecord,
    PromotionRequest,
    RecipeStatus,
    ReleaseRequest,
    ReviewPage,
    ShadowComparison,
    ThresholdConsequences,
    ThresholdsRequest,
    ThresholdsRevision,
    TrainingEstimate,
    TrainingRequest,
    TrainingStatus,
)

T = TypeVar("T")
Scalar = str | int | float | bool | datetime | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and the type of its answer. `key` makes it safe to send again."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    answer: Any  # what pydantic can read as T
    query: Mapping[str, Scalar] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str | None = None
    key: str | None = None
    answered_by: tuple[int, ...] = ()  # statuses that come with an answer, besides 2xx

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does nothing that once would not."""
        return self.method == "GET" or self.key is not None

    @property
    def headers(self) -> dict[str, str]:
        """Of the request."""
        given = {"Content-Type": self.content_type, "Idempotency-Key": self.key}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def parameters(self) -> dict[str, str]:
        """Of the address; what is None is left out."""
        return {name: _text(value) for name, value in self.query.items() if value is not None}

    def read(self, body: bytes) -> T:
        """The answer, checked."""
        answer: T = TypeAdapter(self.answer).validate_json(body)
        return answer


def inspect(
    image: bytes,
    *,
    recipe: str | None = None,
    number: int | None = None,
    image_type: str = "image/jpeg",
    width: int | None = None,
    height: int | None = None,
    pixel_format: PixelFormat | None = None,
    part_id: str | None = None,
    lot: str | None = None,
    camera: str | None = None,
    simulated: bool = False,
    deadline_ms: int | None = None,
    key: str | None = None,
) -> Call[InspectionResult]:
    """Inspect one image, by a recipe's name or its number; `image_type` is one of those that the
    service takes. A camera's buffer is `application/octet-stream`, with its sides and format."""
    query: dict[str, Scalar] = {
        "recipe": recipe, "number": number, "width": width, "height": height,
        "pixel_format": pixel_format, "part_id": part_id, "lot": lot, "camera": camera,
        "simulated": simulated or None, "deadline_ms": deadline_ms,
    }  # fmt: skip
    return Call(
        "POST", "/v1/inspect", InspectionResult, query, image, image_type, key or _new_key()
    )


def get_inspection(id: str) -> Call[InspectionResult]:
    """One inspection with the label that counts."""
    return Call("GET", f"/v1/inspections/{quote(id, safe='')}", InspectionResult)


def get_trail(id: str) -> Call[InspectionTrail]:
    """One inspection with all that decided it."""
    return Call("GET", f"/v1/inspections/{id}/trail", InspectionTrail)


def list_inspections(
    *,
    recipe: str | None = None,
    verdict: str | None = None,
    part_id: str | None = None,
    lot: str | None = None,
    camera: str | None = None,
    bundle_version: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    label: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> Call[InspectionPage]:
    """A page of them, the newest first; `before` is the `next` of the page before."""
    query: dict[str, Scalar] = {
        "recipe": recipe, "verdict": verdict, "part_id": part_id, "lot": lot, "camera": camera,
        "bundle_version": bundle_version, "since": since, "until": until, "label": label,
        "before": before, "limit": limit,
    }  # fmt: skip
    return Call("GET", "/v1/inspections", InspectionPage, query)


def read_feed(*, after: int | None = None, limit: int = 100) -> Call[InspectionFeed]:
    """The next ones in the order in which they were entered; `after` is the `next` of the last."""
    return Call("GET", "/v1/feed", InspectionFeed, {"after": after, "limit": limit})


def get_part(part_id: str, *, product: str) -> Call[PartResult]:
    """A part by all its views."""
    return Call("GET", f"/v1/parts/{part_id}", PartResult, {"product": product})


def label(asked: FeedbackRequest, *, key: str | None = None) -> Call[FeedbackResult]:
    """Label an inspection."""
    return _post("/v1/feedback", asked, FeedbackResult, key or _new_key())


def claim_review(
    session: str, *, desk: Desk = "operator", recipe: str | None = None, count: int = 1
) -> Call[ReviewPage]:
    """The next items to be looked at, for one screen; asking again gives the same."""
    asked = ClaimRequest(session=session, desk=desk, recipe=recipe, count=count)
    return _post("/v1/review/claims", asked, ReviewPage, _new_key())


def release_review(session: str) -> Call[dict[str, int]]:
    """Give all of them back."""
    return _post("/v1/review/releases", ReleaseRequest(session=session), dict[str, int], _new_key())


def list_recipes() -> Call[list[RecipeStatus]]:
    """All recipes that can be inspected."""
    return Call("GET", "/v1/recipes", list[RecipeStatus])


def foresee_thresholds(recipe: str, *, review: float, ng: float) -> Call[ThresholdConsequences]:
    """What thresholds would have done to the last parts."""
    path = f"/v1/recipes/{recipe}/thresholds/consequences"
    return Call("GET", path, ThresholdConsequences, {"review": review, "ng": ng})


def set_thresholds(recipe: str, asked: ThresholdsRequest) -> Call[ThresholdsRevision]:
    """Draw the lines anew."""
    return _post(f"/v1/recipes/{recipe}/thresholds", asked, ThresholdsRevision)


def list_bundles(recipe: str) -> Call[list[BundleStatus]]:
    """All versions of a recipe's model."""
    return Call("GET", f"/v1/recipes/{recipe}/bundles", list[BundleStatus])


def promote(recipe: str, asked: PromotionRequest) -> Call[PromotionRecord]:
    """Let a version decide."""
    return _post(f"/v1/recipes/{recipe}/promotions", asked, PromotionRecord)


def nominate(recipe: str, asked: CandidateRequest) -> Call[CandidateRecord]:
    """Let a version run in the champion's shadow."""
    return _post(f"/v1/recipes/{recipe}/candidates", asked, CandidateRecord)


def compare_shadow(recipe: str) -> Call[ShadowComparison]:
    """What champion and candidate said of the same images."""
    return Call("GET", f"/v1/recipes/{recipe}/shadow", ShadowComparison)


def estimate_training(recipe: str, labels: LabelChoice) -> Call[TrainingEstimate]:
    """What learning these labels most likely takes."""
    return _post(f"/v1/recipes/{recipe}/estimate", labels, TrainingEstimate, _new_key())


def ask_training(recipe: str, asked: TrainingRequest) -> Call[TrainingStatus]:
    """Ask for a retraining."""
    return _post(f"/v1/recipes/{recipe}/trainings", asked, TrainingStatus)


def get_training(id: str) -> Call[TrainingStatus]:
    """A retraining, and how far it is."""
    return Call("GET", f"/v1/trainings/{id}", TrainingStatus)


def cancel_training(id: str, *, by: str) -> Call[TrainingStatus]:
    """End a retraining."""
    return _post(f"/v1/trainings/{id}/cancel", CancelRequest(by=by), TrainingStatus)


def report_drift() -> Call[list[DriftReport]]:
    """Whether images still look as in training."""
    return Call("GET", "/v1/drift", list[DriftReport])


def ready() -> Call[Health]:
    """Whether images can be inspected; one that is not ready answers, too."""
    return Call("GET", "/health/ready", Health, answered_by=(503,))


def _post(path: str, asked: BaseModel, answer: Any, key: str | None = None) -> Call[Any]:
    # What was left out stays so: null and nothing are not the same in a label.
    content = asked.model_dump_json(exclude_unset=True).encode()
    return Call("POST", path, answer, {}, content, "application/json", key)


def _new_key() -> str:
    return uuid.uuid4().hex


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)
