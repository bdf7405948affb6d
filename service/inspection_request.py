"""What is asked when an image is to be inspected."""

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class InspectionRequest:
    """One image to inspect, and what its sender says of it."""

    image: bytes
    image_type: str
    recipe: str | None = None
    number: int | None = None  # of the recipe, in its name's place
    part_id: str | None = None
    lot: str | None = None
    camera: str | None = None
    simulated: bool = False
    idempotency_key: str | None = None
    deadline_ms: int | None = None
    batch: str | None = None  # names the batch request that it came in, whose key it shares

    @cached_property
    def digest(self) -> str:
        """Equal for requests that ask for the same thing."""
        facts: tuple[object, ...] = (
            self.recipe, self.part_id, self.camera, self.simulated, self.batch,
        )  # fmt: skip
        if (self.lot, self.number) != (None, None):  # keys given before there were any stay good
            facts += (self.lot, self.number)
        return hashlib.sha256(self.image + repr(facts).encode()).hexdigest()
