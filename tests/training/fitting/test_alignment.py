"""Parts that lie turned and shifted: found where they lie, learned and shown there."""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from models.bundle import CHECKPOINT, MODEL, open_bundle
from models.image import InputSize, PixelContract, Pixels
from models.sample import write_snapshot
from models.session import open_session
from tests.training.finetuning.test_retrain import QUICK, labelled
from training.data.demo_cap import draw_part, expose, good_surface, shade
from training.data.demo_product import draw_good, write_demo
from training.data.folders import LabelledFile, read_mvtec
from training.directories import Directories
from training.engine.checkpoint import dump_checkpoint, load_checkpoint
from training.finetuning.retrain import champion_source, retrain
from training.fitting.alignment import learn_alignment, suitable_alignment
from training.fitting.fit import Fitted, fit
from training.fitting.settings import FitSettings
from training.networks.warp import compose, inside, to_aligned, to_image, turned

SIDE = 160
SIZE = InputSize(height=SIDE, width=SIDE)


class Cap(NamedTuple):
    """A cap that lies turned by `turn` radians, its middle at (x, y) in pixels."""

    file: LabelledFile
    pixels: Pixels
    turn: float
    middle: tuple[float, float]


@pytest.fixture(scope="module")
def caps(tmp_path_factory: pytest.TempPathFactory) -> list[Cap]:
    folder = tmp_path_factory.mktemp("caps")
    rng = np.random.default_rng(5)
    drawn = []
    for number in range(24):
        part = draw_part(rng, SIDE, loose=True)
        pixels = expose(part, shade(part, good_surface(part)))
        path = folder / f"{number:02}.png"
        Image.fromarray(pixels).save(path)
        file = LabelledFile(path, path.name, "ok")
        drawn.append(Cap(file, pixels, part.turn, (part.centre[0], part.centre[1])))
    return drawn


def placed(folder: Path, images: list[Pixels]) -> list[LabelledFile]:
    files = []
    for number, image in enumerate(images):
        path = folder / f"{number:02}.png"
        Image.fromarray(image).save(path)
        files.append(LabelledFile(path, path.name, "ok"))
    return files


def batch(caps: list[Cap]) -> torch.Tensor:
    return torch.from_numpy(np.stack([cap.pixels for cap in caps])).permute(0, 3, 1, 2).float()


def test_turns_and_places_are_found_under_lights_that_stand_still(caps):
    learned = learn_alignment(
        [cap.file for cap in caps[:16]], SIZE, (SIDE, SIDE), PixelContract(), rotates=True
    )
    with torch.inference_mode():  # the last eight were not learned
        transform, _ = learned.network.found(batch(caps))
    found = torch.atan2(transform[:, 1], transform[:, 0]).numpy()
    wrong = found - np.array([cap.turn for cap in caps])
    wrong = np.angle(np.exp(1j * (wrong - wrong[0])))
    assert np.degrees(np.ptp(wrong)) < 2.5
    middle = (1 + transform[:, 2:].numpy()) * SIDE / 2
    away = middle - np.array([cap.middle for cap in caps])
    assert np.linalg.norm(away - np.median(away, 0), axis=1).max() < 1.5
    assert learned.turn > 150
    assert 0.02 < learned.shift < 0.15
    assert "up to 1" in str(learned)
    assert "That is little" not in str(learned)


