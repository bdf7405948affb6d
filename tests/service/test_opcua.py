"""Results by OPC UA, as a client sees them: what there is, who may come in, and what becomes of it
when something goes away."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from service.app import create_app
from service.client import AsyncKizu, Kizu
from service.connectors import vision_system
from service.connectors.certificate import read_certificate
from service.connectors.connect import connect
from service.connectors.feeder import Feeder
from service.connectors.opcua import OpcUa
from service.connectors.outbox import Outbox
from service.connectors.receiver import NotReceived
from service.connectors.settings import read_connect_settings
from service.connectors.vision_system import NAMESPACE, RESULT
from service.engine import FakeEngine
from service.errors import EngineFailure
from service.schemas import InspectionResult
from service.settings import Settings, SettingsError
from tests.grey_line import carrying, grey_line, inspect
from tests.grey_parts import write_version
from tests.listening import listening
from tests.waiting import until

CONNECTORS = Path(__file__).parents[2] / "service" / "CONNECTORS.md"
PASSWORD = "correct horse battery"
STATE = "VisionSystem/VisionStateMachine/CurrentState"
RESULTS = "VisionSystem/ResultManagement/Results"
NEVER = datetime(1601, 1, 1, tzinfo=UTC)  # OPC UA's time that is none
PATIENCE_S = 20


@dataclass
class Station:
    """An OPC UA server that is running, and what fills it."""

    url: str
    kizu: Kizu
    outbox: Outbox
    feeder: Feeder

    def inspect(self, grey, **given):
        """Have a part inspected, and pass its result on."""
        id = inspect(self.kizu, grey, **given)
        self.feeder.look()
        return id

    @property
    def passed_on(self):
        return self.outbox.waiting()["plc"] == 0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def station(kizu, folder, **given):
    """One that is begun again, in the same folder, has what waited for it."""
    given = {"port": free_port(), **given}
    address = str(kizu._http.base_url)
    opcua = OpcUa("plc", AsyncKizu(address, patience_s=0, timeout_s=5), **given)
    outbox = Outbox(folder / "outbox")
    feeder = Feeder(kizu, outbox, [opcua])
    feeder.look()
    with carrying(outbox, opcua):
        until(lambda: opcua._open is not None)
        yield Station(f"opc.tcp://127.0.0.1:{given['port']}", kizu, outbox, feeder)


class Ear:
    """Somebody who listens. asyncua keeps the order for what is called without waiting."""

    def __init__(self):
        self._heard = asyncio.Queue()

    def event_notification(self, event):
        self._heard.put_nowait(event)

    def datachange_notification(self, node, value, data):
        self._heard.put_nowait((value, data.monitored_item.Value.StatusCode))

    async def next(self):
        return await asyncio.wait_for(self._heard.get(), PATIENCE_S)

    async def wait(self, holds):
        while not holds(heard := await self.next()):
            pass
        return heard


class Visitor:
    """A client, and what it finds by its names."""

    def __init__(self, client, namespace):
        self.client = client
        self._namespace = namespace

    def node(self, path):
        return self.client.get_node(ua.NodeId(path, self._namespace))

    async def found(self, path):
        """A value with its quality and its time; also one that is not good."""
        return await self.node(path).read_data_value(raise_on_bad_status=False)

    async def value(self, path):
        return (await self.found(path)).Value.Value

    async def call(self, method, *given):
        parent = self.node("VisionSystem/ResultManagement")
        return await parent.call_method(f"{self._namespace}:{method}", *given)

    async def listen(self, *paths):
        ear = Ear()
        subscription = await self.client.create_subscription(50, ear)
        await subscription.subscribe_data_change([self.node(path) for path in paths])
        return ear

    async def listen_to_events(self, at):
        ear = Ear()
        subscription = await self.client.create_subscription(50, ear)
        await subscription.subscribe_events(at, self.node("ResultReadyEventType"))
        return ear

    async def list(self, *, part="", recipe="", verdict="", since=NEVER, most=0, before=""):
        return await self.call(
            "GetResultListFiltered", part, "", recipe, "", verdict, since, NEVER,
            ua.Variant(most, ua.VariantType.UInt32), before,
        )  # fmt: skip


@asynccontextmanager
async def visiting(url, *, user=None, password=None, files=None):
    client = Client(url, timeout=PATIENCE_S)
    if files:
        await client.set_security(SecurityPolicyBasic256Sha256, *files)
    if user:
        client.set_user(user)
        client.set_password(password)
    async with client:
        yield Visitor(client, await client.get_namespace_index(NAMESPACE))


def test_all_there_is_stands_at_its_place(kizu, tmp_path):
    async def visit(here):
        async with visiting(here.url) as it:
            ear = await it.listen(STATE)
            assert await ear.wait(lambda heard: heard[0] == "Operational")
            place = await it.client.nodes.objects.get_child(
                [f"2:{name}" for name in ("VisionSystem", "RecipeManagement", "Recipes", "cap")]
            )
            assert place == it.node("VisionSystem/RecipeManagement/Recipes/cap")
            recipe = place.nodeid.Identifier
            assert await it.value(f"{recipe}/ExternalId") == "cap"
            assert await it.value(f"{recipe}/InternalId") == "cap/1"
            assert await it.value(f"{recipe}/BundleVersion") == 1
            assert await it.node(RESULTS).get_children() == []
            assert (await it.found(STATE)).StatusCode.is_good()
            beat = await it.listen("VisionSystem/VisionStateMachine/Heartbeat")
            first, _ = await beat.next()
            assert (await beat.next())[0] > first

    with station(kizu, tmp_path) as here:
        asyncio.run(visit(here))


def test_each_result_is_an_event_in_order(kizu, tmp_path):
    async def visit(here):
        async with visiting(here.url) as it:
            place = it.node("VisionSystem/ResultManagement")
            ears = [await it.listen_to_events(at) for at in (it.client.nodes.server, place)]
            greys = [50, 60, 125, 200, 70, 80, 201, 90]
            ids = [here.inspect(grey, part_id=f"A{grey}", lot="L1") for grey in greys]
            events, same = [[await ear.next() for _ in greys] for ear in ears]
        assert [event.ResultId for event in same] == ids
        assert [event.ResultId for event in events] == ids
        assert [event.PartId for event in events] == [f"A{grey}" for grey in greys]
        assert [event.Verdict for event in events][:4] == ["ok", "ok", "review", "ng"]
        last = events[-1]
        known = kizu.get_inspection(ids[-1])
        assert InspectionResult.model_validate_json(last.ResultContent) == known
        assert last.CreationTime == last.Time == known.creation_time
        assert (last.JobId, last.ExternalRecipeId, last.InternalRecipeId) == ("L1", "cap", "cap/1")
        assert (last.ResultState, last.IsPartial, last.IsSimulated) == (1, False, False)
        assert (last.Score, last.Camera) == (known.score, None)
        assert json.loads(last.ProcessingTimes) == known.processing_times
        assert last.SourceNode == place.nodeid

    with station(kizu, tmp_path) as here:
        asyncio.run(visit(here))


def test_the_latest_result_of_each_camera_can_be_read(kizu, tmp_path):
    async def visit(here):
        async with visiting(here.url) as it:
            ear = await it.listen_to_events(it.client.nodes.server)
            ids = [
                here.inspect(grey, camera=camera, part_id="7")
                for grey, camera in ((200, "top"), (50, "a/b"), (60, None), (125, "top"))
            ]
            for _ in ids:
                await ear.next()
            for camera, id, verdict in (
                ("top", ids[3], "review"), ("a%2Fb", ids[1], "ok"), ("-", ids[2], "ok"),
            ):  # fmt: skip
                place = f"{RESULTS}/cap/{camera}"
                assert await it.value(f"{place}/ResultId") == id
                assert await it.value(f"{place}/Verdict") == verdict
                found = await it.found(f"{place}/ResultContent")
                assert json.loads(found.Value.Value)["id"] == id
                assert found.StatusCode.is_good()
                assert found.SourceTimestamp == kizu.get_inspection(id).creation_time

    with station(kizu, tmp_path, current_s=600) as here:
        asyncio.run(visit(here))


def test_what_was_missed_can_be_fetched(kizu, tmp_path):
    ids = [inspect(kizu, grey, part_id=part) for grey, part in ((50, "1"), (200, "2"), (60, "3"))]
    times = [kizu.get_inspection(id).creation_time for id in ids]

    async def visit(here):
        async with visiting(here.url) as it:
            values = await it.call("GetResultById", ids[1])
            result = dict(zip((one.name for one in RESULT), values, strict=True))
            assert (result["ResultId"], result["PartId"], result["Verdict"]) == (ids[1], "2", "ng")
            assert result["CreationTime"] == times[1]
            assert json.loads(result["ResultContent"])["id"] == ids[1]

            found, verdicts, created, contents, following = await it.list()
            assert found == ids[::-1]
            assert verdicts == ["ok", "ng", "ok"]
            assert created == times[::-1]
            assert [json.loads(one)["id"] for one in contents] == ids[::-1]
            assert not following
            assert (await it.list(verdict="ng"))[0] == [ids[1]]
            assert (await it.list(part="3", recipe="cap"))[0] == [ids[2]]
            since = times[0] + timedelta(microseconds=1)
            assert (await it.list(since=since))[0] == ids[:0:-1]
            first = await it.list(most=2)
            assert first[0] == ids[:0:-1]
            assert (await it.list(most=2, before=first[4]))[0] == ids[:1]

    with station(kizu, tmp_path) as here:
        asyncio.run(visit(here))


def test_what_is_not_there_is_said_not_to_be(kizu, tmp_path):
    async def visit(here):
        async with visiting(here.url) as it:
            for id in ("none", "../recipes", "?", "a/b", "../../health/ready"):
                with pytest.raises(ua.uaerrors.BadNotFound):
                    await it.call("GetResultById", id)
            for id in ("", 7):
                with pytest.raises(ua.uaerrors.BadInvalidArgument):
                    await it.call("GetResultById", id)
            with pytest.raises(ua.uaerrors.BadInvalidArgument):
                await it.list(verdict="perhaps")
            with pytest.raises(ua.uaerrors.BadArgumentsMissing):
                await it.call("GetResultListFiltered", "7")

    with station(kizu, tmp_path) as here:
        asyncio.run(visit(here))


def test_a_service_that_goes_away_is_an_error_until_it_is_back(tmp_path):
    write_version(tmp_path / "store")
    port = free_port()
    verdict = f"{RESULTS}/cap/top/Verdict"

    async def visit(line, service):
        async with visiting(line.url) as it:
            state = await it.listen(STATE)
            await state.wait(lambda heard: heard == ("Operational", ua.StatusCode()))
            events = await it.listen_to_events(it.client.nodes.server)
            line.inspect(50, camera="top")
            await events.next()
            shown = await it.listen(verdict, "VisionSystem/RecipeManagement/Recipes/cap/ExternalId")
            first = [await shown.next() for _ in range(2)]
            assert {value for value, _ in first} == {"ok", "cap"}
            assert all(quality.is_good() for _, quality in first)
            service.close()

            value, quality = await state.wait(lambda heard: heard[0] != "Operational")
            assert value == "Error"
            assert quality.is_uncertain()
            then = [await shown.next() for _ in range(2)]
            assert {value for value, _ in then} == {"ok", "cap"}
            assert all(quality.is_uncertain() for _, quality in then)
            with pytest.raises(ua.uaerrors.BadNoCommunication):
                await it.list()
            with grey_line(tmp_path, port) as line.kizu:
                line.feeder = Feeder(line.kizu, line.outbox, line.feeder._receivers)
                await state.wait(lambda heard: heard == ("Operational", ua.StatusCode()))
                line.inspect(200, camera="top")
                assert (await events.next()).Verdict == "ng"
                await shown.wait(lambda heard: heard == ("ng", ua.StatusCode()))

    with ExitStack() as service:
        service.enter_context(grey_line(tmp_path, port))
        kizu = service.enter_context(Kizu(f"http://127.0.0.1:{port}"))
        with station(kizu, tmp_path, current_s=600) as line:
            asyncio.run(visit(line, service))


def test_a_service_with_nothing_to_inspect_with_is_not_operational_yet(tmp_path):
    (tmp_path / "store").mkdir()

    async def visit(here):
        async with visiting(here.url) as it:
            ear = await it.listen(STATE)
            await ear.wait(lambda heard: heard == ("Preoperational", ua.StatusCode()))
            write_version(tmp_path / "store")
            await ear.wait(lambda heard: heard == ("Operational", ua.StatusCode()))

    with grey_line(tmp_path) as kizu, station(kizu, tmp_path) as here:
        asyncio.run(visit(here))


def test_a_device_that_is_lost_is_an_error(tmp_path):
    write_version(tmp_path / "store")

    class Failing(FakeEngine):
        failing = False

        def run(self, images):
            if self.failing:
                raise EngineFailure("The bus has fallen off.")
            return super().run(images)

    engine = Failing()
    settings = Settings(
        store=tmp_path / "store", data=tmp_path / "data", canary_seconds=0.2, hang_seconds=2
    )
    app = create_app(settings, open_engine=lambda bundle: engine)

    async def visit(here):
        async with visiting(here.url) as it:
            ear = await it.listen(STATE)
            await ear.wait(lambda heard: heard == ("Operational", ua.StatusCode()))
            engine.failing = True
            await ear.wait(lambda heard: heard == ("Error", ua.StatusCode()))

    with (
        listening(app) as (host, port),
        Kizu(f"http://{host}:{port}") as kizu,
        station(kizu, tmp_path) as here,
    ):
        asyncio.run(visit(here))


def test_an_old_result_is_not_taken_for_a_new_one(kizu, tmp_path):
    async def visit(here):
        async with visiting(here.url) as it:
            events = await it.listen_to_events(it.client.nodes.server)
            here.inspect(50, camera="top")
            await events.next()
            ear = await it.listen(f"{RESULTS}/cap/top/Verdict")
            value, quality = await ear.wait(lambda heard: not heard[1].is_good())
            assert value == "ok"
            assert quality.name == "UncertainLastUsableValue"
            assert await it.value(STATE) == "Operational"

    with station(kizu, tmp_path, current_s=2) as here:
        asyncio.run(visit(here))


def test_what_waited_while_nobody_ran_is_there_after_the_start_and_not_current(kizu, tmp_path):
    with station(kizu, tmp_path):
        pass
    outbox = Outbox(tmp_path / "outbox")
    away = OpcUa("plc", AsyncKizu("http://127.0.0.1:9"))
    ids = [inspect(kizu, grey, camera="top") for grey in (50, 60, 200)]
    Feeder(kizu, outbox, [away]).look()
    assert outbox.waiting()["plc"] == 3

    async def visit(here):
        async with visiting(here.url) as it:
            assert await it.value(f"{RESULTS}/cap/top/ResultId") == ids[2]
            ear = await it.listen(STATE)
            await ear.wait(lambda heard: heard == ("Operational", ua.StatusCode()))
            assert (await it.found(f"{RESULTS}/cap/top/Verdict")).StatusCode.is_uncertain()
            assert (await it.list())[0] == ids[::-1]

    with station(kizu, tmp_path, current_s=0.001) as here:
        until(lambda: here.passed_on)
        asyncio.run(visit(here))


def test_clients_are_told_of_the_end(kizu, tmp_path):
    ended = threading.Event()

    async def visit(url, ready):
        async with Client(url, timeout=PATIENCE_S) as client:
            it = Visitor(client, await client.get_namespace_index(NAMESPACE))
            ear = await it.listen(STATE)
            await ear.wait(lambda heard: heard[0] == "Operational")
            ready.set()
            assert (await ear.wait(lambda heard: heard[0] != "Operational"))[0] == "Halted"
        ended.set()

    ready = threading.Event()
    with station(kizu, tmp_path) as here:
        thread = threading.Thread(target=lambda: asyncio.run(visit(here.url, ready)))
        thread.start()
        assert ready.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert ended.is_set()


def test_only_so_many_cameras_are_shown(kizu, tmp_path, monkeypatch):
    monkeypatch.setattr(vision_system, "MOST", 2)

    async def visit(here):
        async with visiting(here.url) as it:
            ear = await it.listen_to_events(it.client.nodes.server)
            for camera in ("a", "b", "a", "c"):
                here.inspect(50, camera=camera)
                await ear.next()
            shown = await it.node(f"{RESULTS}/cap").get_children()
            assert {(await one.read_browse_name()).Name for one in shown} == {"a", "c"}

    with station(kizu, tmp_path) as here:
        asyncio.run(visit(here))


def test_a_port_that_is_taken_is_waited_for(kizu, tmp_path):
    refused = threading.Event()

    class Watched(OpcUa):
        def send(self, messages):
            try:
                super().send(messages)
            except NotReceived:
                refused.set()
                raise

    with ExitStack() as taking:
        taken = taking.enter_context(socket.create_server(("127.0.0.1", 0)))
        ask = AsyncKizu(str(kizu._http.base_url), patience_s=0)
        opcua = Watched("plc", ask, port=taken.getsockname()[1])
        outbox = Outbox(tmp_path / "outbox")
        feeder = Feeder(kizu, outbox, [opcua])
        feeder.look()
        inspect(kizu, 50)
        feeder.look()
        with carrying(outbox, opcua):
            assert refused.wait(PATIENCE_S)
            assert outbox.waiting()["plc"] == 1
            taking.close()
            until(lambda: outbox.waiting()["plc"] == 0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate and its key, of the server and of its clients, made as its page says."""
    folder = tmp_path_factory.mktemp("opcua")
    [command] = re.findall(
        r"^openssl req -x509 .*?[^\\]$", CONNECTORS.read_text("utf-8"), re.M | re.S
    )
    subprocess.run(["bash", "-c", command], cwd=folder, check=True, capture_output=True)
    return folder / "opcua.pem", folder / "opcua-key.pem"


