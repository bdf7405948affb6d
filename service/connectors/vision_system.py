"""What an OPC UA client sees: objects, results, events and methods as OPC 40100-1 (Machine Vision)
names them, in a namespace of Kizu's own.

Where it has structures there are plain variables, which a PLC reads without knowing its types.
"""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from asyncua import Node, Server, ua
from asyncua.server.event_generator import EventGenerator

from service.client import AsyncKizu, NoAnswer, Refused
from service.schemas import InspectionResult, RecipeStatus

NAMESPACE = "urn:kizu:vision"
LOOK_S = 1.0
# A sender can name any number of cameras; of more than that, those that were longest without a
# result are not shown.
MOST = 256
MOST_LISTED = 100  # results, as the API has it
_COMPLETED = 1  # of OPC 40100-1's ResultState
_NONE = "-"  # in the place of a camera that was not named, as in a topic of MQTT

_TEXT, _TRUTH, _REAL, _WHEN = (
    ua.VariantType.String, ua.VariantType.Boolean, ua.VariantType.Double, ua.VariantType.DateTime,
)  # fmt: skip
_WHOLE, _COUNT = ua.VariantType.Int32, ua.VariantType.UInt32

GOOD = ua.StatusCodes.Good
OLD = ua.StatusCodes.UncertainLastUsableValue
CUT_OFF = ua.StatusCodes.UncertainNoCommunicationLastUsableValue

_REFUSALS = {
    401: ua.StatusCodes.BadUserAccessDenied, 403: ua.StatusCodes.BadUserAccessDenied,
    404: ua.StatusCodes.BadNotFound, 422: ua.StatusCodes.BadInvalidArgument,
}  # fmt: skip


class _Field(NamedTuple):
    name: str
    type: ua.VariantType
    of: Callable[[InspectionResult], Any]


# In the order in which they are written: who waits for another ResultId has all the others then.
RESULT = (
    _Field("IsSimulated", _TRUTH, lambda it: it.is_simulated),
    _Field("IsPartial", _TRUTH, lambda it: False),
    _Field("ResultState", _WHOLE, lambda it: _COMPLETED),
    _Field("PartId", _TEXT, lambda it: it.part_id),
    _Field("JobId", _TEXT, lambda it: it.lot),
    _Field("ExternalRecipeId", _TEXT, lambda it: it.recipe_id),
    _Field("InternalRecipeId", _TEXT, lambda it: f"{it.recipe_id}/{it.bundle_version}"),
    _Field("Camera", _TEXT, lambda it: it.camera),
    _Field("CreationTime", _WHEN, lambda it: it.creation_time),
    _Field("ProcessingTimes", _TEXT, lambda it: json.dumps(it.processing_times)),
    _Field("Verdict", _TEXT, lambda it: it.verdict),
    _Field("Score", _REAL, lambda it: it.score),
    _Field("ResultContent", _TEXT, lambda it: it.model_dump_json()),
    _Field("ResultId", _TEXT, lambda it: it.id),
)


class _Entry:
    """An object whose variables have one quality."""

    def __init__(self, node: Node, variables: Mapping[str, Node]) -> None:
        self.node = node
        self._variables = variables
        self._values: dict[str, ua.DataValue] = {}

    async def write(self, values: Mapping[str, ua.Variant], when: datetime, quality: int) -> None:
        for name, value in values.items():
            self._values[name] = ua.DataValue(
                value, StatusCode=_code(quality), SourceTimestamp=cast(ua.DateTime, when)
            )
            await self._variables[name].write_value(self._values[name])

    async def judge(self, quality: int) -> None:
        """The same values, with this quality."""
        status = _code(quality)
        for name, value in self._values.items():
            if value.StatusCode != status:
                self._values[name] = dataclasses.replace(value, StatusCode=status)
                await self._variables[name].write_value(self._values[name])


@dataclasses.dataclass
class _Shown:
    """The latest result of a recipe and a camera, and until when it is taken for current."""

    entry: _Entry
    until: float  # of the monotonic clock


