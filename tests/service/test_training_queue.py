"""Where workers meet: each training is one worker's, and none is lost with its worker."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.store import records, trainings
from service.store.database import open_database
from service.store.tables import Training, Worker
from service.store.trainings import MOST_ATTEMPTS, SILENCE


@pytest.fixture
def database(database_url):
    engine = open_database(database_url)
    yield engine
    engine.dispose()


def put(database):
    """One that waits; its id."""
    with Session(database) as session, session.begin():
        training = Training(
            id=records.new_id(), created_at=records.now(), recipe="cap", by="eva", reason="dents",
            labels={}, champion_version=1, state="queued", attempts=0, step="", done=0, total=0,
            peak_mb=0.0, message="", log="",
        )  # fmt: skip
        session.add(training)
        return training.id


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def take(database, worker="one", beats=None):
    with Session(database, expire_on_commit=False) as session, session.begin():
        lost = (beats or trainings.Beats()).lost(session)
        return trainings.take(session, worker, lost)


def test_each_is_one_workers_the_oldest_first(database):
    ids = [put(database) for _ in range(4)]
    assert take(database).id == ids[0]
    with ThreadPoolExecutor(6) as workers:
        taken = list(workers.map(lambda name: take(database, str(name)), range(6)))
    assert sorted(one.id for one in taken if one) == sorted(ids[1:])


def test_one_whose_worker_falls_silent_waits_again_and_fails_in_the_end(database):
    id = put(database)
    clock = Clock()
    beats = trainings.Beats(clock)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        taken = take(database, "lost", beats)
        assert (taken.id, taken.attempts) == (id, attempt)
        assert take(database, "another", beats) is None
        clock.now += SILENCE.total_seconds() - 1
        assert take(database, "another", beats) is None  # it may still be alive
        clock.now += 1
    assert take(database, "another", beats) is None
    with Session(database) as session:
        found = trainings.find(session, id)
    assert (found.state, "ended 3 times" in found.message) == ("failed", True)


@pytest.mark.parametrize("jump", [timedelta(days=-1), timedelta(hours=1), timedelta(days=1)])
def test_one_whose_worker_is_alive_stays_its_own_whatever_the_clocks_say(database, jump):
    put(database)
    clock = Clock()
    beats = trainings.Beats(clock)
    mine = take(database, "alive", beats)
    for beat in range(40):
        clock.now += 1
        assert take(database, "another", beats) is None
        with Session(database) as session, session.begin():
            seen = records.now() + (jump if beat > 5 else timedelta(0))
            session.execute(update(Training).values(seen_at=seen))
    with Session(database) as session:
        assert trainings.find(session, mine.id).worker == "alive"


def test_whether_a_worker_is_there_is_known(database):
    def there():
        with Session(database) as session:
            return trainings.any_worker(session)

    assert not there()
    with Session(database) as session, session.begin():
        trainings.alive(session, "one")
        trainings.alive(session, "one")
    assert there()
    for minutes in (-5, 5):  # long ago, and before the clock was set back
        with Session(database) as session, session.begin():
            seen = datetime.now(UTC) + timedelta(minutes=minutes)
            session.execute(update(Worker).values(seen_at=seen))
        assert not there()
