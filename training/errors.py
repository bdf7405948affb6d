"""What can go wrong while training, in the terms of the person who started it."""

from models.errors import KizuError


class TrainingError(KizuError):
    """A training, retraining or benchmark that cannot go on."""


class DatasetError(TrainingError):
    """A folder or snapshot that does not hold what training needs."""
