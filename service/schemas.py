"""Wire types. Result fields carry the names of OPC 40100-1's ResultDataType in snake case."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from models.appearance import Appearance
from models.bundle import Thresholds, Verdict
from service.identity import Role
from service.recipe_settings import RecipeSettings
from service.regions import Box, Region
from service.review import ReviewReason
from service.wire import Closed, Name, Number, Time

# `withdrawn` takes back what was said before: the inspection counts as never labelled.
LabelVerdict = Literal["ok", "ng", "unsure", "withdrawn"]
# Who is asked: an operator first, an engineer where operators do not know or do not agree.
Desk = Literal["operator", "engineer"]
ScreenName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
RawScore = Annotated[float, Field(ge=-3e38, le=3e38)]  # a float32, as a device gives it
HeatmapFormat = Literal["png8", "png16", "npy", "overlay"]


class FeedbackSummary(BaseModel):
    """One label of an inspection."""

    id: str
    creation_time: datetime
    verdict: LabelVerdict
    withdraws: str | None = Field(description="The label that this one takes back.")
    defect_class: str | None
    operator: str
    desk: Desk
    comment: str
    boxes: list[Box]
    has_mask: bool


class CameraCounts(BaseModel):
    """What a camera's images came to; times from their arrival to the answer."""

    camera: str
    triggers: int
    ok: int
    review: int
    ng: int
    errors: int
    min_ms: float
    mean_ms: float
    max_ms: float


class InspectionResult(BaseModel):
    """One inspection. `score` is raw; `percentile` is its rank among good parts, 0..100."""

    id: str = Field(description="resultId")
    recipe_id: str
    part_id: str | None
    lot: str | None
    camera: str | None
    is_simulated: bool
    result_state: Literal["completed"]
    creation_time: datetime
    verdict: Verdict
    score: float
    percentile: float
    thresholds: Thresholds
    regions: list[Region]
    degraded: Literal["not stored"] | None = Field(
        None, description="not stored: the disk is full, and this answer is all there is of it."
    )
    image: str | None = Field(description="Address of the image as it came, where it is stored.")
    width: int
    height: int
    heatmap: str | None = Field(
        description="Address of the heatmap, where it is stored; add ?format=."
    )
    heatmap_range: tuple[float, float] = Field(
        description="Raw values of a PNG heatmap's darkest and brightest level."
    )
    heatmap_data: str | None = Field(
        None, description="The heatmap as base64, where the request asked for it inline."
    )
    bundle_version: int
    bundle_digest: str
    device: str
    processing_times: dict[str, float] = Field(description="Milliseconds by step.")
    feedback: FeedbackSummary | None = None


class InspectionPage(BaseModel):
    """Inspections, the newest first; `next` continues where this page ends."""

    items: list[InspectionResult]
    next: str | None


class InspectionFeed(BaseModel):
    """Inspections in the order in which they were entered; `next` is asked for after them."""

    items: list[InspectionResult]
    next: int


class Problem(BaseModel):
    """RFC 9457. Its verdict is always `error`: a part without a result is not a good part."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    retryable: bool
    verdict: Literal["error"]


class BatchItem(BaseModel):
    """One image's result or its problem."""

    name: str
    result: InspectionResult | None = None
    problem: Problem | None = None


class BatchResult(BaseModel):
    """Results in the order of the images; `verdict` is the worst, as of the views of one part."""

    verdict: Verdict
    items: list[BatchItem]


class FeedbackRequest(Closed):
    """An operator's word. A mask is a base64 PNG of the image's size, 255 where it is defective."""

    inspection_id: Name
    verdict: LabelVerdict
    defect_class: Name | None = None
    mask: str | None = None
    boxes: list[Box] = Field(default_factory=list, max_length=100)
    operator: Name
    comment: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = ""
    desk: Desk = Field("operator", description="engineer: this word settles a disagreement.")
    supersedes: Name | None = Field(
        None,
        description="The label that the operator saw, or null where there was none: refused with "
        "409 where another has come since. Leave it out to label in any case.",
    )

    @model_validator(mode="after")
    def _marks_belong_to_ng(self) -> "FeedbackRequest":
        if self.verdict != "ng" and (self.mask or self.boxes or self.defect_class):
            raise ValueError("a defect class, mask or boxes go with the verdict ng only")
        return self

    @model_validator(mode="after")
    def _withdrawn_is_a_label(self) -> "FeedbackRequest":
        if self.verdict == "withdrawn" and self.supersedes is None:
            raise ValueError("withdrawn takes back the label that supersedes names")
        return self


class FeedbackResult(BaseModel):
    """A stored label."""

    id: str
    inspection_id: str
    creation_time: datetime


class ShiftCounts(BaseModel):
    """What was inspected since the shift began."""

    since: datetime
    until: datetime
    ok: int
    review: int
    ng: int


