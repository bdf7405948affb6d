"""Where training keeps things."""

from dataclasses import dataclass
from pathlib import Path

from models.signature import Signer


@dataclass(frozen=True)
class Directories:
    """Where bundles go, and where features and checkpoints are kept; and who signs bundles."""

    store: Path
    cache: Path
    signer: Signer | None = None

    def training(self, recipe: str) -> Path:
        """Where a training keeps what it needs while it runs."""
        return self.store / recipe / ".training"
