"""Whether the same part gets the same score and verdict each time: what an acceptance test asks.

Terms are those of measurement system analysis (AIAG MSA, VDA 5): equipment variation is the spread
of repeated images of one part, part variation that between parts, both from a one-way analysis of
variance of raw scores. There is one machine and no operator: reproducibility is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Manifest
from training.calibration.thresholds import statement
from training.data.folders import LabelledFile, read_images
from training.errors import DatasetError
from training.reporting import plots
from training.reporting.report import page

# Standard deviations that hold 99.73 % of a normal spread.
SPREAD = 6
# What the parts' spread can be told apart in: AIAG's number of distinct categories.
CATEGORIES = 1.41


@dataclass(frozen=True)
class Repeatability:
    """Raw scores of each part's images, by the part's name, and what follows from them."""

    scores: Mapping[str, NDArray[np.float64]]
    manifest: Manifest = field(repr=False)

    @property
    def equipment_variation(self) -> float:
        """Standard deviation of the scores of one part, pooled over parts."""
        within = sum(float(((s - s.mean()) ** 2).sum()) for s in self.scores.values())
        return float(np.sqrt(within / (self.images - len(self.scores))))

    @property
    def part_variation(self) -> float:
        """Standard deviation of the parts' own scores, their images' noise taken off."""
        means = np.array([s.mean() for s in self.scores.values()])
        counts = np.array([len(s) for s in self.scores.values()])
        overall = float((counts * means).sum() / self.images)
        between = float((counts * (means - overall) ** 2).sum()) / (len(counts) - 1)
        typical = (self.images - float((counts**2).sum()) / self.images) / (len(counts) - 1)
        return float(np.sqrt(max(0.0, (between - self.equipment_variation**2) / typical)))

    @property
    def of_tolerance(self) -> float | None:
        """Six standard deviations of one part, over the way from a median good part to `ng`; None
        where half of the good parts are rejected anyway."""
        way = self.manifest.thresholds.ng - self.manifest.calibration.quantiles[50]
        return SPREAD * self.equipment_variation / way if way > 0 else None

    @property
    def categories(self) -> int | None:
        """How many groups of parts the scores can tell apart; five or more are wanted. None where
        all images of a part have one score, as copies of a file do."""
        if self.equipment_variation == 0:
            return None
        return int(CATEGORIES * self.part_variation / self.equipment_variation)

    @property
    def unsteady(self) -> list[str]:
        """Parts that do not get the same verdict from all of their images."""
        lines = self.manifest.thresholds
        return [
            name
            for name, scores in self.scores.items()
            if len({lines.verdict(float(score)) for score in scores}) > 1
        ]

    def figures(self) -> dict[str, object]:
        """All of it, to be written as JSON."""
        parts = len(self.scores)
        return {
            "parts": parts,
            "images": self.images,
            "equipment_variation": self.equipment_variation,
            "part_variation": self.part_variation,
            "of_tolerance": self.of_tolerance,
            "distinct_categories": self.categories,
            "same_verdict": 1 - len(self.unsteady) / parts,
            "unsteady_parts": self.unsteady,
        }

    def render(self) -> str:
        """A page with every score and both lines, as HTML with nothing outside of it."""
        lines = self.manifest.thresholds
        return page(
            "repeatability.html.jinja",
            of=self,
            manifest=self.manifest,
            statement=statement(self.manifest.calibration),
            plot=plots.strips(self.scores, {"review": lines.review, "ng": lines.ng}),
        )

    @property
    def images(self) -> int:
        """How many there are of all parts."""
        return sum(len(scores) for scores in self.scores.values())


def read_parts(root: Path) -> dict[str, tuple[LabelledFile, ...]]:
    """A folder of folders: of each part, named as its folder, all of its images.

    Raises DatasetError where there are fewer than two parts, or a part has fewer than two images.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    parts = {folder.name: read_images(folder) for folder in folders}
    if len(parts) < 2 or min(len(files) for files in parts.values()) < 2:
        raise DatasetError(
            f"{root} does not hold several images of each of several parts.",
            remedy="Make a folder for each part, and put at least two images of it inside: taken "
            "apart, with the part put in anew each time.",
        )
    return parts


def repeatability(
    scored: Iterable[tuple[LabelledFile, float]],
    parts: Mapping[str, Sequence[LabelledFile]],
    manifest: Manifest,
) -> Repeatability:
    """From the score of each image, and what images each part has."""
    by_path = {file.image: score for file, score in scored}
    return Repeatability(
        {name: np.array([by_path[f.image] for f in files]) for name, files in parts.items()},
        manifest,
    )
