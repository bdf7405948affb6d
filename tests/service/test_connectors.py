"""Results that are passed on: to whom, in which order, and what becomes of them meanwhile."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from structlog.testing import capture_logs

from service.client import Kizu
from service.connectors.connect import connect, forget
from service.connectors.feeder import Feeder
from service.connectors.folder import Folder
from service.connectors.metrics import ConnectMetrics
from service.connectors.mqtt import Mqtt
from service.connectors.outbox import Letter, Outbox, OutboxHeld
from service.connectors.settings import read_connect_settings
from service.connectors.webhook import Webhook
from service.settings import SettingsError
from tests.broker import MOSQUITTO, Broker
from tests.grey_line import carrying, inspect
from tests.grey_parts import image
from tests.receiver import SECRET, Receiver
from tests.waiting import until


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.stop()


def test_each_result_is_passed_on_once_signed_and_in_order(kizu, receiver, tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    webhook = Webhook("mes", receiver.url, SECRET)
    feeder = Feeder(kizu, outbox, [webhook])
    inspect(kizu, 40)  # before anybody asked
    feeder.look()
    ids = [inspect(kizu, grey) for grey in (50, 60, 200)]
    assert feeder.look() == 3
    assert feeder.look() == 0  # the same numbers are read again
    with carrying(outbox, webhook):
        receiver.wait(lambda it: len(it.got) == 3)
    assert [id for id, _ in receiver.got] == ids
    assert [sent["data"]["id"] for _, sent in receiver.got] == ids
    assert receiver.got[2][1]["data"]["verdict"] == "ng"
    assert outbox.waiting()["mes"] == 0


def test_a_receiver_that_is_away_gets_all_of_it_later(kizu, receiver, tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    webhook = Webhook("mes", receiver.url, SECRET)
    feeder = Feeder(kizu, outbox, [webhook])
    feeder.look()
    receiver.status = 503
    ids = [inspect(kizu, grey) for grey in (50, 60, 70, 80)]
    with carrying(outbox, webhook):
        feeder.look()
        receiver.wait(lambda it: it.refused >= 2)
    assert outbox.waiting()["mes"] == 4
    receiver.status = 200
    again = Webhook("mes", receiver.url, SECRET)  # another process
    with carrying(Outbox(tmp_path / "outbox"), again):
        receiver.wait(lambda it: len(it.got) == 4)
    assert [id for id, _ in receiver.got] == ids


def test_nobody_gets_what_they_did_not_ask_for(kizu, receiver, tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    receivers = [
        Webhook("bad", receiver.url, SECRET, verdicts=["ng", "review"]),
        Webhook("other", receiver.url, SECRET, recipes=["other"]),
        Webhook("all", receiver.url, SECRET),
    ]
    feeder = Feeder(kizu, outbox, receivers)
    feeder.look()
    for grey in (50, 200):
        inspect(kizu, grey)
    feeder.look()
    assert [outbox.waiting()[one.name] for one in receivers] == [1, 0, 2]
    for one in receivers:
        one.close()


def test_what_is_not_taken_in_whole_is_not_taken_in(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    outbox.take_in([Letter("1", "{}", ("mes",))], 1)

    def letters():
        yield Letter("2", "{}", ("mes",))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        outbox.take_in(letters(), 2)
    assert (outbox.after, outbox.waiting()["mes"]) == (1, 1)


@contextmanager
def watching(folder, kizu):
    stop = threading.Event()
    thread = threading.Thread(target=folder.run, args=(kizu, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def said(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())


def test_images_in_a_folder_are_inspected_and_put_away(kizu, tmp_path):
    place = tmp_path / "drop"
    place.mkdir()
    part = re.compile("(?P<part>[^_]+)_")
    folder = Folder("station3", place, "cap", part=part, settled_s=0.1)
    (place / "A7_top.png").write_bytes(image(50))
    (place / "A8_top.PNG").write_bytes(image(200))
    (place / "broken.jpg").write_bytes(b"none")
    (place / "notes.txt").write_text("no image")
    with watching(folder, kizu):
        until(lambda: (place / "done" / "A7_top.png").exists())
        (place / "A7_top.png").write_bytes(image(60))  # another one of that name
        until(lambda: len(list((place / "done").glob("*.json"))) == 3)
        until(lambda: (place / "failed" / "broken.jpg").exists())
    assert (place / "done" / "A7_top.png").read_bytes() == image(50)
    good = said(place / "done" / "A7_top.png")
    assert (good["verdict"], good["part_id"], good["camera"]) == ("ok", "A7", "station3")
    assert said(place / "done" / "A8_top.PNG")["verdict"] == "ng"
    assert said(place / "failed" / "broken.jpg")["verdict"] == "error"
    assert (place / "notes.txt").exists()
    assert len(kizu.list_inspections().items) == 3


def test_an_image_that_is_still_written_waits(kizu, tmp_path):
    place = tmp_path / "drop"
    place.mkdir()
    data = image(50)
    slow = place / "slow.png"
    with watching(Folder("a", place, "cap", settled_s=0.8), kizu):
        for end in range(0, len(data), max(1, len(data) // 8)):
            slow.write_bytes(data[:end])
            time.sleep(0.2)
        slow.write_bytes(data)
        until(lambda: (place / "done" / "slow.png").exists())
    assert not (place / "failed").exists()


def test_an_image_that_was_inspected_and_not_put_away_is_not_inspected_again(kizu, tmp_path):
    place = tmp_path / "drop"
    place.mkdir()
    (place / "a.png").write_bytes(image(50))
    with watching(Folder("a", place, "cap", settled_s=0.1), kizu):
        until(lambda: (place / "done" / "a.png").exists())
    first = said(place / "done" / "a.png")
    (place / "done" / "a.png").replace(place / "a.png")  # as if its power had been cut
    with watching(Folder("a", place, "cap", settled_s=0.1), kizu):
        until(lambda: (place / "done" / "a.png").exists())
    assert said(place / "done" / "a.png")["id"] == first["id"]
    assert len(kizu.list_inspections().items) == 1


def test_what_comes_under_a_name_meanwhile_is_another_image(kizu, tmp_path, monkeypatch):
    """A station that writes to one name again and again: no verdict is another image's."""
    place = tmp_path / "drop"
    place.mkdir()
    latest = place / "latest.png"
    real = Kizu.inspect

    def slow(self, data, **given):
        if data == image(50):
            latest.write_bytes(image(200))  # while the good one is inspected
        return real(self, data, **given)

    monkeypatch.setattr(Kizu, "inspect", slow)
    latest.write_bytes(image(50))
    with watching(Folder("a", place, "cap", settled_s=0.1), kizu):
        until(lambda: len(list((place / "done").glob("*.json"))) == 2)
        until(lambda: len(list((place / "done").glob("*.png"))) == 2)
    found = {path.read_bytes(): said(path)["verdict"] for path in (place / "done").glob("*.png")}
    assert found == {image(50): "ok", image(200): "ng"}


