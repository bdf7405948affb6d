import numpy as np
import pytest
import torch
from torch import nn

from models.image import InputSize, PixelContract
from tests.said import Said
from training.backbones import feature_graph as graph
from training.backbones.features import FeatureCache, FeatureSource, channel_statistics
from training.engine.checkpoint import dump_checkpoint, load_checkpoint
from training.fitting.fit import fit
from training.fitting.training import FitSettings, Places
from training.methods.fusion import balance, count_what_learned, weigh, with_discriminator
from training.methods.registry import method
from training.methods.train_context import Lesson
from training.networks.discriminator import Discriminator, DiscriminatorConfig
from training.networks.scorer import Reconstruction, Scorer
from training.progress import Reporter


class Backwards(nn.Module):
    """Finds what is usual."""

    def forward(self, features):
        return -torch.linalg.vector_norm(features, dim=1).pow(4)


class Flatter(nn.Module):
    """Rebuilds an image the better, the rarer its rarest cell is."""

    def forward(self, features):
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        rarest = length.flatten(1).amax(1).reshape(-1, *[1] * (features.ndim - 1))
        return features * (1 - 100 / rarest / length)


@pytest.fixture(scope="module")
def lesson(dataset, backbone, tmp_path_factory):
    """Fourteen good parts to learn from; ten are left."""
    size = InputSize(height=64, width=64)
    features = graph.feature_graph(backbone, backbone.manifest.stages, 8)
    cache = FeatureCache(
        tmp_path_factory.mktemp("features"), FeatureSource(features, size, PixelContract())
    )
    cache.add(dataset.train)
    learned = dataset.train[:14]
    return Lesson(learned, cache, channel_statistics(cache, learned), steps=3)


@pytest.fixture
def weighed(lesson, dataset, tmp_path):
    """A scorer of `places`, and of this besides."""

    def make(part):
        places, _ = method("places").learn(lesson)
        scorer = Scorer(
            places.shape, places.standardise, places.whitenings, [*places.parts, part], [1, 1],
            places.score,
        )  # fmt: skip
        normals = dataset.train[14:]
        balance(scorer, lesson.cache, normals)
        found, _ = weigh(
            scorer,
            lesson.cache,
            normals,
            tmp_path,
            names=("places", "other"),
            seed=0,
            reporter=Reporter(),
        )
        return found

    return make


def test_a_part_that_misleads_counts_for_nothing_and_is_left_out(weighed, lesson):
    alone, _ = method("places").learn(lesson)
    found = weighed(Backwards())
    assert [type(part) for part in found.parts] == [type(part) for part in alone.parts]
    assert found.weight_P.tolist() == [1]
    raw = torch.from_numpy(np.stack([lesson.cache[file.sha256] for file in lesson.files]))
    scores, _ = found(raw)
    torch.testing.assert_close(scores * found.scale_P, alone(raw)[0])


def test_what_can_learn_from_labels_stays_and_counts_once_it_has(weighed):
    found = weighed(Reconstruction(Flatter()))
    assert found.weight_P.tolist() == [1, 0]
    count_what_learned(found, mix=0.5)
    assert found.weight_P.tolist() == [1, 0.5]


def test_what_knows_defects_counts_for_its_share_and_is_learned_anew(weighed, lesson):
    found = weighed(Backwards())
    channels = lesson.raw_shape[0]
    knowing = [Discriminator(DiscriminatorConfig(channels, hidden)) for hidden in (0, 8)]
    grown = with_discriminator(found, knowing[0])
    count_what_learned(grown, mix=0.5)
    assert grown.weight_P.tolist() == [1, 0.5]
    again = with_discriminator(grown, knowing[1])
    assert list(again.parts) == [found.parts[0], knowing[1]]
    raw = torch.from_numpy(lesson.cache[lesson.files[0].sha256])[None]
    loaded = load_checkpoint(dump_checkpoint(again))
    torch.testing.assert_close(loaded(raw), again(raw))


def test_best_is_weighed_and_says_how(dataset, backbone, tmp_path):
    reporter = Said()
    settings = FitSettings("cap", "best", size=64, grid=4, steps=3)
    places = Places(tmp_path / "store", tmp_path / "cache")
    fitted = fit(dataset, backbone, settings, places, reporter=reporter)
    assert fitted.trained.scorer.weight_P.sum() == 1
    said = fitted.trained.weighed
    assert all(name in said for name in ("fast", "places", "anywhere"))
    assert said in reporter.lines
    assert said in (fitted.path / "report.html").read_text()
