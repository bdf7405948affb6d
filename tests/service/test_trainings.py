"""Learning from labels: asked for, carried out by a worker of its own, watched, ended, retried."""

import hashlib
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.store import mirror
from service.store.local_blobs import LocalBlobs
from service.worker import WorkerError, find_program
from tests.service.test_shadow import roles
from tests.waiting import until

KIZU = Path(sys.executable).parent / "kizu"
JPEG = {"content-type": "image/jpeg"}
WHY = {"by": "eva", "reason": "dents are missed"}


@pytest.fixture
def database_url(tmp_path):
    """SQLite's: how workers meet in either database is test_training_queue's."""
    return f"sqlite:///{tmp_path / 'kizu.sqlite3'}"


@pytest.fixture
def client(make_client, tmp_path):
    return make_client(scan_seconds=0.05, good_parts=tmp_path / "good", cache=tmp_path / "cache")


@pytest.fixture
def labelled(client, dataset):
    """Every test image inspected and labelled as what it is."""
    for file in dataset.test:
        image = file.image.read_bytes()
        answer = client.post("/v1/inspect?recipe=cap", content=image, headers=JPEG)
        label = {"inspection_id": answer.json()["id"], "verdict": file.verdict, "operator": "eva"}
        if file.defect_class:
            label["defect_class"] = file.defect_class
        client.post("/v1/feedback", json=label).raise_for_status()


@pytest.fixture
def good_parts(tmp_path, product):
    """Where the worker finds the good parts that the recipe was fitted on."""
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "cap").symlink_to(product)


