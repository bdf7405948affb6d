"""The scripts: linted, and true to the compose file."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [*(ROOT / "deploy").glob("*.sh"), *(ROOT / "tests").rglob("*.sh")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_stack_is_tried_with_the_images_that_compose_names() -> None:
    compose = (ROOT / "deploy" / "compose.yaml").read_text()
    script = (ROOT / "deploy" / "stack-test.sh").read_text()
    for name in ("postgres", "prom/prometheus", "caddy"):
        (default,) = {
            part.partition(":-")[2].partition("}")[0]
            for part in compose.split("${")
            if part.partition(":-")[2].startswith(f"{name}:")
        }
        assert f"/{default}" in script