class LineError(BaseModel):
    """An image that came to no verdict: its part was not inspected."""

    recipe: str | None
    part_id: str | None
    camera: str | None
    creation_time: datetime
    title: str
    detail: str
    verdict: Literal["error"] = "error"


class ReviewEntry(BaseModel):
    """An inspection that a person is to look at, and why."""

    inspection: InspectionResult
    desk: Desk
    reason: ReviewReason
    priority: float
    claimed_until: datetime | None = Field(description="Until then nobody else is given it.")


class ReviewPage(BaseModel):
    """What waits, the most informative first; `next` continues where this page ends."""

    items: list[ReviewEntry]
    waiting: int = Field(description="All that wait at this desk.")
    next: str | None


class ClaimRequest(Closed):
    """Who asks for work: `session` is one screen's own random name, so that two screens of one
    operator are two."""

    session: ScreenName
    desk: Desk = "operator"
    recipe: Name | None = None
    count: Annotated[int, Field(ge=1, le=20)] = 1
    skip: list[Name] = Field(
        default_factory=list, max_length=500, description="Inspections not to be given."
    )


class ReleaseRequest(Closed):
    """Whose claims to give back; all, or those on `inspections`."""

    session: ScreenName
    inspections: list[Name] | None = Field(None, max_length=500)


class RecipeStatus(BaseModel):
    """A recipe and what decides for it."""

    recipe_id: str
    bundle_version: int
    bundle_digest: str
    device: str
    versions: list[int]
    thresholds: Thresholds
    input: dict[str, Any]
    metrics: dict[str, float]
    calibration_count: int


class ThresholdsRequest(Thresholds):
    """New thresholds on the raw scores of one bundle, which must be the one that decides."""

    review: RawScore
    ng: RawScore
    bundle_version: Number
    by: Name
    reason: Name


class ThresholdsRevision(BaseModel):
    """One revision of a recipe's thresholds."""

    creation_time: datetime
    bundle_version: int
    review: float
    ng: float
    by: str
    reason: str


class RateEstimate(BaseModel):
    """A share of parts, and the interval in which it lies with 95 %."""

    count: int
    total: int
    low: float
    high: float


class ThresholdConsequences(BaseModel):
    """What thresholds would have done to the last parts of the bundle that decides."""

    reviewed: RateEstimate = Field(description="Of parts labelled ok: sent to review.")
    rejected: RateEstimate = Field(description="Of parts labelled ok: rejected.")
    escaped: RateEstimate = Field(description="Of parts labelled ng: passed.")
    unlabelled_ok: int
    unlabelled_review: int
    unlabelled_ng: int


class ScoreHistogram(BaseModel):
    """Counts of raw scores between neighbouring `edges`, by label."""

    bundle_version: int
    thresholds: Thresholds = Field(description="In force.")
    trained: Thresholds = Field(description="Those that the bundle came with.")
    edges: list[float]
    ok: list[int]
    ng: list[int]
    unlabelled: list[int]


class RecipeRevisionRequest(Closed):
    """Settings of a recipe from now on, all of them."""

    settings: RecipeSettings
    by: Name
    reason: Name


class RecipeRevisionRecord(BaseModel):
    """One revision of a recipe's settings."""

    number: int
    creation_time: datetime
    settings: RecipeSettings
    by: str
    reason: str


class CandidateResult(BaseModel):
    """What a candidate would have said."""

    bundle_version: int
    bundle_digest: str
    verdict: Verdict
    score: float


class PromotionRequest(Closed):
    """Which version is to decide from now on; an older one rolls back."""

    version: Number
    by: Name
    reason: Name


class PromotionRecord(BaseModel):
    """One change of what decides."""

    creation_time: datetime
    bundle_version: int
    bundle_digest: str
    by: str
    reason: str


class InspectionTrail(BaseModel):
    """All that decided an inspection, and all that was said of it."""

    inspection: InspectionResult
    thresholds_revision: ThresholdsRevision | None = Field(description="null: the bundle's own.")
    promotion: PromotionRecord | None
    recipe_revision: RecipeRevisionRecord | None
    appearance: Appearance | None
    labels: list[FeedbackSummary]
    candidates: list[CandidateResult]


class BundleStatus(BaseModel):
    """One version of a recipe's model, and what it does: decide, run in the shadow, or nothing."""

    version: int
    digest: str
    creation_time: datetime
    role: Literal["champion", "candidate"] | None
    origin: Literal["fit", "retrain"]
    parent_version: int | None
    method: str
    backbone: str
    metrics: dict[str, float]
    snapshot: str | None
    device: str | None = Field(
        description="Where it runs and agrees with what its training saw; null: it is not loaded."
    )
    problem: str | None = Field(description="Why it is refused.")
    report: str = Field(description="Address of its report.")