class VisionSystem:
    """`CurrentState` is what the service says of itself: `Operational`, it is ready;
    `Preoperational`, it has nothing to inspect with yet; `Error`, it has lost its device, or does
    not answer; `Halted`, nobody asks it any more. `Heartbeat` counts how often it said it is ready.

    A result is good as long as the service answers, and for `current_s` after its CreationTime;
    afterwards its quality is uncertain, since nobody can tell that there was no other part.
    """

    def __init__(self, server: Server, kizu: AsyncKizu, *, current_s: float) -> None:
        self._server = server
        self._kizu = kizu
        self._current_s = current_s
        self._answers = False
        self._beats = 0
        self._loaded: dict[str, str] = {}
        self._recipes: dict[str, _Entry] = {}
        self._shown: dict[tuple[str, str], _Shown] = {}

    async def build(self) -> None:
        """Everything that is there before there is a result."""
        self._namespace = await self._server.register_namespace(NAMESPACE)
        system = await self._object(self._server.nodes.objects, "VisionSystem")
        machine = await self._object(system, "VisionStateMachine")
        self._state = await self._entry(machine, {"CurrentState": _TEXT, "Heartbeat": _COUNT})
        await self._tell("Preoperational")
        self._recipe_folder = await self._object(
            await self._object(system, "RecipeManagement"), "Recipes"
        )
        results = await self._object(system, "ResultManagement")
        self._result_folder = await self._object(results, "Results")
        await self._add_methods(results)
        # asyncua does not pass events up: most clients listen at the server, as all events are to
        # be heard there, and OPC 40100-1 has them here.
        kind = await self._event_type()
        self._events = [
            await self._generator(kind, node, results)
            for node in (self._server.nodes.server, results)
        ]

    async def show(self, results: Iterable[InspectionResult]) -> None:
        """Write each into its place, and tell who listens, in this order."""
        for result in results:
            values = {one.name: ua.Variant(one.of(result), one.type) for one in RESULT}
            await self._place(result, values)
            for events in self._events:
                for name, value in values.items():
                    setattr(events.event, name, value.Value)
                part = result.part_id or result.id
                await events.trigger(
                    result.creation_time, f"{result.verdict}: {result.recipe_id}, {part}"
                )

    async def follow(self) -> None:
        """Ask the service how it is, for as long as this is not cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def halt(self) -> None:
        """Nobody asks the service from here on."""
        self._answers = False
        await self._tell("Halted")
        await self._judge()

    async def _look(self) -> None:
        try:
            health = await self._kizu.ready()
            if health.recipes != self._loaded:
                await self._show_recipes(await self._kizu.list_recipes())
                self._loaded = health.recipes
        except (NoAnswer, Refused):  # of which the feeder has told
            self._answers = False
            await self._tell("Error")
        else:
            self._answers = True
            if health.status == "ready":
                self._beats = (self._beats + 1) % 2**32
                await self._tell("Operational")
            else:
                await self._tell("Error" if health.recipes else "Preoperational")
        await self._judge()

    async def _tell(self, state: str) -> None:
        values = {
            "CurrentState": ua.Variant(state, _TEXT), "Heartbeat": ua.Variant(self._beats, _COUNT),
        }  # fmt: skip
        await self._state.write(values, datetime.now(UTC), GOOD if self._answers else CUT_OFF)

    async def _judge(self) -> None:
        for recipe in self._recipes.values():
            await recipe.judge(GOOD if self._answers else CUT_OFF)
        for shown in self._shown.values():
            await shown.entry.judge(self._quality(shown.until))

    def _quality(self, until: float) -> int:
        if not self._answers:
            return CUT_OFF
        return GOOD if time.monotonic() < until else OLD

    async def _place(self, result: InspectionResult, values: Mapping[str, ua.Variant]) -> None:
        place = result.recipe_id, result.camera or _NONE
        shown = self._shown.pop(place, None)
        if shown is None:
            if len(self._shown) >= MOST:
                oldest = self._shown.pop(next(iter(self._shown)))
                await self._server.delete_nodes([oldest.entry.node], recursive=True)
            parent = await self._child(self._result_folder, place[0])
            node = await self._object(parent, place[1])
            shown = _Shown(await self._entry(node, {one.name: one.type for one in RESULT}), 0)
        self._shown[place] = shown  # as the last one
        # By both clocks: one on the wall can be wrong, and a result can have waited for us.
        left = timedelta(seconds=self._current_s) - (datetime.now(UTC) - result.creation_time)
        shown.until = time.monotonic() + min(self._current_s, left.total_seconds())
        await shown.entry.write(values, result.creation_time, self._quality(shown.until))

    async def _show_recipes(self, recipes: Iterable[RecipeStatus]) -> None:
        there = {one.recipe_id: one for one in recipes}
        for gone in self._recipes.keys() - there.keys():
            await self._server.delete_nodes([self._recipes.pop(gone).node], recursive=True)
        for name, recipe in there.items():
            if name not in self._recipes:
                node = await self._object(self._recipe_folder, name)
                types = {
                    "ExternalId": _TEXT, "InternalId": _TEXT, "BundleVersion": _COUNT,
                    "Hash": _TEXT, "Device": _TEXT,
                }  # fmt: skip
                self._recipes[name] = await self._entry(node, types)
            values = {
                "ExternalId": ua.Variant(name, _TEXT),
                "InternalId": ua.Variant(f"{name}/{recipe.bundle_version}", _TEXT),
                "BundleVersion": ua.Variant(recipe.bundle_version, _COUNT),
                "Hash": ua.Variant(recipe.bundle_digest, _TEXT),
                "Device": ua.Variant(recipe.device, _TEXT),
            }
            await self._recipes[name].write(values, datetime.now(UTC), GOOD)

    async def _get_result_by_id(self, _: ua.NodeId, id: ua.Variant) -> Any:
        if not isinstance(id.Value, str) or not id.Value:
            return _code(ua.StatusCodes.BadInvalidArgument)
        try:
            result = await self._kizu.get_inspection(id.Value)
        except (NoAnswer, Refused) as error:
            return _status(error)
        return [ua.Variant(one.of(result), one.type) for one in RESULT]

    async def _get_result_list(self, _: ua.NodeId, *given: ua.Variant) -> Any:
        if len(given) != len(_WANTED):
            return _code(ua.StatusCodes.BadArgumentsMissing)
        part, lot, recipe, camera, verdict, since, until, most, before = (
            one.Value for one in given
        )
        try:
            page = await self._kizu.list_inspections(
                part_id=part or None,
                lot=lot or None,
                recipe=recipe or None,
                camera=camera or None,
                verdict=verdict or None,
                since=_moment(since),
                until=_moment(until),
                before=before or None,
                limit=min(most or MOST_LISTED, MOST_LISTED),
            )
        except (NoAnswer, Refused) as error:
            return _status(error)
        return [
            _list([one.id for one in page.items], _TEXT),
            _list([one.verdict for one in page.items], _TEXT),
            _list([one.creation_time for one in page.items], _WHEN),
            _list([one.model_dump_json() for one in page.items], _TEXT),
            ua.Variant(page.next, _TEXT),
        ]

    async def _add_methods(self, results: Node) -> None:
        await results.add_method(
            self._id(results, "GetResultById"), self._name("GetResultById"),
            self._get_result_by_id, [_argument("ResultId", _TEXT)],
            [_argument(one.name, one.type) for one in RESULT],
        )  # fmt: skip
        await results.add_method(
            self._id(results, "GetResultListFiltered"), self._name("GetResultListFiltered"),
            self._get_result_list, [_argument(name, type) for name, type in _WANTED.items()],
            [
                *(_argument(name, type, array=True) for name, type in _FOUND.items()),
                _argument("Next", _TEXT),
            ],
        )  # fmt: skip

    async def _event_type(self) -> Node:
        name = "ResultReadyEventType"
        base = self._server.get_node(ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType)))
        kind = await base.add_object_type(self._id(base, name), self._name(name))
        for one in RESULT:
            await kind.add_property(
                self._id(kind, one.name), self._name(one.name), ua.get_default_value(one.type),
                one.type,
            )  # fmt: skip
        return kind

    async def _generator(self, kind: Node, at: Node, source: Node) -> EventGenerator:
        events = await self._server.get_event_generator(kind, at.nodeid)
        events.event.SourceNode, events.event.SourceName = source.nodeid, "ResultManagement"
        return events

    async def _child(self, parent: Node, name: str) -> Node:
        node = self._server.get_node(self._id(parent, name))
        there = node.nodeid in self._server.iserver.aspace
        return node if there else await self._object(parent, name)

    async def _object(self, parent: Node, name: str) -> Node:
        return await parent.add_object(self._id(parent, name), self._name(name))

    async def _entry(self, node: Node, types: Mapping[str, ua.VariantType]) -> _Entry:
        variables = {
            name: await node.add_variable(
                self._id(node, name), self._name(name), ua.get_default_value(type), type
            )
            for name, type in types.items()
        }
        return _Entry(node, variables)

    def _id(self, parent: Node, name: str) -> ua.NodeId:
        """Made of the names on the way there, so that it is the same after every start."""
        level = name.replace("%", "%25").replace("/", "%2F")
        above = parent.nodeid.Identifier
        whole = f"{above}/{level}" if isinstance(above, str) else level  # else it is OPC UA's own
        return ua.NodeId(ua.String(whole), ua.Int16(self._namespace))

    def _name(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, self._namespace)


# What GetResultListFiltered is asked and answers; empty is any.
_WANTED = {
    "PartId": _TEXT, "JobId": _TEXT, "ExternalRecipeId": _TEXT, "Camera": _TEXT, "Verdict": _TEXT,
    "Since": _WHEN, "Until": _WHEN, "MaxResults": _COUNT, "Before": _TEXT,
}  # fmt: skip
_FOUND = {"ResultIds": _TEXT, "Verdicts": _TEXT, "CreationTimes": _WHEN, "ResultContents": _TEXT}


def _status(error: NoAnswer | Refused) -> ua.StatusCode:
    if isinstance(error, NoAnswer):
        return _code(ua.StatusCodes.BadNoCommunication)
    return _code(_REFUSALS.get(error.problem.status, ua.StatusCodes.BadResourceUnavailable))


def _code(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))


def _moment(given: datetime | None) -> datetime | None:
    """OPC UA's time that is none is the beginning of its calendar."""
    if given is None or given.year <= 1601:
        return None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _list(values: list[Any], type: ua.VariantType) -> ua.Variant:
    return ua.Variant(values, type, is_array=True)


def _argument(name: str, type: ua.VariantType, *, array: bool = False) -> ua.Argument:
    return ua.Argument(
        Name=name,
        DataType=ua.NodeId(ua.Int32(type.value)),
        ValueRank=ua.ValueRank.OneDimension if array else ua.ValueRank.Scalar,
    )