def test_shifts_are_found_in_a_wide_image(tmp_path):
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(60, 200, (12, 24, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    moved = [tuple(rng.integers(-6, 7, 2)) for _ in range(12)]
    # 128 × 320 of 192 × 384
    views = [np.roll(scene, (y, x), (0, 1))[32:-32, 32:-32] for x, y in moved]
    files = placed(tmp_path, views)
    size = InputSize(height=128, width=320)
    learned = learn_alignment(files, size, (320, 128), PixelContract(), rotates=False)
    images = np.stack(views)
    with torch.inference_mode():
        aligned, transform = learned.network(torch.from_numpy(images))
    found = transform[:, 2:].numpy() * 64
    away = found - np.array(moved)
    np.testing.assert_allclose(away, np.broadcast_to(np.median(away, 0), away.shape), atol=0.5)
    middle = aligned[:, 16:-16, 16:-16].float()
    apart = torch.from_numpy(images[:, 16:-16, 16:-16]).float()
    assert middle.std(0).mean() < 0.5 * apart.std(0).mean()


def test_textures_without_a_place_are_said_to_agree_little(tmp_path):
    rng = np.random.default_rng(1)
    files = placed(tmp_path, [rng.integers(90, 160, (96, 96, 3), np.uint8) for _ in range(8)])
    size = InputSize(height=96, width=96)
    learned = learn_alignment(files, size, (96, 96), PixelContract(), rotates=False)
    assert "That is little" in str(learned)


def test_parts_are_aligned_where_they_lie_in_many_ways(caps, tmp_path):
    def found(files: list[LabelledFile], width: int, height: int) -> str:
        return suitable_alignment(files, (width, height), PixelContract())

    assert found([cap.file for cap in caps], SIDE, SIDE) == "rotate"
    rng = np.random.default_rng(3)
    (fixed := tmp_path / "fixed").mkdir()
    in_a_fixture = [draw_good(rng, SIDE) for _ in range(16)]
    assert found(placed(fixed, in_a_fixture), SIDE, SIDE) == "none"
    (moved := tmp_path / "moved").mkdir()
    anywhere = [np.roll(image, tuple(rng.integers(-16, 17, 2)), (0, 1)) for image in in_a_fixture]
    assert found(placed(moved, anywhere), SIDE, SIDE) == "shift"
    (rough := tmp_path / "rough").mkdir()
    textures = [rng.integers(90, 160, (96, 128, 3), dtype=np.uint8) for _ in range(16)]
    assert found(placed(rough, textures), 128, 96) == "none"


def test_what_was_aligned_comes_back_to_its_place():
    y, x = np.mgrid[:96, :160]
    smooth = torch.from_numpy(np.sin(x / 9) + np.cos(y / 7)).float()[None, None]
    extent = (160 / 96, 1.0)
    shift = torch.tensor([[1.0, 0.0, 0.1, -0.05]])
    transform = compose(shift, turned(torch.tensor([0.6])))
    back = to_image(to_aligned(smooth, transform, extent), transform, extent)
    middle = np.s_[..., 30:66, 60:100]
    torch.testing.assert_close(back[middle], smooth[middle], atol=0.02, rtol=0)
    whole = inside((6, 10), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), extent)
    assert whole.all()
    assert not inside((6, 10), transform, extent).all()


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loose")
    write_demo(folder, good=24, test_good=6, per_defect=4, size=SIDE, loose=True)
    return folder


@pytest.fixture(scope="module")
def aligned(loose: Path, backbone, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    places = tmp_path_factory.mktemp("aligned")
    settings = FitSettings("cap", "positional-knn", size=SIDE, align="rotate")
    directories = Directories(places / "store", places / "cache")
    return fit(read_mvtec(loose), backbone, settings, directories)


def test_a_defect_is_shown_where_it_lies_in_the_camera_s_image(aligned, loose):
    bundle = open_bundle(aligned.path)
    assert bundle.manifest.align == "rotate"
    source = champion_source(bundle)
    assert source.layout == load_checkpoint(bundle.read(CHECKPOINT)).layout
    assert source.layout.extent == (1.0, 1.0)
    session = open_session(bundle.read(MODEL), device="cpu")
    good = [file for file in read_mvtec(loose).test if file.verdict == "ok"]
    for file in good:
        part = source.read(file.image)
        marred = part.copy()
        marred[60:76, 90:106] = (230, 40, 40)
        _, heatmaps = session.run(["score", "heatmap"], {"image": np.stack([part, marred])})
        y, x = np.unravel_index((heatmaps[1] - heatmaps[0]).argmax(), heatmaps[1].shape)
        assert math.hypot(x - 98, y - 68) < 16


def test_scores_are_those_of_training_and_masks_follow_the_part(aligned, loose):
    bundle, test = open_bundle(aligned.path), aligned.trained.test
    assert test is not None
    source = champion_source(bundle)
    images = np.stack([source.read(file.image) for file in test.files])
    scores = open_session(bundle.read(MODEL), device="cpu").run(["score"], {"image": images})[0]
    np.testing.assert_allclose(scores, test.scores, rtol=2e-3)
    cache = aligned.trained.cache
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[70:80, 100:110] = True
    for file in test.files:
        back = cache.to_image(file.sha256, cache.to_aligned(file.sha256, mask))
        assert back[mask].all()
        assert back.sum() < 3 * mask.sum()


def test_what_every_good_part_shows_is_judged_where_the_image_cuts_it_off(aligned):
    scorer, cache = aligned.trained.scorer, aligned.trained.cache
    assert scorer.always_HW.mean() > 0.5
    middle = tuple(side // 2 for side in scorer.always_HW.shape)
    assert scorer.always_HW[middle] == 1
    features = cache.batch([aligned.trained.learned[0].sha256])
    features[:, -2] = 1.2  # moved by more than half of the image: only its left part is shown
    shown = inside(scorer.layout.grid, scorer.layout.transform(features), scorer.layout.extent)
    missing = ~shown[0] & (scorer.always_HW > 0)
    assert missing.any()
    with torch.inference_mode():
        distances = scorer.distances(features)[:, 0]
    assert (distances[:, missing] > 0).all()
    never = ~shown[0] & (scorer.always_HW == 0)
    assert (distances[:, never] == 0).all()
    assert torch.equal(load_checkpoint(dump_checkpoint(scorer)).always_HW, scorer.always_HW)


def test_a_retraining_keeps_the_alignment_and_learns_where_defects_are(aligned, loose, tmp_path):
    data, champion = read_mvtec(loose), open_bundle(aligned.path)
    snapshot = write_snapshot(tmp_path / "snapshots", labelled(data.test, masks=True))
    places = Directories(tmp_path / "store", tmp_path / "cache")
    settings = replace(QUICK, steps=10, network_steps=10, reject_by="f1")
    result = retrain(snapshot, champion, places, settings, data=data)
    shown = result.comparison.candidate.metrics
    assert shown["pixel_auroc"] > 0.6  # heatmaps and masks lie in the same frame
    if result.path:
        candidate = open_bundle(result.path)
        assert candidate.manifest.align == "rotate"
        assert champion_source(candidate).graph == champion_source(champion).graph
