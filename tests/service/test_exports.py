"""Inspections in the formats of others, read back as they read them."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest

from models.image import PixelContract, decode, encode_png, read_mask
from service.engine import FakeEngine
from tests.grey_parts import HEIGHT, PNG, WIDTH, image, write_version
from tests.service.test_feedback import png
from training.data.folders import read_mvtec

MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[10:20, 30:50] = MASK[40, 3] = 255


@pytest.fixture
def client(make_client, tmp_path):
    """A good part, one with a mask, one with a box, one that nobody is sure of, one unlabelled."""
    write_version(tmp_path / "grey")
    client = make_client(lambda bundle: FakeEngine(), store=tmp_path / "grey")
    labels = {
        50: {"verdict": "ok", "comment": "=HYPERLINK(1)"},
        200: {"verdict": "ng", "defect_class": "dent/../x", "mask": png(MASK)},
        210: {"verdict": "ng", "boxes": [{"x": 1, "y": 2, "width": 3, "height": 4}]},
        120: {"verdict": "unsure"},
    }
    client.ids = {}
    for grey in (50, 200, 210, 120, 60):
        answer = client.post(f"/v1/inspect?lot=@lot{grey}", content=image(grey), headers=PNG)
        client.ids[grey] = answer.json()["id"]
        if grey in labels:
            label = {"inspection_id": client.ids[grey], "operator": "eva", **labels[grey]}
            client.post("/v1/feedback", json=label).raise_for_status()
    return client


def archive(client, format, **wanted):
    answer = client.get("/v1/export", params={"format": format, **wanted})
    assert answer.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_mvtec_is_read_by_training(client, tmp_path):
    archive(client, "mvtec", recipe="cap").extractall(tmp_path / "out")
    data = read_mvtec(tmp_path / "out" / "cap")
    assert [file.image.read_bytes() for file in data.train] == [image(50)]
    assert {file.defect_class for file in data.test} == {"dent____x", "defect"}
    masks = {file.defect_class: read_mask(file.mask.read_bytes()) for file in data.test}
    assert np.array_equal(masks["dent____x"], MASK > 0)
    assert masks["defect"].sum() == 12


def test_coco_says_where(client):
    found = archive(client, "coco")
    document = json.loads(found.read("annotations.json"))
    assert {one["name"] for one in document["categories"]} == {"dent/../x", "defect"}
    for one in document["images"]:
        pixels = decode(found.read(one["file_name"]), PixelContract())
        assert pixels.shape[:2] == (one["height"], one["width"])
    dents = [one for one in document["annotations"] if one["area"] in (200, 1)]
    assert sorted(one["bbox"] for one in dents) == [[3, 40, 1, 1], [30, 10, 20, 10]]
    assert all(len(one["segmentation"][0]) >= 6 for one in document["annotations"])


def test_masks_come_beside_their_images(client):
    found = archive(client, "masks")
    lines = list(csv.DictReader(io.TextIOWrapper(found.open("labels.csv"), "utf-8")))
    by_label = {(line["label"], line["defect_class"]): line for line in lines}
    assert len(lines) == 3
    assert found.read(by_label["ng", "dent/../x"]["mask"]) == encode_png(MASK)
    assert by_label["ok", ""]["mask"] == ""


def test_csv_has_every_inspection_and_runs_nothing(client):
    answer = client.get("/v1/export")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert len(lines) == 5
    by_id = {line["id"]: line for line in lines}
    first = by_id[client.ids[50]]
    assert (first["lot"], first["comment"]) == ("'@lot50", "'=HYPERLINK(1)")
    assert float(first["score"]) == 50
    assert by_id[client.ids[60]]["label"] == ""


def test_only_what_is_wanted_is_exported(client):
    answer = client.get("/v1/export", params={"label": "unsure"})
    assert [
        line["id"] for line in csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    ] == [client.ids[120]]
    assert archive(client, "mvtec", recipe="none").namelist() == []
    assert client.get("/v1/export", params={"format": "xlsx"}).status_code == 422


def test_an_image_that_retention_removed_is_left_out(client, tmp_path):
    for blob in (tmp_path / "data" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes() == image(50):
            blob.unlink()
    names = archive(client, "mvtec").namelist()
    assert not any("/good/" in name for name in names)
    assert len(names) == 4