@pytest.fixture
def secured(kizu, pair, tmp_path):
    given = {"users": {"plc": PASSWORD}, "certificate": read_certificate(*pair)}
    with station(kizu, tmp_path, **given) as here:
        yield here


def test_who_is_known_comes_in_encrypted(secured, pair):
    async def visit():
        async with visiting(secured.url, user="plc", password=PASSWORD, files=pair) as it:
            ear = await it.listen_to_events(it.client.nodes.server)
            id = secured.inspect(50)
            assert (await ear.next()).ResultId == id
            assert (await it.list())[0] == [id]
            [endpoint] = await it.client.get_endpoints()
            assert endpoint.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt
            assert endpoint.SecurityPolicyUri == SecurityPolicyBasic256Sha256.URI
            assert [one.TokenType for one in endpoint.UserIdentityTokens] == [
                ua.UserTokenType.UserName
            ]
            assert endpoint.Server.ApplicationUri == "urn:kizu:line1"

    asyncio.run(visit())


def test_who_is_not_known_does_not_come_in(secured, pair):
    async def visit():
        for user, password in (
            ("plc", "another password"), ("plc", ""), ("admin", PASSWORD), ("plc ", PASSWORD),
            ("none", ""),
        ):  # fmt: skip
            with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                async with visiting(secured.url, user=user, password=password, files=pair):
                    pass

    asyncio.run(visit())


