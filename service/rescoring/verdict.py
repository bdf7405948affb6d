"""What another bundle says of an image, beside what was said."""

from typing import Any

from service.rescoring.images import OldImage
from service.spreadsheets import harmless, restored

FIELDS = (
    "id", "address", "created_at", "part_id", "lot", "camera", "verdict", "score",
    "new_verdict", "new_score", "problem",
)  # fmt: skip


class NewVerdict(OldImage):
    """`error` is of an image that could not be judged, with why; never a pass."""

    new_verdict: str
    new_score: float | None = None
    problem: str = ""

    def row(self) -> dict[str, str]:
        """For a spreadsheet."""
        shown = self.model_dump(mode="json")
        return {name: harmless("" if shown[name] is None else str(shown[name])) for name in FIELDS}

    @classmethod
    def of_row(cls, row: dict[str, str]) -> "NewVerdict":
        """The same again."""
        kept: dict[str, Any] = {name: restored(cell) for name, cell in row.items() if cell}
        return cls.model_validate(kept)
