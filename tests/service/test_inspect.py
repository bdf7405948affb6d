import base64
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from models.bundle import GOLDEN
from models.golden import Golden
from service.engine import FakeEngine, Outputs
from service.errors import EngineFailure

JPEG = {"content-type": "image/jpeg"}


def encoded(array, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format)
    return buffer.getvalue()


def test_raw_body_multipart_and_short_form_agree(client, good_part):
    raw = client.post("/v1/inspect", content=good_part, headers=JPEG).json()
    form = client.post("/v1/inspect", files={"image": ("p.jpg", good_part, "image/jpeg")}).json()
    short = client.post("/inspect", content=good_part, headers=JPEG).json()
    assert raw["score"] == form["score"] == short["score"]
    assert raw["id"] != form["id"] != short["id"]
    assert raw["verdict"] in ("ok", "review", "ng")
    assert raw["device"] == "CPUExecutionProvider"
    assert (raw["width"], raw["height"]) == (96, 96)


def test_a_result_is_stored_as_it_was_answered(client, good_part):
    answered = client.post(
        "/v1/inspect?part_id=P7&camera=C1", content=good_part, headers=JPEG
    ).json()
    stored = client.get(f"/v1/inspections/{answered['id']}").json()
    assert stored == answered
    assert stored["part_id"] == "P7"
    assert client.get(stored["image"]).content == good_part


def test_served_scores_are_the_trained_ones(client, bundle):
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    for image, score in zip(golden.images, golden.scores, strict=True):
        served = client.post(
            "/v1/inspect", content=encoded(image), headers={"content-type": "image/png"}
        ).json()
        assert served["score"] == pytest.approx(float(score), abs=1e-3)


def test_heatmaps_in_every_format(client, scratched_part):
    result = client.post("/v1/inspect?heatmap=npy", content=scratched_part, headers=JPEG).json()
    raw = np.load(io.BytesIO(base64.b64decode(result["heatmap_data"])))
    low, high = result["heatmap_range"]
    assert raw.shape == (64, 64)
    assert (raw.min(), raw.max()) == pytest.approx((low, high))

    png16 = client.get(f"{result['heatmap']}?format=png16")
    levels = np.asarray(Image.open(io.BytesIO(png16.content)), np.float64)
    assert low + levels / 65535 * (high - low) == pytest.approx(raw, abs=1e-4)
    png8 = Image.open(io.BytesIO(client.get(result["heatmap"]).content))
    assert png8.mode == "L"
    assert np.asarray(png8) == pytest.approx(levels / 257, abs=0.51)
    overlay = Image.open(io.BytesIO(client.get(f"{result['heatmap']}?format=overlay").content))
    assert (overlay.format, overlay.size) == ("JPEG", (96, 96))


def test_thresholds_move_without_retraining_and_give_regions(client, scratched_part):
    first = client.post("/v1/inspect", content=scratched_part, headers=JPEG).json()
    line = {
        "bundle_version": 1, "review": first["score"] / 2, "ng": first["score"] * 0.9,
        "by": "eva", "reason": "test",
    }  # fmt: skip
    assert client.post("/v1/recipes/cap/thresholds", json=line).status_code == 201
    second = client.post("/v1/inspect", content=scratched_part, headers=JPEG).json()
    assert second["verdict"] == "ng"
    assert second["score"] == first["score"]
    assert second["regions"]
    for region in second["regions"]:
        box = region["box"]
        assert 0 <= box["x"] < box["x"] + box["width"] <= 96
        assert 0 <= box["y"] < box["y"] + box["height"] <= 96
        assert region["peak"] >= line["review"]
        assert 0 < region["area"] <= box["width"] * box["height"]
    assert client.get(f"/v1/inspections/{first['id']}").json()["thresholds"] == first["thresholds"]


def test_a_part_that_does_not_pass_has_a_region_though_its_heatmap_stays_low(
    make_client, good_part
):
    class Faint(FakeEngine):
        def run(self, images):
            outputs = super().run(images)
            return Outputs(outputs.scores + 1000, outputs.heatmaps / 1000)

    client = make_client(open_engine=lambda bundle: Faint())
    result = client.post("/v1/inspect", content=good_part, headers=JPEG).json()
    assert result["verdict"] in ("review", "ng")
    assert result["regions"][0]["peak"] == pytest.approx(result["heatmap_range"][1])
    assert result["regions"][0]["peak"] < result["thresholds"]["review"]