@asynccontextmanager
async def stranger(url, *, session=True):
    """Somebody on a channel without encryption, which anybody is given to ask how to come in; and
    who goes on without having been told."""
    client = Client(url, timeout=PATIENCE_S)
    await client.connect_socket()
    try:
        await client.send_hello()
        await client.open_secure_channel()
        if session:
            params = ua.CreateSessionParameters(
                EndpointUrl=url, ClientNonce=b"0" * 32, RequestedSessionTimeout=60_000
            )
            await client.uaclient.create_session(params)
        yield client
    finally:
        client.disconnect_socket()


def reading():
    read = ua.ReadValueId(ua.NodeId(ua.ObjectIds.Server_NamespaceArray), ua.AttributeIds.Value)
    return ua.ReadParameters(NodesToRead=[read])


USER = ua.UserNameIdentityToken("username", "plc", PASSWORD.encode())


def test_without_encryption_nobody_comes_in(secured):
    tokens = (
        ua.AnonymousIdentityToken("anonymous"), USER,
        ua.X509IdentityToken("certificate", b"none"),
    )  # fmt: skip

    async def visit():
        for token in tokens:
            async with stranger(secured.url) as client:
                params = ua.ActivateSessionParameters(UserIdentityToken=token)
                with pytest.raises(ua.UaStatusCodeError) as refused:
                    await client.uaclient.activate_session(params)
                assert refused.value.code in (
                    ua.StatusCodes.BadIdentityTokenRejected, ua.StatusCodes.BadUserAccessDenied,
                )  # fmt: skip
                with pytest.raises(ua.uaerrors.BadSessionNotActivated):
                    await client.uaclient.read(reading())

    asyncio.run(visit())


