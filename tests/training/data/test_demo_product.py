"""The demo product: what it promises to whoever trains on it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from training.data.demo_cap import CAP_RADIUS, draw_part
from training.data.demo_product import DEFECTS, draw_defective, draw_good, write_demo
from training.errors import TrainingError

SIZE = 256


def stream(*key: int) -> np.random.Generator:
    return np.random.default_rng([7, *key])


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_a_good_part_is_an_rgb_image_and_depends_on_the_stream_alone() -> None:
    first = draw_good(stream(0), SIZE)
    assert first.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, draw_good(stream(0), SIZE))


def test_good_parts_differ_but_look_alike() -> None:
    one, other = (draw_good(stream(i), SIZE).astype(int) for i in range(2))
    assert 2 < np.abs(one - other).mean() < 30


def test_the_cap_lies_bright_on_a_dark_belt() -> None:
    grey = draw_good(stream(0), SIZE).mean(axis=2)
    corners = np.concatenate([grey[:20, :20], grey[-20:, -20:]])
    assert corners.mean() < 70 < 110 < grey[60:196, 60:196].mean() < 220


def test_loose_parts_lie_in_any_way_and_wholly_in_the_picture() -> None:
    tight, loose = ([draw_part(stream(i), SIZE, loose=b) for i in range(40)] for b in (False, True))
    assert max(abs(part.turn) for part in tight) < 0.06
    assert np.ptp([part.turn for part in loose]) > 5
    for part in loose:
        assert max(abs(at - SIZE / 2) for at in part.centre) + CAP_RADIUS * SIZE < SIZE / 2


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("index", range(6))
def test_the_mask_is_where_the_part_differs_from_its_good_twin(defect: str, index: int) -> None:
    image, mask = draw_defective(stream(index), defect, SIZE)
    assert mask.shape == image.shape[:2] == (SIZE, SIZE)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    share = (mask > 0).mean()
    assert 0.0005 < share < 0.05

    change = np.abs(image.astype(int) - draw_good(stream(index), SIZE)).max(axis=2)
    # Both carry the same noise; it grows a little with the light that a defect adds.
    assert change[mask == 0].max() <= 8
    assert np.percentile(change[mask > 0], 90) > 12
    _, labels = cv2.connectedComponents(mask)
    assert all(change[labels == blob].max() > 5 for blob in range(1, labels.max() + 1))


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(TrainingError, match="no defect named 'rust'") as caught:
        draw_defective(stream(0), "rust", SIZE)
    assert "scratch" in caught.value.remedy


def test_the_written_folder_has_the_mvtec_layout(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    out = tmp_path / "new" / "cap"
    write_demo(
        out, good=2, test_good=1, per_defect=1, size=128, progress=lambda *p: heard.append(p)
    )
    expected = {"train/good/000.jpg", "train/good/001.jpg", "test/good/000.jpg"}
    expected |= {f"test/{defect}/000.jpg" for defect in DEFECTS}
    expected |= {f"ground_truth/{defect}/000_mask.png" for defect in DEFECTS}
    assert set(files(out)) == expected
    assert heard == [(i, 6) for i in range(1, 7)]
    assert [path.name for path in out.parent.iterdir()] == ["cap"]
    with Image.open(out / "ground_truth/dent/000_mask.png") as mask:
        assert (mask.mode, mask.size) == ("L", (128, 128))
        assert mask.getextrema() == (0, 255)


def test_the_seed_decides_and_a_count_changes_no_other_image(tmp_path: Path) -> None:
    write_demo(tmp_path / "few", seed=3, good=1, test_good=1, per_defect=1, size=128)
    write_demo(tmp_path / "more", seed=3, good=2, test_good=2, per_defect=2, size=128)
    write_demo(tmp_path / "else", seed=4, good=1, test_good=1, per_defect=1, size=128)
    few, more, other = (files(tmp_path / name) for name in ("few", "more", "else"))
    assert few.items() <= more.items()
    assert all(few[name] != other[name] for name in few)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        write_demo(tmp_path, good=1, test_good=0, per_defect=0, size=128)
    assert set(files(tmp_path)) == {"notes.txt"}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    out = tmp_path / "cap"
    out.mkdir()
    write_demo(out, good=1, test_good=0, per_defect=0, size=128)
    assert set(files(out)) == {"train/good/000.jpg"}


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(written: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "cap", good=2, size=128, progress=interrupt)
    assert not list(tmp_path.iterdir())
