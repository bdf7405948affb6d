"""The commit that this was built from. Needs Python alone: build_hook.py runs it by itself."""

import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).parent
UNKNOWN = "commit unknown"


def commit() -> str:
    """Of what was built, as its file COMMIT says; else of what is checked out, with a `+` where
    that was changed. UNKNOWN where neither is."""
    written = _PACKAGE / "COMMIT"
    if written.exists():
        return written.read_text().strip()
    if not (_PACKAGE.parent / ".git").exists():
        return UNKNOWN
    described = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(  # noqa: S603
            described, cwd=_PACKAGE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return done.stdout.strip()