def test_nobody_takes_over_the_session_of_another(secured, pair):
    async def visit():
        async with visiting(secured.url, user="plc", password=PASSWORD, files=pair) as it:
            number = it.client.uaclient.protocol.authentication_token
            async with stranger(secured.url, session=False) as client:
                client.uaclient.protocol.authentication_token = number
                params = ua.ActivateSessionParameters(UserIdentityToken=USER)
                with pytest.raises(ua.uaerrors.BadSessionIdInvalid):
                    await client.uaclient.activate_session(params)
                with pytest.raises(ua.UaStatusCodeError):
                    await client.uaclient.read(reading())
            assert await it.value(STATE) in ("Operational", "Preoperational", "Error")

    asyncio.run(visit())


def test_nobody_adds_a_server(secured):
    async def visit():
        async with stranger(secured.url, session=False) as client:
            server = ua.RegisteredServer(ServerUri="urn:other", ServerNames=[ua.LocalizedText("x")])
            with pytest.raises(ua.uaerrors.BadServiceUnsupported):
                await client.uaclient.register_server(server)
            assert len(await client.find_servers()) == 1

    asyncio.run(visit())


@pytest.mark.parametrize("user", [None, "admin"])
def test_nobody_changes_anything(kizu, tmp_path, user):
    async def visit(here):
        async with visiting(here.url) as it:
            state = it.node(STATE)
            with pytest.raises(ua.UaStatusCodeError):
                await state.write_value("Operational")
            with pytest.raises(ua.UaStatusCodeError):
                await it.client.nodes.objects.add_object(2, "another")
            with pytest.raises(ua.UaStatusCodeError):
                await it.client.delete_nodes([it.node("VisionSystem")])

    given = {"users": {user: PASSWORD}} if user else {}
    with station(kizu, tmp_path, **given) as here:
        if user:
            with pytest.raises(ua.UaError):
                asyncio.run(visit(here))
        else:
            asyncio.run(visit(here))


