"""A real MQTT broker, and somebody who hears all that is published there."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


class Broker:
    """Mosquitto, which keeps what its listener has not heard yet, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)  # it becomes another user
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self.heard: list[tuple[str, Any]] = []
        self.news = threading.Condition()

    def start(self) -> None:
        """It listens, and is listened to."""
        assert MOSQUITTO
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._conf], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr
        next(line for line in self._process.stderr if "running" in line)
        self._listener = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False
        )
        subscribed = threading.Event()
        self._listener.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._listener.on_subscribe = lambda *_: subscribed.set()
        self._listener.on_message = self._hear
        self._listener.connect("127.0.0.1", self.port)
        self._listener.loop_start()
        assert subscribed.wait(60)

    def stop(self) -> None:
        """As a computer that is shut down."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stderr
        self._process.stderr.close()
        self._listener.disconnect()
        self._listener.loop_stop()

    def _hear(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        with self.news:
            self.heard.append((message.topic, json.loads(message.payload)))
            self.news.notify_all()

    def results(self) -> list[tuple[str, Any]]:
        """Topic and result, in the order in which they came."""
        return [(topic, said) for topic, said in self.heard if topic.endswith("/result")]

    def states(self) -> list[str]:
        """Who sends: `online`, `offline`."""
        return [said["state"] for topic, said in self.heard if topic.endswith("/state")]

    def wait(self, holds: Callable[["Broker"], bool], seconds: float = 60) -> None:
        """Until something holds."""
        with self.news:
            assert self.news.wait_for(lambda: holds(self), seconds), self.heard[-20:]
