"""Where workers meet: each training is one worker's, and none is lost with its worker."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.store import records, trainings
from service.store.database import open_database
from service.store.tables import Training, Worker
from service.store.trainings import MOST_ATTEMPTS


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


def take(database, worker="one"):
    with Session(database, expire_on_commit=False) as session, session.begin():
        return trainings.take(session, worker)


def fall_silent(database):
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    with Session(database) as session, session.begin():
        session.execute(update(Training).values(seen_at=long_ago))
        session.execute(update(Worker).values(seen_at=long_ago))


def test_each_is_one_workers_the_oldest_first(database):
    ids = [put(database) for _ in range(4)]
    assert take(database).id == ids[0]
    with ThreadPoolExecutor(6) as workers:
        taken = list(workers.map(lambda name: take(database, str(name)), range(6)))
    assert sorted(one.id for one in taken if one) == sorted(ids[1:])


def test_one_whose_worker_falls_silent_waits_again_and_fails_in_the_end(database):
    id = put(database)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        taken = take(database, "lost")
        assert (taken.id, taken.attempts) == (id, attempt)
        assert take(database, "another") is None  # it may still be alive
        fall_silent(database)
    assert take(database, "another") is None
    with Session(database) as session:
        found = trainings.find(session, id)
    assert (found.state, "ended 3 times" in found.message) == ("failed", True)


def test_whether_a_worker_is_there_is_known(database):
    def there():
        with Session(database) as session:
            return trainings.any_worker(session)

    assert not there()
    with Session(database) as session, session.begin():
        trainings.alive(session, "one")
        trainings.alive(session, "one")
    assert there()
    fall_silent(database)
    assert not there()