def test_images_wait_for_a_recipe_that_is_not_there_yet(kizu, tmp_path):
    place = tmp_path / "drop"
    place.mkdir()
    (place / "a.png").write_bytes(image(50))
    folder = Folder("a", place, "later", settled_s=0.1)
    with watching(folder, kizu):
        until(lambda: folder._waiting)
    assert [path.name for path in (place / "inspecting").iterdir()] == ["a.png"]
    assert not (place / "failed").exists()


def test_a_service_that_begins_anew_is_followed(kizu, receiver, tmp_path):
    """Restored from a backup, its numbers are smaller than those that were here."""
    outbox = Outbox(tmp_path / "outbox")
    webhook = Webhook("mes", receiver.url, SECRET)
    outbox.take_in([], 1000)
    feeder = Feeder(kizu, outbox, [webhook])
    feeder.look()
    id = inspect(kizu, 50)
    feeder.look()
    assert [one.id for one in outbox.oldest("mes", 9)] == [id]
    webhook.close()


def test_images_stay_while_the_service_is_away(tmp_path):
    place = tmp_path / "drop"
    place.mkdir()
    (place / "a.png").write_bytes(image(50))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    folder = Folder("a", place, "cap", settled_s=0.1)
    with Kizu(f"http://127.0.0.1:{port}", patience_s=0.1) as nobody, watching(folder, nobody):
        until(lambda: folder._waiting)
    assert [path.name for path in (place / "inspecting").iterdir()] == ["a.png"]


