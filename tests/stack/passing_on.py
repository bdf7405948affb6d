"""Results on their way out of the stack, to a webhook's receiver on this host and to a client of
OPC UA; and images that a station drops."""

import asyncio
import json
import logging
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from asyncua import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from service.connectors.vision_system import NAMESPACE
from service.schemas import InspectionResult
from tests.receiver import SECRET, Receiver
from tests.stack.stack import (
    DEPLOY,
    PATIENCE_S,
    PORTS,
    PROJECT,
    Stack,
    hold,
    podman,
    wait_for,
)

CONNECTORS = DEPLOY.parent / "service" / "CONNECTORS.md"
OPCUA = f"opc.tcp://127.0.0.1:{PORTS['KIZU_OPCUA_PORT']}"
KIZU = 10001  # the containers' user
_NEWS_S = 1.0


class PassingOn:
    """The folders of `connect`, made as the README of `deploy` says, and what came of it."""

    def __init__(self, stack: Stack, receiver: Receiver) -> None:
        self._receiver = receiver
        self._folder, self._station = stack.connect, stack.drop / "station3"
        self._folder.mkdir(mode=0o700)
        self._station.mkdir(parents=True)
        self._password = secrets.token_urlsafe(18)
        key = stack.execute("service", "kizu", "key", "add", "connect", "--role", "operator")
        for name, content in (
            ("connect.toml", _example(receiver.url)),
            ("kizu.key", key),
            ("mes.secret", SECRET),
            ("plc.password", self._password),
        ):
            (self._folder / name).write_text(content)
        [command] = re.findall(r"^openssl req -x509 .*?[^\\]$", CONNECTORS.read_text(), re.M | re.S)
        subprocess.run(
            ["bash", "-c", command], cwd=self._folder, check=True, stderr=subprocess.DEVNULL
        )
        for path in (self._folder, *self._folder.iterdir(), stack.drop, self._station):
            os.chown(path, KIZU, KIZU)

    @property
    def ids(self) -> list[str]:
        """What came, each once, in the order in which it did."""
        return list(dict.fromkeys(id for id, _ in list(self._receiver.got)))

    def waits(self, holds: Callable[[], bool]) -> bool:
        """Whether it holds, or does once something came."""
        with self._receiver.news:
            return self._receiver.news.wait_for(holds, _NEWS_S)

    def has_all(self, newest_first: Iterable[str]) -> bool:
        """Whether the receiver has these, beginning with the first that ever came, in their
        order, and no others."""
        inspected = list(newest_first)[::-1]
        ids = self.ids
        return ids == inspected[inspected.index(ids[0]) :]

    def drop(self, name: str, image: bytes) -> str:
        """As a station does; the verdict."""
        (self._station / name).write_bytes(image)
        said = self._station / "done" / f"{name}.json"
        wait_for(said.exists, "The image that was dropped was not inspected")
        return json.loads(said.read_text())["verdict"]

    def opcua_shows(self, result: InspectionResult) -> bool:
        """As the latest of its camera, to who asks this host."""
        return asyncio.run(self._shows(result))

    async def _shows(self, result: InspectionResult) -> bool:
        # It would say each time that the client's certificate, which is the server's, is another's.
        logging.getLogger("asyncua").setLevel(logging.ERROR)
        client = Client(OPCUA, timeout=PATIENCE_S)
        pair = self._folder / "opcua.pem", self._folder / "opcua-key.pem"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await client.set_security(SecurityPolicyBasic256Sha256, *pair)
                    break
                except OSError:  # not yet
                    await asyncio.sleep(0.1)
        client.set_user("plc")
        client.set_password(self._password)
        async with client:
            [endpoint] = await client.get_endpoints()
            hold(
                endpoint.EndpointUrl == OPCUA, f"its OPC UA server is {OPCUA}, as it was asked for"
            )
            index = await client.get_namespace_index(NAMESPACE)

            async def value(path: str) -> Any:
                node = client.get_node(f"ns={index};s=VisionSystem/{path}")
                return (await node.read_data_value(raise_on_bad_status=False)).Value.Value

            management = "ResultManagement"
            latest = f"{management}/Results/{result.recipe_id}/{result.camera}"
            async with asyncio.timeout(PATIENCE_S):
                while await value("VisionStateMachine/CurrentState") != "Operational" or (
                    await value(f"{latest}/ResultId") != result.id
                ):
                    await asyncio.sleep(0.1)
            methods = client.get_node(f"ns={index};s=VisionSystem/{management}")
            fetched = await methods.call_method(f"{index}:GetResultById", result.id)
            return await value(f"{latest}/Verdict") == result.verdict and result.id in fetched


@contextmanager
def passing_on(stack: Stack) -> Iterator[PassingOn]:
    """With a receiver that is there all the time."""
    [plant] = json.loads(podman("network", "inspect", f"{PROJECT}_plant"))
    receiver = Receiver(plant["subnets"][0]["gateway"])
    try:
        yield PassingOn(stack, receiver)
    finally:
        receiver.stop()


def _example(receiver: str) -> str:
    """The example's file with all that it shows as a comment, but for the broker: there is none."""
    text = re.sub(r"(?m)^# (?=\[|\w+ = )", "", (DEPLOY / "connect.example.toml").read_text())
    text = re.sub(r"(?ms)^\[\[mqtt\]\].*?\n\n", "", text)
    text = text.replace("https://mes.plant/kizu", receiver)
    return text.replace('verdicts = ["ng", "review"]\n', "")
