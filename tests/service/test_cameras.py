import re

from service.cameras import MOST, OTHERS, Cameras
from service.recent_scores import WINDOW, RecentScores

JPEG = {"content-type": "image/jpeg"}


def test_every_image_counts_for_its_camera_once(client, good_part):
    def send(camera, body=good_part, **headers):
        return client.post(f"/v1/inspect?camera={camera}", content=body, headers=JPEG | headers)

    key = {"idempotency-key": "part-1"}
    first = send("left", **key)
    assert send("left", **key).json()["id"] == first.json()["id"]  # asked again: not a part more
    assert send("left", b"no image").status_code == 422
    send("right")
    verdict = first.json()["verdict"]
    left, right = client.get("/v1/cameras").json()
    assert (left["camera"], left["triggers"], left["errors"], left[verdict]) == ("left", 2, 1, 1)
    assert (right["camera"], right["triggers"], right["errors"]) == ("right", 1, 0)
    assert 0 < left["min_ms"] < left["mean_ms"] < left["max_ms"]
    text = client.get("/metrics").text
    assert 'kizu_camera_images_total{camera="left",outcome="error"} 1.0' in text
    slowest = re.search(r'kizu_camera_seconds{camera="left",statistic="max"} (\S+)', text)
    assert abs(1000 * float(slowest[1]) - left["max_ms"]) <= 0.1


def test_no_sender_can_fill_the_memory_with_cameras():
    cameras = Cameras()
    for number in range(MOST + 50):
        cameras.count(f"camera {number}", "ok", 0.1)
    assert len(cameras.counts) == MOST + 1
    assert cameras.counts[OTHERS].outcomes["ok"] == 50


def test_scores_are_those_of_the_bundle_that_decides(client, good_part):
    score = client.post("/v1/inspect", content=good_part, headers=JPEG).json()["score"]
    shown = re.search(r'kizu_score{quantile="0.5",recipe="cap"} (\S+)', client.get("/metrics").text)
    assert float(shown[1]) == score
    scores = RecentScores()
    for number in range(2 * WINDOW):
        scores.add("cap", 1, float(number))
    assert scores.quantiles["cap"][0] == 1.5 * WINDOW - 0.5
    scores.add("cap", 2, 7.0)
    assert scores.quantiles["cap"] == (7.0, 7.0, 7.0)
