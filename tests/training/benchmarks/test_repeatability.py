import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.bundle import Thresholds
from training.benchmarks.repeatability import Repeatability, read_parts
from training.cli.main import app
from training.errors import DatasetError

rng = np.random.default_rng(0)


def test_the_variance_is_split_between_machine_and_parts(bundle):
    """What the scores were drawn with is found again."""
    parts = rng.normal(10, 2.0, 400)
    scores = {f"{i}": part + rng.normal(0, 0.5, 6) for i, part in enumerate(parts)}
    found = Repeatability(scores, bundle.manifest)
    assert found.equipment_variation == pytest.approx(0.5, rel=0.05)
    assert found.part_variation == pytest.approx(2.0, rel=0.08)
    assert found.categories == int(1.41 * found.part_variation / found.equipment_variation)
    lines, median = bundle.manifest.thresholds, bundle.manifest.calibration.quantiles[50]
    assert found.of_tolerance == pytest.approx(6 * found.equipment_variation / (lines.ng - median))


def test_a_part_whose_verdict_changes_is_named(bundle):
    lines = bundle.manifest.thresholds
    scores = {
        "steady": np.array([lines.review - 1, lines.review - 2]),
        "bad": np.array([lines.ng + 1, lines.ng + 2]),
        "torn": np.array([lines.review - 0.1, lines.review + 1e-3]),
    }
    assert Repeatability(scores, bundle.manifest).unsteady == ["torn"]


def test_what_cannot_be_told_is_not_told_as_good(bundle):
    """Copies of one file have no spread; a line below the median good part leaves no tolerance."""
    same = {"a": np.array([1.0, 1.0]), "b": np.array([2.0, 2.0])}
    assert Repeatability(same, bundle.manifest).categories is None
    strict = Thresholds(review=0.0, ng=bundle.manifest.calibration.quantiles[50] - 0.1)
    manifest = bundle.manifest.model_copy(update={"thresholds": strict})
    found = Repeatability({"a": np.array([1.0, 1.2]), "b": np.array([2.0, 2.1])}, manifest)
    assert found.of_tolerance is None
    assert "none" in found.render()
    assert "unknown" in Repeatability(same, bundle.manifest).render()


def test_one_part_or_one_image_says_nothing(tmp_path, product):
    with pytest.raises(DatasetError, match="several images"):
        read_parts(tmp_path / "nowhere")
    image = next((product / "train" / "good").iterdir()).read_bytes()
    for part, count in (("a", 2), ("b", 1)):
        (tmp_path / part).mkdir()
        for number in range(count):
            (tmp_path / part / f"{number}.jpg").write_bytes(image)
    with pytest.raises(DatasetError) as raised:
        read_parts(tmp_path)
    assert "at least two images" in raised.value.remedy


def test_parts_are_scored_and_shown(tmp_path, product, bundle):
    """Three parts, four images each that differ by a camera's noise."""
    for number, path in enumerate(sorted((product / "train" / "good").iterdir())[:3]):
        (tmp_path / "parts" / f"part{number}").mkdir(parents=True)
        pixels = np.asarray(Image.open(path)).astype(float)
        for take in range(4):
            noisy = np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "parts" / f"part{number}" / f"{take}.png")
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    done = CliRunner().invoke(
        app,
        ["repeatability", str(tmp_path / "parts"), "--bundle", str(bundle.path),
         "--json", str(figures), "--out", str(page)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(figures.read_text())
    assert (found["parts"], found["images"]) == (3, 12)
    assert found["equipment_variation"] > 0
    assert found["of_tolerance"] > 0
    shown = page.read_text()
    assert "12 images" in shown
    assert "data:image/png;base64" in shown