def test_thresholds_for_a_bundle_that_does_not_decide_are_refused(client):
    line = {"bundle_version": 2, "review": 1.0, "ng": 2.0, "by": "eva", "reason": "test"}
    answer = client.post("/v1/recipes/cap/thresholds", json=line)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:kizu:problem:superseded"
    crossed = client.post(
        "/v1/recipes/cap/thresholds", json={**line, "bundle_version": 1, "review": 3.0}
    )
    assert crossed.status_code == 422
    assert client.get("/v1/recipes/cap/thresholds").json() == []


def test_an_idempotency_key_replays_and_refuses_another_image(client, good_part, scratched_part):
    headers = {**JPEG, "idempotency-key": "part-1"}
    first = client.post("/v1/inspect", content=good_part, headers=headers)
    again = client.post("/v1/inspect", content=good_part, headers=headers)
    other = client.post("/v1/inspect", content=scratched_part, headers=headers)
    assert again.json() == first.json()
    assert other.status_code == 422
    assert len(client.get("/v1/inspections").json()["items"]) == 1


def test_a_batch_has_a_result_each_and_the_worst_verdict(client, good_part, scratched_part):
    files = [
        ("images", ("a.jpg", good_part, "image/jpeg")),
        ("images", ("b.jpg", b"no image", "image/jpeg")),
        ("images", ("c.jpg", scratched_part, "image/jpeg")),
    ]
    answer = client.post("/v1/inspect/batch?part_id=P9", files=files).json()
    assert answer["verdict"] == "error"
    assert [bool(item["result"]) for item in answer["items"]] == [True, False, True]
    assert answer["items"][1]["problem"]["type"] == "urn:kizu:problem:invalid-image"
    assert {i["result"]["part_id"] for i in answer["items"] if i["result"]} == {"P9"}
    fine = client.post("/v1/inspect/batch", files=[files[0], files[2]]).json()
    key = {"idempotency-key": "batch-1"}
    two = client.post("/v1/inspect/batch", files=[files[0], files[2]], headers=key).json()
    again = client.post("/v1/inspect/batch", files=[files[0], files[2]], headers=key).json()
    one = client.post("/v1/inspect/batch", files=[files[0]], headers=key).json()
    assert again == two
    assert one["verdict"] == "error"  # a key is the whole batch's, not some of its images'
    order = ["ok", "review", "ng", "error"]
    verdicts = [item["result"]["verdict"] for item in fine["items"]]
    assert fine["verdict"] == max(verdicts, key=order.index)


REFUSED = [
    ("empty body", b"", "image/jpeg", 422, "invalid-image"),
    ("no image", b"hello", "image/png", 422, "invalid-image"),
    ("another type", b"hello", "text/plain", 415, "unsupported-media-type"),
    ("16 bits", encoded(np.zeros((64, 64), np.uint16)), "image/png", 422, "invalid-image"),
    (
        "a form without a file",
        b"--x--\r\n",
        "multipart/form-data; boundary=x",
        422,
        "invalid-request",
    ),
]


@pytest.mark.parametrize(("body", "media", "status", "kind"), [r[1:] for r in REFUSED],
                         ids=[r[0] for r in REFUSED])  # fmt: skip
def test_bad_images_are_problems_and_never_ok(client, body, media, status, kind):
    answer = client.post("/v1/inspect", content=body, headers={"content-type": media})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:kizu:problem:{kind}"
    assert problem["verdict"] == "error"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert client.get("/v1/inspections").json()["items"] == []


def test_unknown_names_are_404(client, good_part):
    answers = [
        client.post("/v1/inspect?recipe=lid", content=good_part, headers=JPEG),
        client.get("/v1/inspections/none"),
        client.get("/v1/inspections/none/heatmap"),
        client.get("/v1/recipes/lid"),
        client.get("/nothing/here"),
    ]
    assert [a.status_code for a in answers] == [404] * 5
    assert {a.headers["content-type"] for a in answers} == {"application/problem+json"}
    assert "cap" in answers[0].json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_413(make_client, good_part, chunked):
    client = make_client(max_body_bytes=1000)
    body = iter([good_part[:700], good_part[700:]]) if chunked else good_part
    answer = client.post("/v1/inspect", content=body, headers=JPEG)
    assert answer.status_code == 413
    assert answer.json()["verdict"] == "error"


