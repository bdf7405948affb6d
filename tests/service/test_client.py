"""The Python client, against a real service: typed answers, and trying again where that is safe."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from service.app import create_app
from service.client import AsyncKizu, Kizu, NoAnswer, Refused
from service.engine import FakeEngine
from service.schemas import FeedbackRequest, ThresholdsRequest
from service.settings import Settings
from tests.grey_line import grey_line
from tests.grey_parts import image, write_version
from tests.listening import listening


@pytest.fixture
def address(tmp_path):
    write_version(tmp_path / "store")
    settings = Settings(store=tmp_path / "store", data=tmp_path / "data")
    with listening(create_app(settings, open_engine=lambda bundle: FakeEngine())) as (host, port):
        yield f"http://{host}:{port}"


def test_a_part_from_image_to_label(address):
    with Kizu(address) as kizu:
        assert kizu.ready().status == "ready"
        result = kizu.inspect(image(125), image_type="image/png", recipe="cap", part_id="7")
        assert (result.verdict, result.part_id) == ("review", "7")
        page = kizu.claim_review("a-screen-1")
        assert page.items[0].inspection.id == result.id
        label = FeedbackRequest(inspection_id=result.id, verdict="ok", operator="eva")
        stored = kizu.label(label)
        assert kizu.get_inspection(result.id).feedback.id == stored.id
        assert kizu.list_inspections(part_id="7", label="ok").items[0].id == result.id
        lines = ThresholdsRequest(review=130, ng=150, bundle_version=1, by="eva", reason="a drill")
        assert kizu.set_thresholds("cap", lines).review == 130
        [recipe] = kizu.list_recipes()
        assert recipe.thresholds.review == 130
        assert kizu.get_trail(result.id).thresholds_revision is None


def test_a_service_that_is_not_ready_says_so(tmp_path):
    (tmp_path / "store").mkdir()
    with grey_line(tmp_path) as kizu:
        health = kizu.ready()
    assert (health.status, health.recipes) == ("not ready", {})


def test_the_same_to_be_awaited(address):
    async def several():
        async with AsyncKizu(address) as kizu:
            sent = (kizu.inspect(image(grey), image_type="image/png") for grey in (50, 125, 200))
            return [result.verdict for result in await asyncio.gather(*sent)]

    assert asyncio.run(several()) == ["ok", "review", "ng"]


def test_a_key_makes_one_of_two(address):
    with Kizu(address) as kizu:
        first, second = (
            kizu.inspect(image(50), image_type="image/png", key="part-7") for _ in range(2)
        )
        assert first.id == second.id


def test_a_problem_is_an_error_with_all_that_is_known(address):
    with Kizu(address, patience_s=0.5) as kizu:
        with pytest.raises(Refused, match="no recipe 'other'") as refused:
            kizu.inspect(image(50), image_type="image/png", recipe="other")
        assert refused.value.problem.type == "urn:kizu:problem:not-found"
        assert refused.value.problem.verdict == "error"


def test_nobody_there_is_an_error(address):
    with Kizu("http://127.0.0.1:9", patience_s=0.2) as kizu, pytest.raises(NoAnswer):
        kizu.inspect(image(50))


class Moody(BaseHTTPRequestHandler):
    """Refuses twice, then answers; or talks nonsense."""

    refusals = 2
    keys: list[str] = []  # noqa: RUF012

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.keys.append(self.headers["idempotency-key"])
        if len(self.keys) <= self.refusals:
            body = (
                b'{"type": "urn:kizu:problem:queue-full", "title": "Queue full", "status": 503,'
                b'"detail": "Full.", "request_id": "1", "retryable": true, "verdict": "error"}'
            )
            self.send_response(503)
        else:
            body = b"<html>a proxy's page</html>"
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_it_tries_again_under_the_same_key_and_trusts_no_stranger():
    server = HTTPServer(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with (
            Kizu(f"http://127.0.0.1:{server.server_port}", patience_s=2) as kizu,
            pytest.raises(NoAnswer, match="not Kizu's"),
        ):
            kizu.inspect(image(50))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(Moody.keys) >= 3
    assert len(set(Moody.keys)) == 1