@pytest.fixture
def working(store, database_url, tmp_path, monkeypatch):
    """Start `kizu worker`; with another program in the place of kizu-train, where one is given."""

    @contextmanager
    def start(program=None, **variables):
        environment = os.environ | {
            "KIZU_STORE": str(store), "KIZU_DATA": str(tmp_path / "data"),
            "KIZU_DATABASE": database_url, "KIZU_CACHE": str(tmp_path / "cache"),
            "KIZU_GOOD_PARTS": str(tmp_path / "good"), **variables,
        }  # fmt: skip
        command = [KIZU, "worker"]
        if program:
            script = tmp_path / "kizu-train"
            script.write_text(f"#!{sys.executable}\n{program}")
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            command = [sys.executable, "-c", RUN_WITH, str(script)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    return start


RUN_WITH = """
import sys
from pathlib import Path
import service.cli
program = Path(sys.argv[1])
service.cli.find_program = lambda: program
sys.argv = ["kizu", "worker"]
service.cli.main()
"""

# Says how far it is until it is ended.
ENDLESS = """
import json, sys, time
for done in range(1, 100000):
    print(json.dumps({"bar": "Learning", "done": done, "total": 100000, "note": ""}),
          file=sys.stderr, flush=True)
    time.sleep(0.02)
"""

# Learns nothing: its bundle is the champion's with the next number.
QUICK = """
import sys
from pathlib import Path
from models.bundle import FILES, open_bundle, write_bundle
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert list(Path(given["--snapshot"]).rglob("*"))
champion = open_bundle(Path(given["--champion"]))
manifest = champion.manifest.model_copy(update={"version": 2, "parent_version": 1})
print(write_bundle(Path(given["--store"]), manifest, {name: champion.read(name) for name in FILES}))
"""


def ask(client, **labels):
    return client.post("/v1/recipes/cap/trainings", json={"labels": labels, **WHY})


def training(client, id):
    return client.get(f"/v1/trainings/{id}").json()


def ended(client, id):
    over = ("succeeded", "refused", "failed", "cancelled")
    return until(lambda: (found := training(client, id))["state"] in over and found, 600)


def test_labels_become_a_candidate_that_runs_in_the_shadow(
    client, labelled, good_parts, working, good_part
):
    estimate = client.post("/v1/recipes/cap/estimate", json={}).json()
    assert {(one["verdict"], one["defect_class"]) for one in estimate["labels"]} == {
        ("ok", None), ("ng", "scratch"), ("ng", "dent"), ("ng", "missing_print"),
    }  # fmt: skip
    assert estimate["problem"] is None
    assert (estimate["worker"], estimate["from_measurement"]) == (False, False)
    assert estimate["seconds"] > 0
    asked = ask(client)
    assert asked.status_code == 201
    assert training(client, asked.json()["id"])["state"] == "queued"
    with working():
        found = ended(client, asked.json()["id"])
    assert found["state"] in ("succeeded", "refused"), found["message"] + found["log"]
    assert found["peak_mb"] > 100
    assert "models that did not learn" in found["message"]
    assert "<html" in client.get(found["report"]).text
    assert client.post("/v1/recipes/cap/estimate", json={}).json()["from_measurement"]
    if found["state"] == "succeeded":
        assert found["bundle_version"] == 2
        until(lambda: roles(client) == {1: "champion", 2: "candidate"})


def test_what_cannot_work_is_said_before_it_is_tried(client, good_part):
    nothing = client.post("/v1/recipes/cap/estimate", json={}).json()
    assert nothing["problem"] == "No inspection is labelled."
    assert ask(client).status_code == 422
    id = client.post("/v1/inspect", content=good_part, headers=JPEG).json()["id"]
    client.post("/v1/feedback", json={"inspection_id": id, "verdict": "ok", "operator": "eva"})
    assert "All labels say ok" in client.post("/v1/recipes/cap/estimate", json={}).json()["problem"]


def test_a_failure_says_why_in_plain_words(client, labelled, working):
    """Without the good parts that it was fitted on, there are too few to learn and compare."""
    id = ask(client).json()["id"]
    with working():
        found = ended(client, id)
    assert found["state"] == "failed"
    assert "good parts" in found["message"]
    assert "are needed to learn some and to compare" in found["message"]
    assert "Traceback" not in found["log"]
    again = client.post(f"/v1/trainings/{id}/retry", json={"by": "eva"})
    assert (again.status_code, again.json()["retry_of"]) == (201, id)


def test_one_is_watched_and_cancelled(client, labelled, working):
    id = ask(client).json()["id"]
    assert ask(client).status_code == 422  # one at a time
    with working(ENDLESS):
        running = until(lambda: (t := training(client, id))["done"] > 10 and t)
        assert (running["state"], running["step"]) == ("running", "Learning")
        until(lambda: training(client, id)["step_seconds_left"])
        assert client.post(f"/v1/trainings/{id}/cancel", json={"by": "eva"}).status_code == 200
        assert ended(client, id)["state"] == "cancelled"
    assert client.post(f"/v1/trainings/{id}/cancel", json={"by": "eva"}).status_code == 422


def test_what_a_worker_on_another_computer_learns_comes_here(
    make_client, store, bucket, working, good_part, tmp_path, monkeypatch
):
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    shared = {name: f"{bucket.address}/{name}" for name in ("blobs", "bundles")}
    variables = {f"KIZU_{name.upper()}": address for name, address in shared.items()}
    environment = os.environ | variables
    subprocess.run([KIZU, "bundle", "send", store / "cap" / "1"], env=environment, check=True)
    client = make_client(scan_seconds=0.05, **shared)
    answer = client.post("/v1/inspect?recipe=cap", content=good_part, headers=JPEG).json()
    label = {"inspection_id": answer["id"], "verdict": "ok", "operator": "eva"}
    client.post("/v1/feedback", json=label).raise_for_status()
    elsewhere = {name: str(tmp_path / "elsewhere" / name) for name in ("store", "data")}
    Path(elsewhere["store"]).mkdir(parents=True)
    asked = ask(client).json()
    variables |= {"KIZU_STORE": elsewhere["store"], "KIZU_DATA": elsewhere["data"]}
    with working(QUICK, **variables):
        found = ended(client, asked["id"])
    assert (found["state"], found["bundle_version"]) == ("succeeded", 2), found["log"]
    assert client.get(found["report"]).status_code == 200
    until(lambda: roles(client) == {1: "champion", 2: "candidate"})


def test_one_that_waits_is_cancelled_at_once(client, labelled):
    id = ask(client).json()["id"]
    cancelled = client.post(f"/v1/trainings/{id}/cancel", json={"by": "eva"})
    assert cancelled.json()["state"] == "cancelled"


def test_a_worker_that_is_stopped_leaves_its_training_to_the_next(client, labelled, working):
    id = ask(client).json()["id"]
    with working(ENDLESS):
        until(lambda: training(client, id)["done"] > 1)
    assert training(client, id)["state"] == "queued"
    with working("print('/store/cap/7')"):
        until(lambda: training(client, id)["state"] != "queued")


# Says with what it was started.
TELLING = """
import sys
print("error: " + " ".join(sys.argv[1:]), file=sys.stderr)
sys.exit(2)
"""


def test_a_training_that_was_interrupted_goes_on_with_the_labels_that_it_had(
    client, labelled, working, good_part
):
    id = ask(client).json()["id"]
    with working(ENDLESS):
        until(lambda: training(client, id)["done"] > 1)
    begun = training(client, id)["snapshot"]
    another = client.post("/v1/inspect?recipe=cap", content=good_part, headers=JPEG).json()["id"]
    label = {"inspection_id": another, "verdict": "ok", "operator": "eva"}
    client.post("/v1/feedback", json=label).raise_for_status()
    with working(TELLING):
        resumed = ended(client, id)
    assert resumed["snapshot"] == begun
    assert begun in resumed["message"]
    assert resumed["message"].endswith("--resume")
    again = client.post(f"/v1/trainings/{id}/retry", json={"by": "eva"}).json()["id"]
    with working(TELLING):
        fresh = ended(client, again)
    assert fresh["snapshot"] != begun
    assert "--resume" not in fresh["message"]


# Says where defects count by the mask that it is given.
COUNTING = """
import sys
from pathlib import Path
from models.image import read_mask
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
mask = read_mask(Path(given["--areas"]).read_bytes())
print(f"error: {mask.mean():.2f} {mask[:, :512].mean():.2f}", file=sys.stderr)
sys.exit(2)
"""


def test_a_training_knows_where_defects_count(client, labelled, working):
    half = {"counted": [[[0, 0], [0.25, 0], [0.25, 1], [0, 1]]]}
    body = {"settings": half, **WHY}
    client.post("/v1/recipes/cap/revisions", json=body).raise_for_status()
    id = ask(client).json()["id"]
    with working(COUNTING):
        assert ended(client, id)["message"] == "0.25 0.50"


def test_labels_whose_images_are_gone_are_counted_in_the_message(
    client, labelled, working, scratched_part, tmp_path
):
    sha256 = hashlib.sha256(scratched_part).hexdigest()
    LocalBlobs(tmp_path / "data" / "blobs").remove_unless(sha256, lambda _: False)
    id = ask(client).json()["id"]
    with working(QUICK):
        found = ended(client, id)
    assert found["state"] == "succeeded"
    assert "is no longer kept: 1." in found["message"]


def test_a_worker_that_is_killed_takes_its_program_with_it(
    client, labelled, working, monkeypatch, tmp_path
):
    id = ask(client).json()["id"]
    note = tmp_path / "pid"
    program = f"import os, pathlib; pathlib.Path({str(note)!r}).write_text(str(os.getpid()))"
    with working(program + ENDLESS) as worker:
        until(lambda: training(client, id)["done"] > 1)
        worker.kill()
        worker.wait()
    pid = int(note.read_text())
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or b"Z" in _state(pid))
    assert training(client, id)["state"] == "running"  # nobody has noticed yet


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().split()[2]
    except OSError:
        return b"Z"


def test_a_program_that_the_system_ends_is_explained(client, labelled, working):
    id = ask(client).json()["id"]
    with working("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"):
        found = ended(client, id)
    assert found["state"] == "failed"
    assert "memory runs out" in found["message"]


def test_a_program_that_says_nothing_has_failed(client, labelled, working):
    id = ask(client).json()["id"]
    with working("pass"):
        found = ended(client, id)
    assert (found["state"], "without a word" in found["message"]) == ("failed", True)


def test_a_full_disk_is_explained(client, labelled, working):
    id = ask(client).json()["id"]
    text = (
        "error: /store/cap: No space left on device. Check the path, its permissions and the disk."
    )
    with working(f"import sys; print({text!r}, file=sys.stderr); sys.exit(2)"):
        found = ended(client, id)
    assert (found["state"], "No space left" in found["message"]) == ("failed", True)


def test_a_worker_without_its_program_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="not installed"):
        find_program()
