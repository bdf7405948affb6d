import base64
import io

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import create_engine

from models.errors import SnapshotError
from models.image import encode_png, read_mask
from models.sample import open_snapshot
from service.store.local_blobs import LocalBlobs
from service.store.snapshot import take_snapshot
from service.store.wanted import Wanted

JPEG = {"content-type": "image/jpeg"}


def png(array):
    return base64.b64encode(encode_png(array)).decode()


@pytest.fixture
def inspected(client, scratched_part):
    return client.post("/v1/inspect", content=scratched_part, headers=JPEG).json()["id"]


def label(id, verdict="ng", **fields):
    return {"inspection_id": id, "verdict": verdict, "operator": "eva", **fields}


def test_labels_are_appended_and_the_newest_counts(client, inspected):
    first = client.post("/v1/feedback", json=label(inspected, "ok"))
    second = client.post("/feedback", json=label(inspected, "ng", defect_class="scratch"))
    assert first.status_code == second.status_code == 201
    shown = client.get(f"/v1/inspections/{inspected}").json()["feedback"]
    assert (shown["verdict"], shown["defect_class"], shown["id"]) == (
        "ng", "scratch", second.json()["id"],
    )  # fmt: skip


def test_a_key_replays_and_refuses_another_label(client, inspected):
    headers = {"idempotency-key": "label-1"}
    first = client.post("/v1/feedback", json=label(inspected), headers=headers)
    again = client.post("/v1/feedback", json=label(inspected), headers=headers)
    other = client.post("/v1/feedback", json=label(inspected, "ok"), headers=headers)
    assert again.json() == first.json()
    assert other.status_code == 422


BAD = {
    "unknown inspection": (lambda id: label("none"), 404),
    "unknown verdict": (lambda id: label(id, "maybe"), 422),
    "unknown field": (lambda id: label(id, colour="red"), 422),
    "a mask on an ok part": (
        lambda id: label(id, "ok", mask=png(np.full((96, 96), 255, np.uint8))),
        422,
    ),
    "no base64": (lambda id: label(id, mask="%%%"), 422),
    "no image": (lambda id: label(id, mask=base64.b64encode(b"x").decode()), 422),
    "another size": (lambda id: label(id, mask=png(np.full((8, 8), 255, np.uint8))), 422),
    "an empty mask": (lambda id: label(id, mask=png(np.zeros((96, 96), np.uint8))), 422),
    "a control character": (lambda id: label(id, defect_class="a\x00b"), 422),
    "no operator": (lambda id: label(id, operator=""), 422),
    "a box outside": (
        lambda id: label(id, boxes=[{"x": 90, "y": 0, "width": 9, "height": 9}]),
        422,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_labels_are_refused_and_not_stored(client, inspected, name):
    make, status = BAD[name]
    answer = client.post("/v1/feedback", json=make(inspected))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get(f"/v1/inspections/{inspected}").json()["feedback"] is None


def test_a_snapshot_holds_the_newest_labels_with_their_masks(
    client, inspected, scratched_part, good_part, database_url, tmp_path
):
    mask = np.zeros((96, 96), np.uint8)
    mask[10:20, 30:50] = 255
    boxed = client.post("/v1/inspect?part_id=2", content=good_part, headers=JPEG).json()["id"]
    other = Image.new("RGB", (96, 96), (90, 20, 20))
    buffer = io.BytesIO()
    other.save(buffer, "PNG")
    unsure = client.post(
        "/v1/inspect", content=buffer.getvalue(), headers={"content-type": "image/png"}
    ).json()["id"]
    for body in (
        label(inspected, "ok"),
        label(inspected, "ng", defect_class="scratch", mask=png(mask)),
        label(boxed, "ng", boxes=[{"x": 5, "y": 6, "width": 7, "height": 8}]),
        label(unsure, "ng"),
        label(unsure, "unsure"),
    ):
        assert client.post("/v1/feedback", json=body).status_code == 201

    engine = create_engine(database_url)
    blobs = LocalBlobs(tmp_path / "data" / "blobs")
    taken = take_snapshot(engine, blobs, tmp_path / "snapshots", Wanted(recipe="cap"))
    again = take_snapshot(engine, blobs, tmp_path / "snapshots", Wanted()).snapshot
    engine.dispose()
    snapshot = taken.snapshot
    assert taken.note == ""
    assert again.digest == snapshot.digest == open_snapshot(snapshot.path).digest
    by_id = {sample.inspection_id: sample for sample in snapshot.samples}
    assert set(by_id) == {inspected, boxed}
    assert snapshot.read_image(by_id[inspected]) == scratched_part
    assert np.array_equal(read_mask(snapshot.read_mask(by_id[inspected])), mask > 0)
    drawn = read_mask(snapshot.read_mask(by_id[boxed]))
    assert (drawn.sum(), drawn[6:14, 5:12].all()) == (56, True)


def test_labels_whose_files_are_gone_are_left_out_and_counted(
    client, database_url, tmp_path, inspected, good_part
):
    another = client.post("/v1/inspect?part_id=2", content=good_part, headers=JPEG).json()["id"]
    mask = np.zeros((96, 96), np.uint8)
    mask[10:20, 30:50] = 255
    for body in (label(inspected, "ng", mask=png(mask)), label(another, "ok")):
        client.post("/v1/feedback", json=body).raise_for_status()
    engine, out = create_engine(database_url), tmp_path / "snapshots"
    blobs = LocalBlobs(tmp_path / "data" / "blobs")
    whole = take_snapshot(engine, blobs, out, Wanted())
    (marked,) = [sample for sample in whole.snapshot.samples if sample.mask_sha256]
    blobs.remove_unless(marked.mask_sha256, lambda _: False)
    left = take_snapshot(engine, blobs, out, Wanted())
    assert [sample.inspection_id for sample in left.snapshot.samples] == [another]
    assert left.note.startswith("Labels left out because their image or mask is no longer kept: 1.")
    blobs.remove_unless(left.snapshot.samples[0].image_sha256, lambda _: False)
    with pytest.raises(SnapshotError, match="no labelled images"):
        take_snapshot(engine, blobs, out, Wanted())
    engine.dispose()


def test_no_labels_make_no_snapshot(client, database_url, tmp_path):
    engine = create_engine(database_url)
    with pytest.raises(SnapshotError, match="no labelled images"):
        take_snapshot(
            engine, LocalBlobs(tmp_path / "data" / "blobs"), tmp_path / "snapshots", Wanted()
        )
    engine.dispose()
    assert list((tmp_path / "snapshots").iterdir()) == []
