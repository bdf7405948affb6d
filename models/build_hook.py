"""Hatchling calls this where a wheel or an archive is built: they know no git, so they are told."""

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Puts models/COMMIT into them, of the variable KIZU_COMMIT or of the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        models = Path(self.root) / "models"
        if version == "editable" or (models / "COMMIT").exists():  # in an archive it is there
            return
        known = (
            os.environ.get("KIZU_COMMIT") or runpy.run_path(str(models / "commit.py"))["commit"]()
        )
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "COMMIT"
        file.write_text(f"{known}\n")
        build_data["force_include"][str(file)] = "models/COMMIT"
