"""A client of the service in Python, for programs: typed, and it tries again where that is safe.

    with Kizu("http://127.0.0.1:8000") as kizu:
        result = kizu.inspect(Path("part.jpg").read_bytes(), recipe="cap", part_id="7")

`AsyncKizu` is the same to be awaited.
"""

import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2 as httpx
from pydantic import ValidationError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from models.errors import KizuError
from service import calls
from service.calls import Call
from service.schemas import Problem

P = ParamSpec("P")
T = TypeVar("T")


class Refused(KizuError):
    """The service's answer is a problem: there is no result. `problem.type` says which."""

    def __init__(self, problem: Problem, retry_after_s: float) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after_s = retry_after_s


class NoAnswer(KizuError):
    """The service did not answer, or something else did: whether it acted is not known."""


def _now(make: Callable[P, Call[T]]) -> Callable[Concatenate["Kizu", P], T]:
    @functools.wraps(make)
    def method(self: "Kizu", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(make(*args, **kwargs))

    return method


def _later(make: Callable[P, Call[T]]) -> Callable[Concatenate["AsyncKizu", P], Awaitable[T]]:
    @functools.wraps(make)
    async def method(self: "AsyncKizu", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(make(*args, **kwargs))

    return method


class Kizu:
    """The service at an address. Raises Refused and NoAnswer; a part without a result is not a
    good part.

    `key` is one of `kizu key add`, where the service asks for one.

    What is safe to repeat is tried again for `patience_s`, later each time, and no sooner than the
    service asks for.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        patience_s: float = 10.0,
        timeout_s: float = 15.0,
    ) -> None:
        self._http = httpx.Client(base_url=address, timeout=timeout_s, headers=_shown(key))
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send any call."""
        for attempt in Retrying(**_policy(call, self._patience_s)):
            with attempt:
                try:
                    answer = self._http.request(
                        call.method, call.path, params=call.parameters, content=call.content,
                        headers=call.headers,
                    )  # fmt: skip
                except httpx.HTTPError as error:
                    raise _silence(error) from error
                return _read(call, answer)
        raise AssertionError("unreachable")

    inspect = _now(calls.inspect)
    get_inspection = _now(calls.get_inspection)
    get_trail = _now(calls.get_trail)
    list_inspections = _now(calls.list_inspections)
    read_feed = _now(calls.read_feed)
    get_part = _now(calls.get_part)
    label = _now(calls.label)
    claim_review = _now(calls.claim_review)
    release_review = _now(calls.release_review)
    list_recipes = _now(calls.list_recipes)
    foresee_thresholds = _now(calls.foresee_thresholds)
    set_thresholds = _now(calls.set_thresholds)
    list_bundles = _now(calls.list_bundles)
    promote = _now(calls.promote)
    nominate = _now(calls.nominate)
    compare_shadow = _now(calls.compare_shadow)
    estimate_training = _now(calls.estimate_training)
    ask_training = _now(calls.ask_training)
    get_training = _now(calls.get_training)
    cancel_training = _now(calls.cancel_training)
    report_drift = _now(calls.report_drift)
    ready = _now(calls.ready)


class AsyncKizu:
    """The same, to be awaited."""

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        patience_s: float = 10.0,
        timeout_s: float = 15.0,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=address, timeout=timeout_s, headers=_shown(key))
        self._patience_s = patience_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send any call."""
        async for attempt in AsyncRetrying(**_policy(call, self._patience_s)):
            with attempt:
                try:
                    answer = await self._http.request(
                        call.method, call.path, params=call.parameters, content=call.content,
                        headers=call.headers,
                    )  # fmt: skip
                except httpx.HTTPError as error:
                    raise _silence(error) from error
                return _read(call, answer)
        raise AssertionError("unreachable")

    inspect = _later(calls.inspect)
    get_inspection = _later(calls.get_inspection)
    get_trail = _later(calls.get_trail)
    list_inspections = _later(calls.list_inspections)
    read_feed = _later(calls.read_feed)
    get_part = _later(calls.get_part)
    label = _later(calls.label)
    claim_review = _later(calls.claim_review)
    release_review = _later(calls.release_review)
    list_recipes = _later(calls.list_recipes)
    foresee_thresholds = _later(calls.foresee_thresholds)
    set_thresholds = _later(calls.set_thresholds)
    list_bundles = _later(calls.list_bundles)
    promote = _later(calls.promote)
    nominate = _later(calls.nominate)
    compare_shadow = _later(calls.compare_shadow)
    estimate_training = _later(calls.estimate_training)
    ask_training = _later(calls.ask_training)
    get_training = _later(calls.get_training)
    cancel_training = _later(calls.cancel_training)
    report_drift = _later(calls.report_drift)
    ready = _later(calls.ready)


def _shown(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


_GROWING = wait_exponential_jitter(multiplier=0.1, max=5.0)


def _policy(call: Call[T], patience_s: float) -> dict[str, Any]:
    def again(error: BaseException) -> bool:
        if isinstance(error, Refused):
            return error.problem.retryable and call.repeatable
        return isinstance(error, NoAnswer) and call.repeatable

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, Refused) else 0.0
        return max(asked, _GROWING(state))

    return {
        "retry": retry_if_exception(again),
        "stop": stop_after_delay(patience_s),
        "wait": wait,
        "reraise": True,
    }


def _read(call: Call[T], answer: httpx.Response) -> T:
    try:
        if answer.is_success or answer.status_code in call.answered_by:
            return call.read(answer.content)
        problem = Problem.model_validate_json(answer.content)
    except ValidationError as error:
        raise NoAnswer(
            f"{answer.url} answered {answer.status_code} with something that is not Kizu's.",
            remedy="Check the address, and what lies in between.",
        ) from error
    raise Refused(problem, float(answer.headers.get("Retry-After", 0)))


def _silence(error: httpx.HTTPError) -> NoAnswer:
    return NoAnswer(
        f"The service did not answer: {error or type(error).__name__}.",
        remedy="Treat the part as not inspected.",
    )
