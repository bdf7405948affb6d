"""What another version says of images that were inspected, and that nothing is done twice."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from models.bundle import Thresholds, open_bundle
from service.app import create_app
from service.engine import FakeEngine
from service.recipe_settings import RecipeSettings
from service.rescoring import plan as plans
from service.rescoring.images import OldImage, of_folder
from service.rescoring.plan import Plan, RescoringError, Terms
from service.rescoring.scorer import Scorer
from service.rescoring.verdict import NewVerdict
from service.settings import Settings
from tests.grey_parts import image, inspect, write_version

KIZU = Path(sys.executable).parent / "kizu"
STRICTER = Thresholds(review=60, ng=80)


@pytest.fixture
def settings(tmp_path):
    """Of a service that has inspected parts of 50, 70, 90, 120 and 200, with version 1."""
    write_version(tmp_path / "store")
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data", promotion="manual")
    with TestClient(create_app(settings, open_engine=lambda bundle: FakeEngine())) as client:
        for grey in (50, 70, 90, 120, 200):
            inspect(client, grey, part_id=f"=p{grey}")
    write_version(tmp_path / "store", 2, thresholds=STRICTER)
    return settings


def terms(bundle, source="here"):
    manifest = bundle.manifest
    return Terms(
        recipe=manifest.recipe, version=manifest.version, digest=bundle.digest,
        thresholds=manifest.thresholds, settings=RecipeSettings(), source=source,
    )  # fmt: skip


def rescore(settings, *arguments):
    done = subprocess.run(
        [KIZU, "rescore", "cap", "2", *arguments, "--store", settings.store,
         "--data", settings.data],
        capture_output=True, text=True, check=False,
        env=os.environ | {"RAY_ADDRESS": "local"},  # not on a cluster of another test's
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_which_passed_parts_another_version_would_have_refused(settings, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "out"
    said = rescore(settings, out)
    with (out / "refused.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["part_id"]: (row["verdict"], row["new_verdict"]) for row in rows}
    # Formulas are shown, not run.
    assert found == {"'=p70": ("ok", "review"), "'=p90": ("ok", "ng")}
    table = {line.split()[1]: line.split()[3:8:2] for line in said.splitlines() if "│ " in line}
    assert table == {"ok": ["1", "1", "1"], "review": ["0", "0", "1"], "ng": ["0", "0", "1"]}
    before = {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()}
    assert rescore(settings, out) == said
    assert {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()} == before


@pytest.fixture
def folder(tmp_path):
    """Of images that nobody has inspected, and what is none."""
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for name, content in (
        ("a.png", image(50)), ("b/c.PNG", image(200)), ("d.jpg", b"none"), ("notes.txt", b""),
    ):  # fmt: skip
        (folder / name).write_bytes(content)
    return folder


def test_images_of_a_folder_are_judged_and_what_is_none_is_no_pass(folder, tmp_path):
    bundle = open_bundle(write_version(tmp_path / "store"))
    scorer = Scorer(bundle, terms(bundle), Settings(), open_engine=lambda bundle: FakeEngine())
    found = scorer.score(list(of_folder(str(folder))))
    scorer.close()
    assert [Path(one.address).name for one in found] == ["a.png", "c.PNG", "d.jpg"]
    assert [one.new_verdict for one in found] == ["ok", "ng", "error"]
    assert [one.verdict for one in found] == [None] * 3
    assert "is not a readable" in found[2].problem


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Five images in three chunks, of which one is done."""
    monkeypatch.setattr(plans, "PER_CHUNK", 2)
    bundle = open_bundle(write_version(tmp_path / "store"))
    images = [OldImage(address=f"{number}.png", verdict="ok") for number in range(5)]
    plan = Plan.begin(tmp_path / "out", terms(bundle), images)
    plan.finish("00000001", [judged(images[2], "ng"), judged(images[3], "ok")])
    return plan


def judged(image, verdict):
    return NewVerdict(**dict(image), new_verdict=verdict, new_score=1.5)


def test_what_is_done_is_not_done_again(plan, tmp_path):
    def never():
        raise AssertionError("it is known what there is")
        yield

    again = Plan.begin(tmp_path / "out", plan.terms, never())
    assert [chunk.stem for chunk in again.unfinished()] == ["00000000", "00000002"]
    assert again.size == 3
    for chunk in again.unfinished():
        images = map(OldImage.model_validate_json, chunk.read_text().splitlines())
        again.finish(chunk.stem, [judged(one, "ok") for one in images])
    assert [one.address for one in again.found()] == [f"{number}.png" for number in range(5)]
    assert again.changes() == {("ok", "ok"): 4, ("ok", "ng"): 1}


def test_a_folder_of_another_rescoring_is_not_gone_on_with(plan, tmp_path):
    other = plan.terms.model_copy(update={"source": "elsewhere"})
    with pytest.raises(RescoringError, match="holds another re-scoring: of here by version 1"):
        Plan.begin(tmp_path / "out", other, [])


def test_a_plan_that_was_broken_off_is_begun_anew(tmp_path):
    bundle = open_bundle(write_version(tmp_path / "store"))

    def some():
        yield OldImage(address="1.png")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Plan.begin(tmp_path / "out", terms(bundle), some())
    plan = Plan.begin(tmp_path / "out", terms(bundle), [OldImage(address="1.png")])
    assert plan.size == 1