def lines(url, port, more=""):
    return f'[service]\nurl = "{url}"\n[[opcua]]\nname = "plc"\nport = {port}\n{more}'


def test_the_command_serves_what_its_file_says(kizu, pair, tmp_path):
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    port = free_port()
    text = lines(
        kizu._http.base_url, port,
        f'certificate = "{pair[0]}"\nprivate_key = "{pair[1]}"\nbind = "0.0.0.0"\n'
        f'users = [{{ username = "plc", password_file = "{tmp_path}/password" }}]\n',
    )  # fmt: skip
    (tmp_path / "connect.toml").write_text(f'outbox = "{tmp_path}/box"\n{text}')
    program = Path(sys.executable).parent / "kizu"
    process = subprocess.Popen(
        [program, "connect", tmp_path / "connect.toml"], stderr=subprocess.PIPE, text=True
    )

    async def visit():
        url = f"opc.tcp://127.0.0.1:{port}"
        async with visiting(url, user="plc", password=PASSWORD, files=pair) as it:
            ear = await it.listen_to_events(it.client.nodes.server)
            id = inspect(kizu, 200)
            assert (await ear.next()).ResultId == id

    try:
        next(line for line in process.stderr if '"listening"' in line)
        box = Outbox(tmp_path / "box")
        until(lambda: box.after is not None)
        asyncio.run(visit())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('bind = "0.0.0.0"', "by anybody"),
        ('bind = "192.0.2.7"\nusers = [{ username = "a", password_file = "p" }]', "by anybody"),
        ('bind = "0.0.0.0"\ncertificate = "c"\nprivate_key = "k"', "by anybody"),
        ('certificate = "c"', "go together"),
        ('certificate = "none"\nprivate_key = "none"', "none cannot be read"),
        ('users = [{ username = "a", password_file = "{here}/short" }]', "5 characters"),
        ('users = [{ username = "a", password_file = "none" }]', "none cannot be read"),
        ('certificate = "{here}/short"\nprivate_key = "{key}"', "PEM or DER"),
        ('certificate = "{cert}"\nprivate_key = "{here}/short"', "PEM or DER"),
        ('certificate = "{cert}"\nprivate_key = "{here}/other"', "is not the key of"),
        ('certificate = "{here}/nameless"\nprivate_key = "{here}/other"', "no URI"),
        ("current_s = 0", "current_s"),
    ],
)
def test_a_server_that_would_not_be_safe_or_not_work_is_refused(pair, tmp_path, more, says):
    (tmp_path / "short").write_text("12345")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout other -out nameless"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    for name, path in (("here", tmp_path), ("cert", pair[0]), ("key", pair[1])):
        more = more.replace(f"{{{name}}}", str(path))
    (tmp_path / "connect.toml").write_text(lines("http://127.0.0.1:9", 4840, more))
    with pytest.raises(SettingsError, match=says):
        connect(read_connect_settings(tmp_path / "connect.toml"), threading.Event())


def test_one_that_is_said_to_be_open_is(tmp_path):
    (tmp_path / "connect.toml").write_text(
        lines("http://127.0.0.1:9", 4840, 'bind = "0.0.0.0"\nopen = true')
    )
    [receiver] = read_connect_settings(tmp_path / "connect.toml").receivers()
    assert isinstance(receiver, OpcUa)


def test_who_has_no_such_server_does_not_wait_for_it(tmp_path):
    (tmp_path / "connect.toml").write_text('[[mqtt]]\nname = "a"\nhost = "x"\n')
    code = (
        "import sys; from pathlib import Path; "
        "from service.connectors.connect import connect; "
        "from service.connectors.settings import read_connect_settings as read; "
        "read(Path(sys.argv[1])).receivers(); assert 'asyncua' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "connect.toml"], check=True)
