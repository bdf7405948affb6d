"""The load that benchmarks put on a server is the load that they say it is."""

import asyncio
from itertools import pairwise

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from tests.benchmarks.load import Answer, Question, Target, closed_loop, open_loop, summarise
from tests.listening import listening


@pytest.fixture
def served():
    app, seen = FastAPI(), []

    @app.post("/{status}")
    async def answer(request: Request, status: int) -> Response:
        seen.append((status, request.headers["content-type"], await request.body()))
        return Response(status_code=status)

    with listening(app) as (_, port):
        yield port, seen


def test_every_question_is_asked_in_turn_and_every_answer_counts(served):
    port, seen = served
    target = Target(port, [Question("/200", b"image", "image/png"), Question("/503", b"", "a/b")])
    answers = asyncio.run(closed_loop(target, 4, most=40))
    assert sorted(seen) == [(200, "image/png", b"image")] * 20 + [(503, "a/b", b"")] * 20
    summary = summarise(answers)
    assert (summary.sent, summary.good, summary.other) == (40, 20, {503: 20})
    assert 0 < summary.p50 <= summary.p99


def test_an_open_loop_sends_at_its_rate_whatever_is_answered(served):
    port, seen = served
    target = Target(port, [Question("/200", b"image", "image/png")])
    answers = asyncio.run(open_loop(target, rate=200, seconds=0.5))
    assert len(answers) == len(seen) == 100
    between = [after.due - before.due for before, after in pairwise(answers)]
    assert between == pytest.approx([1 / 200] * 99)


def test_a_connection_that_breaks_is_no_answer():
    with listening(FastAPI()) as (_, closed):
        pass
    answers = asyncio.run(closed_loop(Target(closed, [Question("/", b"", "a/b")]), 1, most=3))
    assert [answer.status for answer in answers] == [0, 0, 0]


def test_what_came_too_late_is_not_good():
    answers = [Answer(0.0, 0.1, 200), Answer(0.0, 0.5, 200), Answer(0.5, 0.5, 503)]
    summary = summarise(answers, within=0.2)
    assert (summary.good, summary.other) == (1, {503: 1})
    assert summary.per_second == 1.0


def test_a_body_of_chunks_is_read_to_its_end():
    app = FastAPI()

    @app.post("/")
    async def answer() -> StreamingResponse:
        return StreamingResponse(iter([b"one", b"two"]))

    with listening(app) as (_, port):
        target = Target(port, [Question("/", b"", "a/b")])
        answers = asyncio.run(closed_loop(target, 1, most=3))
    assert [answer.status for answer in answers] == [200, 200, 200]


def test_no_two_bodies_are_the_same(served):
    port, seen = served
    target = Target(port, [Question("/200", b"<....>", "a/b", varied=1)])
    asyncio.run(closed_loop(target, 2, most=500))
    bodies = [body for _, _, body in seen]
    assert len(set(bodies)) == 500
    assert all((body[:1], body[5:]) == (b"<", b">") for body in bodies)