def test_many_pixels_are_refused_from_the_header(make_client):
    client = make_client(max_pixels=1000)
    body = encoded(np.zeros((64, 64, 3), np.uint8))
    answer = client.post("/v1/inspect", content=body, headers={"content-type": "image/png"})
    assert answer.status_code == 422
    assert "64×64" in answer.json()["detail"]


def test_a_busy_device_refuses_the_queue_and_passes_the_deadline(make_client, good_part):
    free, entered = threading.Event(), threading.Event()

    def wait(images):
        entered.set()
        free.wait(60)

    client = make_client(open_engine=lambda bundle: FakeEngine(wait), max_queue=1)
    answers = {}

    def post(name, query=""):
        answers[name] = client.post(f"/v1/inspect{query}", content=good_part, headers=JPEG)

    first = threading.Thread(target=post, args=("first",))
    first.start()
    assert entered.wait(60)
    post("late", "?deadline_ms=50")  # waits in the queue and leaves it
    second = threading.Thread(target=post, args=("second",))
    second.start()
    while "kizu_queue_images 1.0" not in client.get("/metrics").text:
        time.sleep(0)
    post("third")
    free.set()
    first.join(60)
    second.join(60)
    assert answers["late"].status_code == 504
    assert answers["third"].status_code == 503
    assert answers["third"].headers["retry-after"] == "1"
    assert answers["third"].json()["retryable"] is True
    assert answers["first"].status_code == answers["second"].status_code == 200


class BrokenEngine:
    device = "broken"

    def __init__(self, error):
        self._error = error

    def run(self, images):
        if self._error:
            raise self._error
        return Outputs(np.zeros(0, np.float32), np.zeros((0, 1, 1), np.float32))


@pytest.mark.parametrize("error", [EngineFailure("no number"), RuntimeError("secret"), None])
def test_a_failing_engine_is_a_500_that_tells_nothing_and_stores_nothing(
    make_client, good_part, error
):
    client = make_client(open_engine=lambda bundle: BrokenEngine(error))
    answer = client.post("/v1/inspect", content=good_part, headers=JPEG)
    assert answer.status_code == 500
    assert answer.json()["verdict"] == "error"
    assert "secret" not in answer.text
    assert client.get("/v1/inspections").json()["items"] == []


def test_of_broken_images_nothing_stays_on_the_disk(make_client, tmp_path, good_part):
    client = make_client()
    for length in range(1, 2000, 100):
        broken = client.post("/v1/inspect", content=good_part[:length], headers=JPEG)
        assert broken.status_code == 422
    client.post("/v1/inspect", content=good_part, headers=JPEG)

    def files():
        return [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]

    until = time.monotonic() + 30
    while len(files()) != 2 and time.monotonic() < until:  # what threads still had in hand
        pass
    assert len(files()) == 2  # the good part and its heatmap


def test_pages_go_on_where_they_end(client, good_part):
    ids = [
        client.post("/v1/inspect", content=good_part, headers=JPEG).json()["id"] for _ in range(5)
    ]
    seen, before = [], None
    while True:
        query = f"?limit=2{f'&before={before}' if before else ''}"
        page = client.get(f"/v1/inspections{query}").json()
        seen += [item["id"] for item in page["items"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ids[::-1]


def test_metrics_count_what_happened(client, good_part):
    verdict = client.post("/v1/inspect", content=good_part, headers=JPEG).json()["verdict"]
    client.post("/v1/inspect", content=b"x", headers=JPEG)
    text = client.get("/metrics").text
    assert f'kizu_inspections_total{{recipe="cap",verdict="{verdict}"}} 1.0' in text
    assert 'kizu_problems_total{type="invalid-image"} 1.0' in text
    assert 'kizu_bundle_version{device="CPUExecutionProvider",recipe="cap"} 1.0' in text
