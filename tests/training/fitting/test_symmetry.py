"""Mirror images are learned where a product looks the same in a mirror, and only there."""

import cv2
import numpy as np
import pytest

from models.bundle import CHECKPOINT, open_bundle
from models.image import PixelContract, decode
from models.sample import write_snapshot
from tests.training.finetuning.test_retrain import QUICK, labelled
from training.data.folders import read_mvtec
from training.data.mirrored import MIRRORS, mirror_pixels, mirrored
from training.directories import Directories
from training.engine.checkpoint import load_checkpoint
from training.finetuning.retrain import retrain
from training.fitting.fit import fit
from training.fitting.settings import FitSettings
from training.fitting.symmetry import MOST_PARTS, few_parts, find_mirrors
from training.fitting.training import train_recipe
from training.methods.registry import method
from training.methods.train_context import MOST_REPEATED, TrainContext

COUNT = 12


@pytest.fixture(scope="module")
def texture(tmp_path_factory):
    """Good parts of a cloudy surface without a direction, and some with a dark bar."""
    root = tmp_path_factory.mktemp("texture")
    rng = np.random.default_rng(3)
    for folder, count in (("train/good", COUNT), ("test/bar", 4)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            noise = cv2.GaussianBlur(rng.normal(0, 1, (96, 96)), (0, 0), 3)
            image = np.clip(128 + 250 * noise, 0, 255).astype(np.uint8)
            if folder != "train/good":
                image[40:46, 20:70] = 0
            cv2.imwrite(str(root / folder / f"{number}.png"), image)
    return read_mvtec(root)


@pytest.fixture(scope="module")
def fitted(texture, backbone, tmp_path_factory):
    root = tmp_path_factory.mktemp("fitted")
    places = Directories(root / "store", root / "cache")
    return fit(texture, backbone, FitSettings("cap", size=64), places), places


def test_mirror_images_are_learned_of_what_looks_the_same(fitted, texture):
    result, _ = fitted
    assert result.trained.mirrors == MIRRORS
    assert result.trained.learned == texture.train
    (said,) = [choice for choice in result.trained.choices if "mirrored" in choice]
    assert f"{COUNT * 4} images" in said
    # At each position as many vectors as parts and mirror images.
    bundle = open_bundle(result.path)
    assert bundle.manifest.mirrors == MIRRORS
    bank = load_checkpoint(bundle.read(CHECKPOINT)).branches[0].bank_PMC
    cells = 8 * 8 // (bank.shape[0])
    assert bank.shape[1] == COUNT * 4 * max(1, cells)
    # Thresholds are set by the parts alone.
    assert bundle.manifest.calibration.count == COUNT


def test_what_looks_different_in_a_mirror_is_learned_as_it_is(dataset, backbone, tmp_path):
    places = Directories(tmp_path / "store", tmp_path / "cache")
    trained = train_recipe(dataset, backbone, FitSettings("cap", size=64), places)
    assert trained.mirrors == ()
    assert not any("mirrored" in choice for choice in trained.choices)


def test_a_retraining_learns_in_the_same_mirrors(fitted, texture, tmp_path):
    result, places = fitted
    champion = open_bundle(result.path)
    snapshot = write_snapshot(tmp_path / "snapshots", labelled(texture.test, masks=False))
    retrained = retrain(snapshot, champion, places, QUICK, data=texture)
    assert retrained.path is not None
    before, after = (
        load_checkpoint(each.read(CHECKPOINT)).branches[0].bank_PMC.shape
        for each in (champion, open_bundle(retrained.path))
    )
    assert before == after


def test_parts_of_another_day_count_as_much_as_all_others(fitted, texture):
    cache, parts = fitted[0].trained.cache, texture.train
    late = frozenset(file.sha256 for file in parts[:2])
    learned = TrainContext(parts, cache, another_day=late).learned
    assert len(learned) == 20 and sum(file.sha256 in late for file in learned) == 10
    assert {file.sha256 for file in learned} == {file.sha256 for file in parts}
    # Of many parts, mirror images of those of another day alone are worth their time.
    few = few_parts(parts * (MOST_PARTS // COUNT + 1), late)
    assert {file.sha256 for file in few} == late
    assert few_parts(parts, late) == parts
    context = TrainContext(parts, cache, another_day=late, mirrors=MIRRORS, mirrored=late)
    assert len(context.learned) == 10 + 8
    assert TrainContext(parts, cache).learned == parts
    # One alone does not count as much as hundreds.
    one = TrainContext(parts[1:] * 3 + parts[:1], cache, another_day=frozenset({parts[0].sha256}))
    assert len(one.learned) == 33 + MOST_REPEATED


def test_parts_of_one_group_alone_are_not_tried(fitted, texture):
    trained = fitted[0].trained
    context = TrainContext(texture.train, trained.cache)
    groups = np.zeros(COUNT, np.int64)
    settings = trained.scorer.score.settings
    assert find_mirrors(method("quick"), context, texture.train, groups, settings) == (context, "")


def test_an_image_mirrored_twice_is_itself(texture):
    image = decode(texture.train[0].image.read_bytes(), PixelContract())
    image[:10, :20] = 7
    seen = [mirror_pixels(image, mirror) for mirror in MIRRORS]
    for mirror, turned in zip(MIRRORS, seen, strict=True):
        assert not np.array_equal(turned, image)
        assert np.array_equal(mirror_pixels(turned, mirror), image)
    names = {mirrored(texture.train[0], mirror).sha256 for mirror in MIRRORS}
    assert len(names | {texture.train[0].sha256}) == 4
