"""Wire types. Result fields carry the names of OPC 40100-1's ResultDataType in snake case."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.bundle import Thresholds, Verdict
from service.regions import Box, Region
from service.review import ReviewReason

# `withdrawn` takes back what was said before: the inspection counts as never labelled.
LabelVerdict = Literal["ok", "ng", "unsure", "withdrawn"]
# Who is asked: an operator first, an engineer where operators do not know or do not agree.
Desk = Literal["operator", "engineer"]
HeatmapFormat = Literal["png8", "png16", "npy", "overlay"]
# Without control characters: a NUL byte is a row on SQLite and an error on PostgreSQL.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Closed(BaseModel):
    """A request body: an unknown field is a mistake, not something to ignore."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


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
    """One stored inspection. `score` is raw; `percentile` is its rank among good parts, 0..100."""

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
    image: str = Field(description="Address of the image as it came.")
    width: int
    height: int
    heatmap: str = Field(description="Address of the heatmap; add ?format=.")
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

    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    desk: Desk = "operator"
    recipe: Name | None = None
    count: Annotated[int, Field(ge=1, le=20)] = 1
    skip: list[Name] = Field(
        default_factory=list, max_length=500, description="Inspections not to be given."
    )


class ReleaseRequest(Closed):
    """Whose claims to give back; all, or those on `inspections`."""

    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
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

    bundle_version: int
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


class PromotionRequest(Closed):
    """Which version is to decide from now on; an older one rolls back."""

    version: int = Field(ge=1)
    by: Name
    reason: Name


class PromotionRecord(BaseModel):
    """One change of what decides."""

    creation_time: datetime
    bundle_version: int
    bundle_digest: str
    by: str
    reason: str


class Health(BaseModel):
    """Whether the service can decide, on what, and what it refuses to load."""

    status: Literal["ready", "not ready"]
    recipes: dict[str, str]
    problems: list[str]
