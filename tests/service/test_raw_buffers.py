"""Camera buffers as a body: the same verdict as the file of the same pixels."""

import io

import numpy as np
import pytest
from PIL import Image

RAW = {"content-type": "application/octet-stream"}
SIDES = "width=80&height=72"


@pytest.fixture(scope="module")
def pixels():
    noise = np.random.default_rng(0).integers(0, 256, (9, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((80, 72)))


def post(client, body, query):
    return client.post(f"/v1/inspect?{query}", content=body, headers=RAW)


@pytest.mark.parametrize("pixel_format", ["Mono8", "BGR8"])
def test_a_buffer_is_scored_as_the_file_of_the_same_pixels(client, pixels, pixel_format):
    grey = pixel_format == "Mono8"
    shown = pixels[..., 1] if grey else pixels
    body = shown.tobytes() if grey else pixels[..., ::-1].tobytes()
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG")
    raw = post(client, body, f"{SIDES}&pixel_format={pixel_format}").json()
    png = client.post(
        "/v1/inspect", content=file.getvalue(), headers={"content-type": "image/png"}
    ).json()
    assert raw["score"] == png["score"]
    assert (raw["width"], raw["height"]) == (80, 72)
    kept = client.get(raw["image"])
    assert kept.headers["content-type"] == "image/bmp"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(kept.content))), shown)
    assert client.get(f"{raw['heatmap']}?format=overlay").status_code == 200


BAD = {
    "no sides": ("pixel_format=Mono8", "does not say what it holds"),
    "no format": (SIDES, "does not say what it holds"),
    "another format": (f"{SIDES}&pixel_format=YUV422", "pixel_format"),
    "another length": ("width=80&height=73&pixel_format=Mono8", "5,840"),
    "another depth": ("width=40&height=72&pixel_format=Mono16", "16-bit samples"),
    "zero": ("width=0&height=72&pixel_format=Mono8", "too few"),
    "negative": ("width=-80&height=-72&pixel_format=Mono8", "width"),
    "absurd": ("width=999999&height=999999&pixel_format=Mono8", "more than the limit"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(client, pixels, name):
    query, says = BAD[name]
    answer = post(client, pixels[..., 0].tobytes(), query)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert answer.json()["verdict"] == "error"
    assert client.get("/v1/inspections").json()["items"] == []


def test_a_file_has_no_sides_of_its_own(client, good_part):
    jpeg = {"content-type": "image/jpeg"}
    answer = client.post(f"/v1/inspect?{SIDES}", content=good_part, headers=jpeg)
    assert answer.status_code == 422
    assert "raw buffer" in answer.json()["detail"]


def test_a_batch_of_buffers_has_a_result_each(client, pixels):
    good = pixels[..., 0].tobytes()
    files = [("images", (name, body, RAW["content-type"]))
             for name, body in (("a", good), ("b", good[:-1]), ("c", good))]  # fmt: skip
    answer = client.post(f"/v1/inspect/batch?{SIDES}&pixel_format=Mono8", files=files).json()
    assert [item["result"] is not None for item in answer["items"]] == [True, False, True]
    assert "5,759 bytes" in answer["items"][1]["problem"]["detail"]
    assert answer["verdict"] == "error"
