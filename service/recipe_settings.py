"""What people say of a recipe, kept as revisions: where defects count, and from which size on."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from service.areas import filled
from service.review import SAMPLED
from service.wire import Closed, Name

Share = Annotated[float, Field(ge=0, le=1)]
# Corners in shares of the image's width and height, so that they hold for every size of it.
Polygon = Annotated[list[tuple[Share, Share]], Field(min_length=3, max_length=500)]


class RecipeSettings(Closed):
    """Settings of a recipe. What is left out is as it was without any."""

    counted: list[Polygon] = Field(
        default_factory=list, max_length=100, description="Where defects count; none: everywhere."
    )
    ignored: list[Polygon] = Field(
        default_factory=list, max_length=100, description="Where they do not, even within those."
    )
    mm_per_pixel: Annotated[float, Field(ge=1e-6, le=1e3)] | None = None
    smallest_mm2: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        None, description="Regions smaller than that do not count; needs mm_per_pixel."
    )
    number: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="By which a PLC selects this recipe: ?number="
    )
    product: Name | None = Field(
        None, description="Recipes of the same product are the views of one part."
    )
    sampled: Share = Field(SAMPLED, description="Share of the passed parts that people are shown.")
    reference: Name | None = Field(
        None, description="The inspection on whose image the areas were drawn."
    )

    @model_validator(mode="after")
    def _millimetres_are_known(self) -> "RecipeSettings":
        if self.smallest_mm2 is not None and self.mm_per_pixel is None:
            raise ValueError("smallest_mm2 says nothing without mm_per_pixel")
        return self

    @property
    def smallest_px(self) -> float:
        """The smallest area that counts, in pixels of the image as it came; 0 is any."""
        if self.smallest_mm2 is None or self.mm_per_pixel is None:
            return 0.0
        return self.smallest_mm2 / self.mm_per_pixel**2

    def area(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Where defects count, of a heatmap (height, width); None is everywhere."""
        if not self.counted and not self.ignored:
            return None
        area = np.full((height, width), not self.counted)
        for polygons, counts in ((self.counted, True), (self.ignored, False)):
            for polygon in polygons:
                area[filled(np.array(polygon) * (width, height), height, width)] = counts
        return area


@dataclass(frozen=True)
class Revision:
    """Settings in force, and the number of their revision; 0 where nobody has made any."""

    number: int
    settings: RecipeSettings
