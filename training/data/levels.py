"""Which of a camera's levels good parts use, where samples have more than 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.data.folders import LabelledFile

# Of all samples, at either end: hot and dead pixels.
_OUTLYING = 0.001
# What a suggested window leaves free at both ends, of what is used.
_MARGIN = 0.1
# Of the range: where parts use less, 8 bits hold too little of their contrast.
ENOUGH = 0.5


@dataclass(frozen=True)
class UsedLevels:
    """Nearly all samples lie from `low` to `high`, of 0 to `top`."""

    low: int
    high: int
    top: int

    @property
    def enough(self) -> bool:
        """Whether a linear map of the whole range to 8 bits keeps the contrast."""
        return self.high - self.low >= ENOUGH * self.top

    def __str__(self) -> str:
        margin = round(_MARGIN * (self.high - self.low)) + 1
        black, white = max(0, self.low - margin), min(self.top, self.high + margin)
        return (
            f"Parts use the levels {self.low} to {self.high} of 0 to {self.top}: of 256 levels "
            f"that the network sees, {round(256 * (self.high - self.low) / self.top)} are left. "
            f"--window {black}:{white} would use them all."
        )


def used_levels(files: Sequence[LabelledFile], bit_depth: int) -> UsedLevels | None:
    """The levels that images of `bit_depth` significant bits use; None if none can be read."""
    samples = []
    for file in files:
        try:
            with Image.open(file.image) as image:
                samples.append(np.asarray(image).ravel()[::7])
        except OSError:  # named with all other broken images, when features are computed
            continue
    if not samples:
        return None
    low, high = np.quantile(np.concatenate(samples), [_OUTLYING, 1 - _OUTLYING])
    return UsedLevels(round(float(low)), round(float(high)), (1 << bit_depth) - 1)
