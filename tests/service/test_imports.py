"""Labelled images of others: what was exported comes back, and what leads elsewhere does not."""

import io
import json
import zipfile

import numpy as np
import pytest

from models.image import read_mask
from service.app import create_app
from service.client import Kizu
from service.engine import FakeEngine
from service.imports import ImportingError, read_labelled, send
from service.settings import Settings
from tests.grey_parts import write_version
from tests.listening import listening
from tests.service.test_exports import MASK, archive
from tests.service.test_exports import client as client


@pytest.fixture
def kizu(tmp_path):
    """Another service, without any inspections."""
    place = tmp_path / "elsewhere"
    write_version(place / "store")
    settings = Settings(store=place / "store", data=place / "data")
    app = create_app(settings, open_engine=lambda bundle: FakeEngine())
    with listening(app) as (host, port), Kizu(f"http://{host}:{port}") as kizu:
        yield kizu


@pytest.mark.parametrize("format", ["mvtec", "coco", "masks"])
def test_what_was_exported_is_imported_with_its_masks(client, kizu, tmp_path, format):
    archive(client, format, recipe="cap").extractall(tmp_path / "out")
    folder = tmp_path / "out" / ("cap" if format == "mvtec" else "")
    found = read_labelled(folder, format)
    ids = [send(kizu, one, "cap", "eva") for one in found]
    assert [send(kizu, one, "cap", "eva") for one in found] == ids  # an import that goes on
    items = kizu.list_inspections().items
    assert sorted(item.feedback.verdict for item in items) == ["ng", "ng", "ok"]
    [dent] = (one for one in found if one.defect_class and one.defect_class.startswith("dent"))
    assert np.array_equal(read_mask(dent.mask), MASK > 0)
    assert {item.feedback.has_mask for item in items if item.verdict == "ng"} == {True}


BAD = {
    "nothing there": {},
    "a file outside": {"images": [{"id": 1, "file_name": "../../x.png", "width": 8, "height": 8}]},
    "no image": {"images": [{"id": 1, "file_name": "notes.txt", "width": 8, "height": 8}]},
    "run lengths": {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "dent"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": {"counts": "x"}}],
    },
    "an unknown category": {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
    },
}


@pytest.mark.parametrize("name", BAD)
def test_a_set_that_is_none_is_said(tmp_path, name):
    document = {"images": [], "categories": [], "annotations": [], **BAD[name]}
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(ImportingError):
        read_labelled(tmp_path, "coco")


def test_a_folder_of_another_format_is_said(tmp_path):
    with pytest.raises(ImportingError, match="cannot be read as coco"):
        read_labelled(tmp_path, "coco")
    with pytest.raises(ImportingError, match="no labelled images"):
        read_labelled(tmp_path, "mvtec")


def test_an_archive_is_whole(client):
    content = client.get("/v1/export", params={"format": "masks"}).content
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
