import numpy as np
import pytest
from PIL import Image

from models.image import read_mask
from training.data.drawn_defects import (
    DRAWINGS,
    changed,
    drawn_on,
    external_anomalies,
)
from training.directories import Directories
from training.errors import DatasetError, TrainingError
from training.evaluation.scoring import evaluate, grid_mask, score_features
from training.fitting.drawn_anomalies import draw_anomalies
from training.fitting.settings import FitSettings
from training.fitting.training import train_recipe
from training.methods.train_context import PushPull


@pytest.fixture
def part(trained, dataset):
    return trained.cache.source.read(dataset.train[0].image)


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_drawing_changes_a_part_of_the_image_and_depends_on_its_seed_alone(kind, part):
    draws = [DRAWINGS[kind](part, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    for after in draws:
        assert after.dtype == np.uint8
        assert after.shape == part.shape
    shares = [
        changed(part, DRAWINGS[kind](part, np.random.default_rng(seed))).mean()
        for seed in range(40)
    ]
    assert max(shares) < 0.6
    assert np.median(shares) > 0.001


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_grey_part_stays_grey(kind):
    grey = np.repeat(np.random.default_rng(0).integers(90, 110, (64, 64, 1)), 3, 2)
    for seed in range(10):
        after = DRAWINGS[kind](grey.astype(np.uint8), np.random.default_rng(seed))
        assert (np.ptp(after, axis=2) == 0).all()


def test_anomalies_lie_with_their_masks_and_features_and_are_drawn_once(trained, dataset, tmp_path):
    given = (dataset.train, trained.cache, ("confetti", "texture"), 6, tmp_path)
    drawn = draw_anomalies(*given)
    assert [file.defect_class for file in drawn[:2]] == ["confetti", "texture"]
    parts = drawn_on(len(dataset.train), 6, 0)
    assert len(set(parts)) == 6
    for file, part in zip(drawn, parts, strict=True):
        mask = read_mask(file.mask.read_bytes())
        cells = grid_mask(mask, *trained.cache.layout.shapes[0][1:])
        assert cells.any()
        both = trained.cache.batch([file.sha256, dataset.train[part].sha256])
        marred, plain = trained.cache.layout.map(both, 0).numpy()
        near, far = (np.abs(marred - plain).mean(0)[where] for where in (cells, ~cells))
        assert near.mean() > far.mean() if far.size else True
        assert read_mask(file.mask.read_bytes()).any()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert draw_anomalies(*given) == drawn
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_an_unknown_kind_and_an_empty_folder_are_said(trained, dataset, tmp_path):
    with pytest.raises(DatasetError, match="glitter"):
        draw_anomalies(dataset.train, trained.cache, ("glitter",), 1, tmp_path)
    with pytest.raises(DatasetError, match="no images"):
        external_anomalies(tmp_path)


def other_things(folder):
    """A folder of images that show no part at all."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        blotches = rng.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(blotches).resize((96, 96)).save(folder / f"{number}.png")
    return folder


def test_a_fit_learns_from_drawn_and_external_anomalies(
    dataset, backbone, with_network, tmp_path, monkeypatch
):
    monkeypatch.setattr("training.fitting.training.ANOMALIES", 16)
    settings = FitSettings(
        "cap", "adtr-small", size=64, grid=4, steps=30, anomalies=("cut-paste",),
        external=other_things(tmp_path / "others"), push_pull=PushPull(steps=100),
    )  # fmt: skip
    places = Directories(tmp_path / "store", tmp_path / "cache")
    learned = train_recipe(dataset, backbone, settings, places)

    def stands_out(model):
        drawn = draw_anomalies(dataset.train, model.cache, ("cut-paste",), 16, tmp_path / "drawn")
        files = (*dataset.train, *drawn)
        found = evaluate(
            score_features(model.scorer, model.cache, files),
            model.cache.source.size,
        )
        bad, good = (np.median(found.scores[found.anomalous == is_bad]) for is_bad in (True, False))
        return bad / good

    assert stands_out(learned) > 1.2 * stands_out(with_network.trained)


def test_what_tells_turns_learns_what_other_things_look_like(dataset, backbone, tmp_path):
    folder = dataset.root / "test" / "missing_print"

    def surprise(**settings):
        """The median at held-out parts, at these turned, and at other things."""
        settings = FitSettings("cap", "rotation", size=64, grid=4, steps=60, **settings)
        trained = train_recipe(
            dataset, backbone, settings, Directories(tmp_path, tmp_path / "cache")
        )
        cache = trained.cache
        parts = [cache.source.read(file.image) for file in dataset.test if file.verdict == "ok"]
        others = [cache.source.read(file.image) for file in external_anomalies(folder)]
        seen = [cache.compute(np.stack(i)) for i in (parts, np.rot90(parts, axes=(1, 2)), others)]
        return [trained.scorer.distances(features)[1].median().item() for features in seen]

    upright, lying, other = surprise()
    assert upright < lying
    exposed = surprise(external=folder, push_pull=PushPull(steps=300))
    assert exposed[0] < exposed[1]  # turns are not forgotten
    assert exposed[2] - exposed[0] > other - upright + 0.3


def test_what_only_remembers_is_refused_anomalies_before_anything_is_computed(
    dataset, backbone, tmp_path
):
    settings = FitSettings("cap", "knn", size=64, grid=4, anomalies=("confetti",))
    with pytest.raises(TrainingError, match="knn only remembers good parts"):
        train_recipe(dataset, backbone, settings, Directories(tmp_path, tmp_path / "cache"))
    assert not list(tmp_path.iterdir())
