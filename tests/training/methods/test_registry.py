import numpy as np
import pytest
import torch
from safetensors.torch import save

from models.image import InputSize, PixelContract
from models.session import open_session
from training.backbones import feature_graph as graph
from training.backbones.features import FeatureCache, FeatureSource, channel_statistics
from training.engine.checkpoint import dump_checkpoint, load_checkpoint
from training.engine.export import export_head
from training.errors import TrainingError
from training.methods.branches import Whiten
from training.methods.fusion import balance
from training.methods.registry import METHODS, method
from training.methods.train_context import Lesson
from training.networks.scorer import Scorer


@pytest.fixture(scope="module")
def learn_from(dataset, tmp_path_factory):
    """Parts of 64 pixels as a graph sees them."""

    def lesson(features):
        source = FeatureSource(features, InputSize(height=64, width=64), PixelContract())
        cache = FeatureCache(tmp_path_factory.mktemp("features"), source)
        cache.add(dataset.train)
        return Lesson(dataset.train, cache, channel_statistics(cache, dataset.train), steps=3)

    return lesson


@pytest.fixture(scope="module")
def lesson(learn_from, backbone):
    return learn_from(graph.feature_graph(backbone, backbone.manifest.stages, 8))


@pytest.fixture(scope="module")
def pixels(learn_from):
    return learn_from(graph.pixel_graph())


# To be exported takes ten times as long as to be learned, and these are made of the same layers as
# another: of `small`'s, of `best`'s without places, of `padim`'s.
ALIKE = {"last-stage", "fast", "components"}


@pytest.fixture
def learned(name, lesson, pixels):
    """(scorer, loss by step, features (3, C, h, w)) of a method."""
    given = pixels if METHODS[name].sight == "pixels" else lesson
    scorer, curve = method(name).learn(given)
    features = np.stack([given.cache[f.sha256] for f in given.files[:3]])
    return scorer, curve, torch.from_numpy(features)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_can_be_kept(learned):
    scorer, curve, raw = learned
    with torch.inference_mode():
        scores, heatmaps = scorer(raw)
        again, _ = load_checkpoint(dump_checkpoint(scorer))(raw)
    assert heatmaps.shape == (3, 64, 64)
    assert np.isfinite(curve).all()
    torch.testing.assert_close(again, scores)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ALIKE])
def test_a_method_is_served_as_it_was_trained(learned):
    scorer, _, raw = learned
    with torch.inference_mode():
        scores, heatmaps = scorer(raw)
    session = open_session(export_head(scorer, scorer.shape).SerializeToString(), device="cpu")
    served = session.run(["score", "heatmap"], {"features": raw.numpy()})
    np.testing.assert_allclose(served[0], scores.numpy(), atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(served[1], heatmaps.numpy(), atol=1e-2, rtol=1e-3)


def test_weights_in_an_earlier_format_are_refused(lesson):
    data = save({"scale_P": torch.ones(1)}, metadata={"kizu": '{"parts": [{"adtr": {}}]}'})
    with pytest.raises(TrainingError, match="no longer read"):
        load_checkpoint(data)
    scorer, _ = method("turned").learn(lesson)
    scorer.parts[1].body[3] = torch.nn.Linear(3, 3)  # as if the network had looked otherwise
    with pytest.raises(TrainingError, match="no longer read"):
        load_checkpoint(dump_checkpoint(scorer))


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(TrainingError, match="magic") as raised:
        method("magic")
    assert "paper" in str(raised.value.remedy)


def test_a_mask_over_the_whole_grid_is_refused(learn_from, backbone):
    coarse = learn_from(graph.feature_graph(backbone, backbone.manifest.stages, 16))
    with pytest.raises(TrainingError, match="4×4"):
        method("uniad").learn(coarse)


def test_parts_of_a_scorer_weigh_alike(lesson):
    """Whatever the unit that each measures in."""
    one, _ = method("small").learn(lesson)
    two, _ = method("pooled-gaussian").learn(lesson)
    joined = Scorer(
        one.shape, one.standardise, two.whitenings, [*one.parts, *two.parts], [0, 1], one.score
    )
    balance(joined, lesson.cache, lesson.files)
    raw = torch.from_numpy(np.stack([lesson.cache[f.sha256] for f in lesson.files]))
    alone = [joined.score(part)[0] for part in joined.distances(raw)]
    spread = torch.stack(alone).std(1) / joined.scale_P
    assert spread.tolist() == pytest.approx([1, 1], rel=1e-3)


def test_channels_that_depend_on_each_other_do_not_drown_the_rest(lesson):
    """Whitening divides by how much a direction varies: not where that is nothing but rounding."""
    whitening = Whiten(1000, components=True)(lesson)
    seen = torch.cat([whitening(features) for features in lesson.batches()])
    assert whitening.config.kept < lesson.shape[0]  # pooled planes repeat from octave to octave
    assert (seen.var((0, 2, 3)) < 1.05).all()
    shaken = seen - torch.cat([whitening(features * (1 + 1e-6)) for features in lesson.batches()])
    assert shaken.abs().max() < 1e-2