class CandidateRequest(Closed):
    """Which version is to run in the champion's shadow from now on, or none."""

    version: Number | None
    by: Name
    reason: Name


class CandidateRecord(BaseModel):
    """One change of what runs in the shadow."""

    creation_time: datetime
    bundle_version: int | None
    bundle_digest: str | None
    by: str
    reason: str


class AgreementCount(BaseModel):
    """How many images had these two verdicts."""

    champion: Verdict
    candidate: Verdict
    images: int


class Difference(BaseModel):
    """An inspection of which the candidate says otherwise."""

    inspection: InspectionResult
    candidate_verdict: Verdict
    candidate_score: float


class ShadowComparison(BaseModel):
    """What champion and candidate said of the same images; the newest on which they differ."""

    champion_version: int
    candidate_version: int
    images: int
    agreeing: int
    counts: list[AgreementCount]
    differences: list[Difference]


class LabelChoice(Closed):
    """Which labels to learn: those of a recipe's inspections for which all of this is so."""

    since: Time | None = None
    until: Time | None = None
    camera: Name | None = None
    lot: Name | None = None
    without: list[Name] = Field(
        default_factory=list, max_length=10_000, description="Inspections to leave out."
    )


class TrainingRequest(Closed):
    """A retraining on labels, from the bundle that decides now."""

    labels: LabelChoice = Field(default_factory=LabelChoice)
    by: Name
    reason: Name


class LabelCount(BaseModel):
    """How many labels of a kind, and how many of them say where."""

    verdict: Literal["ok", "ng"]
    defect_class: str | None
    labels: int
    masks: int


class TrainingEstimate(BaseModel):
    """What there is to learn, and what that most likely takes."""

    labels: list[LabelCount]
    seconds: float | None = Field(description="null where nothing is known yet.")
    peak_mb: float | None
    from_measurement: bool = Field(
        description="true: this recipe was retrained here before; false: foreseen by its fit."
    )
    worker: bool = Field(description="Whether a worker is there to do it.")
    problem: str | None = Field(description="Why it cannot work, where that is clear already.")


TrainingState = Literal["queued", "running", "succeeded", "refused", "failed", "cancelled"]


class TrainingStatus(BaseModel):
    """A retraining, how far it is, and what it came to. `refused`: it learned, but the result is
    worse than what decides now, so no bundle was written."""

    id: str
    creation_time: datetime
    recipe_id: str
    by: str
    reason: str
    labels: LabelChoice
    retry_of: str | None
    champion_version: int
    state: TrainingState
    started: datetime | None
    finished: datetime | None
    step: str
    done: int
    total: int
    step_seconds_left: float | None
    peak_mb: float
    snapshot: str | None
    bundle_version: int | None
    report: str | None
    message: str
    log: str


class CancelRequest(Closed):
    """Who ends a training."""

    by: Name


class DriftTrend(BaseModel):
    """Of one measure: quantiles 5 %, 50 % and 95 % of the last images, the range that held 98 % of
    the good parts in training, and the share of the last images outside of it; of scores, above."""

    measure: Literal["score", "brightness", "focus", "saturated"]
    state: Literal["steady", "drifting", "unknown"]
    recent: tuple[float, float, float]
    low: float | None
    high: float | None
    outside: float | None


class DriftReport(BaseModel):
    """One camera's last images of one recipe; `unknown` where there are too few, or the bundle does
    not say what its training saw."""

    recipe_id: str
    camera: str
    images: int
    state: Literal["steady", "drifting", "unknown"]
    trends: list[DriftTrend]


class PartView(BaseModel):
    """One view of a part; null where it was not inspected."""

    recipe_id: str
    inspection: InspectionResult | None


class PartResult(BaseModel):
    """A part by all its views: the worst verdict, and `error` where a view is missing."""

    product: str
    part_id: str
    verdict: Verdict
    views: list[PartView]


class LogInRequest(Closed):
    """A user's name and password."""

    name: Name
    password: str = Field(min_length=1, max_length=1000)


class SessionStatus(BaseModel):
    """Who asks, and what they may; with `closed`, one has to be known. A browser that is logged in
    shows `csrf` with all that it changes, as X-Kizu-CSRF."""

    closed: bool
    name: str | None
    role: Role | None
    csrf: str | None
    provider: str | None = Field(description="Where to go to log in by the identity provider.")


class AuditRecord(BaseModel):
    """A change of what decides: who made it (`kind` says how they are known), and what it was. Its
    digest covers all records before."""

    number: int
    creation_time: AwareDatetime
    name: str
    kind: str
    role: str
    action: str
    subject: str
    details: dict[str, Any]
    digest: str


class Health(BaseModel):
    """Whether the service can decide, on what, and what it refuses to load."""

    status: Literal["ready", "not ready"]
    recipes: dict[str, str]
    problems: list[str]