@pytest.fixture
def broker(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("needs mosquitto: apt-get install mosquitto")
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


def test_a_broker_that_is_away_gets_all_of_it_later_in_order(kizu, broker, tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    mqtt = Mqtt("scada", "127.0.0.1", port=broker.port, topic="plant/line1")
    feeder = Feeder(kizu, outbox, [mqtt])
    feeder.look()
    with carrying(outbox, mqtt):
        ids = [inspect(kizu, 50, camera="top/left")]
        feeder.look()
        broker.wait(lambda it: len(it.results()) == 1)
        broker.stop()
        ids += [inspect(kizu, grey, camera="top/left") for grey in (60, 70, 200)]
        feeder.look()
        broker.start()
        broker.wait(lambda it: len({said["id"] for _, said in it.results()}) == 4)
    first_time = dict.fromkeys(said["id"] for _, said in broker.results())
    assert list(first_time) == ids
    assert {topic for topic, _ in broker.results()} == {"plant/line1/cap/top_left/result"}
    assert outbox.waiting()["scada"] == 0


def test_who_reads_the_state_knows_whether_anybody_sends(broker, tmp_path):
    mqtt = Mqtt("scada", "127.0.0.1", port=broker.port)
    with carrying(Outbox(tmp_path / "outbox"), mqtt):
        broker.wait(lambda it: it.states()[-1:] == ["online"])
        mqtt._client.socket().shutdown(socket.SHUT_RDWR)  # a cable is pulled
        broker.wait(lambda it: it.states()[-1:] == ["offline"])
        broker.wait(lambda it: it.states()[-1:] == ["online"])
    broker.wait(lambda it: it.states()[-1:] == ["offline"])


def webhook_lines(receiver, tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return f"""
        [[webhook]]
        name = "mes"
        url = "{receiver.url}"
        secret_file = "{tmp_path}/secret"
    """


def test_the_command_passes_on_what_its_file_says(kizu, receiver, broker, tmp_path):
    (tmp_path / "connect.toml").write_text(
        f"""
        outbox = "{tmp_path}/outbox/box"
        [service]
        url = "{kizu._http.base_url}"
        {webhook_lines(receiver, tmp_path)}
        verdicts = ["ng"]
        [[mqtt]]
        name = "scada"
        host = "127.0.0.1"
        port = {broker.port}
        """
    )
    program = Path(sys.executable).parent / "kizu"
    process = subprocess.Popen([program, "connect", tmp_path / "connect.toml"])
    try:
        broker.wait(lambda it: it.states() == ["online"])
        box = Outbox(tmp_path / "outbox" / "box")
        until(lambda: box.after is not None)
        ids = [inspect(kizu, grey) for grey in (50, 200)]
        broker.wait(lambda it: len(it.results()) == 2)
        receiver.wait(lambda it: len(it.got) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert [said["id"] for _, said in broker.results()] == ids
    assert receiver.got[0][0] == ids[1]
    broker.wait(lambda it: it.states()[-1] == "offline")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing to connect"),
        ("[[webhook]]\nname='a'\nurl='http://x'\nsecret_file='/dev/null'", "needs 24"),
        ("[[folder]]\nname='a'\nrecipe='cap'\npath='/'\npart='(.*)'", r"no group \(\?P<part>"),
        ("[[folder]]\nname='a'\nrecipe='cap'\npath='/'\npart='('", "folder.0.part"),
        ("webhook = 1", "webhook"),
        ("[[webhook]]\nname='a'\nurl='ftp://x'\nsecret_file='s'", "webhook.0.url"),
        ("[[webhook]]\nname='a'\nurl='http://x'\nsecret_file='none'", "none cannot be read"),
        ("[[mqtt]]\nname='a'\nhost='x'\n[[mqtt]]\nname='a'\nhost='y'", "one name"),
        ("[[mqtt]]\nname='a'\nhost='x'\nportt=1", "portt"),
        ("[", "cannot be read"),
    ],
)
def test_a_file_that_says_nothing_useful_is_refused(tmp_path, text, says):
    file = tmp_path / "connect.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        connect(read_connect_settings(file), threading.Event())


@pytest.fixture
def file(kizu, receiver, tmp_path):
    """Of a command that passes on to the receiver."""
    file = tmp_path / "connect.toml"
    file.write_text(
        f"""
        outbox = "{tmp_path}/box"
        [service]
        url = "{kizu._http.base_url}"
        {webhook_lines(receiver, tmp_path)}
        """
    )
    return file


def test_one_that_fails_ends_all_and_says_why(file, tmp_path):
    settings = read_connect_settings(file)
    ended = threading.Event()

    def spoil():
        until(lambda: (tmp_path / "box").exists())
        while not ended.wait(0.05):  # what was on its way to it may mend it
            (tmp_path / "box").write_bytes(b"no database" * 1000)

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    try:
        with pytest.raises(sqlite3.DatabaseError):
            connect(settings, threading.Event())
    finally:
        ended.set()
        spoiler.join()


def test_a_drive_that_is_away_is_waited_for(kizu, tmp_path):
    place = tmp_path / "drop"
    folder = Folder("a", place, "cap", settled_s=0.1)
    with watching(folder, kizu):
        until(lambda: folder._waiting)
        place.mkdir()
        (place / "a.png").write_bytes(image(50))
        until(lambda: (place / "done" / "a.png").exists())


def test_what_waits_is_told_to_whoever_measures(kizu, receiver, tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    webhook = Webhook("mes", receiver.url, SECRET)
    folder = Folder("station3", tmp_path, "later", settled_s=0.1)
    feeder = Feeder(kizu, outbox, [webhook])
    feeder.look()
    receiver.status = 503
    ids = [inspect(kizu, grey) for grey in (50, 60)]
    feeder.look()
    (tmp_path / "a.png").write_bytes(image(50))
    with ConnectMetrics(outbox, feeder, [webhook], [folder]).served("127.0.0.1", 0) as port:

        def asked():
            said = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
            return dict(line.rsplit(" ", 1) for line in said.splitlines() if line[0] != "#")

        with watching(folder, kizu):
            until(lambda: asked()['kizu_connect_waiting_images{folder="station3"}'] == "1.0")
        found = asked()
        assert found['kizu_connect_waiting_results{receiver="mes"}'] == "2.0"
        assert found['kizu_connect_received_total{receiver="mes"}'] == "0.0"
        assert found["kizu_connect_service_answers"] == "1.0"
        receiver.status = 200
        with carrying(outbox, webhook):
            receiver.wait(lambda it: len(it.got) == len(ids))
            until(lambda: asked()['kizu_connect_waiting_results{receiver="mes"}'] == "0.0")
        assert asked()['kizu_connect_received_total{receiver="mes"}'] == "2.0"


def test_two_do_not_work_with_one_outbox(file):
    settings = read_connect_settings(file)
    with (
        Outbox(settings.outbox).held(),
        pytest.raises(OutboxHeld, match="Another kizu connect passes on"),
    ):
        connect(settings, threading.Event())


def test_what_waits_for_nobody_is_kept_until_somebody_says_so(file):
    settings = read_connect_settings(file)
    outbox = Outbox(settings.outbox)
    outbox.take_in([Letter("1", "{}", ("mes", "old")), Letter("2", "{}", ("old",))], 2)
    with pytest.raises(SettingsError, match="mes is to have what waits for it"):
        forget(settings, "mes")
    ended = threading.Event()
    ended.set()
    with capture_logs() as logs:
        connect(settings, ended)
    [said] = [one for one in logs if one.get("receiver")]
    assert (said["receiver"], said["waiting"]) == ("old", 2)
    assert "kizu connect FILE --forget old" in said["remedy"]
    program = Path(sys.executable).parent / "kizu"
    done = subprocess.run(
        [program, "connect", file, "--forget", "old"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 results for old are thrown away.\n"
    assert outbox.waiting() == {"mes": 1}


def test_an_address_that_is_taken_is_said(file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(f"{file.read_text()}\n[metrics]\nport = {port}")
        with pytest.raises(SettingsError, match=f"Nobody can be answered at 127.0.0.1:{port}"):
            connect(read_connect_settings(file), threading.Event())
