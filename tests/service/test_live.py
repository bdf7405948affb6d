"""The line as it runs: what watchers are told, what they missed, and what a shift came to."""

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx2 as httpx
import pytest

from service import live
from service.app import create_app
from service.engine import FakeEngine
from service.settings import Settings
from service.shifts import Shifts, ShiftsError
from tests.grey_parts import image, inspect, write_version
from tests.listening import listening

KIZU = Path(sys.executable).parent / "kizu"
WALL = timezone(timedelta(hours=9))


@pytest.fixture
def serve(tmp_path):
    """Start a service on its own data; again and again, where a test wants it."""
    store = tmp_path / "grey"
    write_version(store)

    @contextmanager
    def start():
        app = create_app(
            Settings(store=store, data=tmp_path / "data"), open_engine=lambda bundle: FakeEngine()
        )
        with (
            listening(app) as (host, port),
            httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client,
        ):
            yield client

    return start


@contextmanager
def watching(client, after=None, **query):
    """An iterator over (event, id, data) as they come, from now on or after an event."""
    headers = {"last-event-id": after} if after else {}
    with client.stream("GET", "/v1/events", params=query, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer.iter_lines())
        if not after:
            assert next(told)[0] == "reset"
        yield told


def events(lines):
    found = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif "data" in found:
            yield found["event"], found.get("id"), json.loads(found["data"])
            found = {}


def test_a_watcher_is_told_of_each_inspection_and_each_error(serve):
    with serve() as client, watching(client, recipe="cap") as told:
        result = inspect(client, 200, part_id="7", recipe="cap")
        client.post(
            "/v1/inspect?recipe=other", content=image(50), headers={"content-type": "image/png"}
        )
        client.post(
            "/v1/inspect?recipe=cap&part_id=8",
            content=b"none",
            headers={"content-type": "image/png"},
        )
        assert next(told) == ("inspection", result["id"], result)
        kind, _, problem = next(told)
        assert (kind, problem["verdict"], problem["part_id"]) == ("error", "error", "8")
        assert "not a readable" in problem["detail"]


def test_who_lost_the_connection_goes_on_where_it_was(serve):
    with serve() as client:
        first, second, third = (inspect(client, grey)["id"] for grey in (50, 60, 70))
        with watching(client, after=first) as told:
            assert [next(told)[1] for _ in range(2)] == [second, third]
    with serve() as client, watching(client, after=second) as told:  # after a restart, too
        assert next(told)[1] == third


def test_who_missed_too_much_is_told_so(serve, monkeypatch):
    monkeypatch.setattr(live, "KEPT", 2)
    with serve() as client:
        first, *_, last = (inspect(client, grey)["id"] for grey in (50, 60, 70, 80))
        with watching(client, after=first) as told:
            assert next(told)[:2] == ("reset", last)
            newest = inspect(client, 90)["id"]
            assert next(told)[:2] == ("inspection", newest)
        with watching(client, after="nobody knows") as told:
            assert next(told)[0] == "reset"


def test_the_feed_has_each_inspection_once_in_the_order_of_entry(serve):
    with serve() as client:
        inspect(client, 40)
        now = client.get("/v1/feed").json()
        assert now["items"] == []
        ids = [inspect(client, grey)["id"] for grey in (50, 60, 70)]
        page = client.get("/v1/feed", params={"after": now["next"], "limit": 2}).json()
        assert [one["id"] for one in page["items"]] == ids[:2]
        page = client.get("/v1/feed", params={"after": page["next"], "limit": 2}).json()
        assert [one["id"] for one in page["items"]] == ids[2:]
        end = client.get("/v1/feed", params={"after": page["next"]}).json()
        assert end == {"items": [], "next": page["next"]}


def test_a_page_of_the_feed_ends_with_no_number_torn_in_two(serve, tmp_path):
    with serve() as client:
        ids = [inspect(client, grey)["id"] for grey in (50, 60, 70, 80)]
    with closing(sqlite3.connect(tmp_path / "data" / "kizu.sqlite3")) as database, database:
        database.execute("UPDATE inspections SET number = 2 WHERE number = 3")
    with serve() as client:
        page = client.get("/v1/feed", params={"after": 0, "limit": 2}).json()
        assert {one["id"] for one in page["items"]} == set(ids[:3])
        page = client.get("/v1/feed", params={"after": page["next"]}).json()
        assert [one["id"] for one in page["items"]] == ids[3:]


def test_a_service_that_is_watched_ends_at_once(fitted, good_part, tmp_path):
    store = fitted.path.parent.parent
    process = subprocess.Popen(
        [KIZU, "serve", "--store", store, "--data", tmp_path / "data", "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = next(json.loads(line)["url"] for line in process.stderr if '"listening"' in line)
        with httpx.Client(base_url=url, timeout=30) as client, watching(client) as told:
            headers = {"content-type": "image/jpeg"}
            id = client.post("/v1/inspect", content=good_part, headers=headers).json()["id"]
            assert next(told)[1] == id
            process.send_signal(signal.SIGTERM)
            assert list(told) == []
            assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_shift_counts_what_it_inspected(serve):
    with serve() as client:
        for grey in (50, 50, 120, 200):
            inspect(client, grey)
        inspect(client, 200, simulated="true")
        counted = client.get("/v1/shift", params={"recipe": "cap"}).raise_for_status().json()
        assert (counted["ok"], counted["review"], counted["ng"]) == (2, 1, 1)
        assert client.get("/v1/shift", params={"recipe": "other"}).json()["ok"] == 0
        begin, end = (datetime.fromisoformat(counted[name]) for name in ("since", "until"))
        assert begin <= datetime.now().astimezone() < end


@pytest.mark.parametrize(
    ("clock", "since", "until"),
    [
        ("2026-03-01T06:00", "2026-03-01T06:00", "2026-03-01T14:00"),
        ("2026-03-01T13:59", "2026-03-01T06:00", "2026-03-01T14:00"),
        ("2026-03-01T05:59", "2026-02-28T22:00", "2026-03-01T06:00"),
        ("2026-03-01T23:30", "2026-03-01T22:00", "2026-03-02T06:00"),
    ],
)
def test_shifts_follow_the_clock_on_the_wall(clock, since, until):
    shift = Shifts("06:00, 14:00,22:00").at(datetime.fromisoformat(clock).replace(tzinfo=WALL))
    wanted = (datetime.fromisoformat(text).replace(tzinfo=WALL) for text in (since, until))
    assert (shift.since, shift.until) == tuple(wanted)


def test_one_shift_a_day_lasts_a_day():
    shift = Shifts("07:00").at(datetime(2026, 3, 1, 7, tzinfo=WALL))
    assert shift.until - shift.since == timedelta(days=1)


def test_shifts_that_are_no_times_are_refused():
    with pytest.raises(ShiftsError, match="'late'"):
        Shifts("late")
