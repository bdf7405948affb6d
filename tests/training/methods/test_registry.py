import functools

import numpy as np
import pytest
import torch
from safetensors.torch import save

from models.session import open_session
from training.backbones.features import FeatureCache
from training.engine.checkpoint import dump_checkpoint, load_checkpoint
from training.engine.export import export_head
from training.errors import TrainingError
from training.fitting.inputs import feature_source
from training.fitting.settings import FitSettings
from training.methods.branches import Whiten
from training.methods.registry import METHODS, method
from training.methods.train_context import TrainContext


@pytest.fixture(scope="module")
def learn_from(dataset, backbone, tmp_path_factory):
    """Parts of 64 pixels in some views."""

    def context(views, cell=8):
        source = feature_source(
            backbone, views, dataset.train, FitSettings("cap", size=64, grid=64 // cell)
        )
        cache = FeatureCache(tmp_path_factory.mktemp("features"), source)
        cache.add(dataset.train)
        return TrainContext(dataset.train, cache, steps=3)

    return functools.cache(context)


@pytest.fixture(scope="module")
def context(learn_from):
    return learn_from(("all",))


# A network takes ten times as long to be exported as to be learned, and these are made of the same
# layers as that of `adtr-small`.
ALIKE = {"last-stage", "adtr-whitened", "paper", "adtr"}


@pytest.fixture
def learned(name, learn_from):
    """(scorer, loss by step, features (3, D)) of a method."""
    context = learn_from(METHODS[name].views)
    scorer, curve = method(name).learn(context)
    return scorer, curve, context.cache.batch([file.sha256 for file in context.files[:3]])


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
    session = open_session(export_head(scorer).SerializeToString(), device="cpu")
    served = session.run(["score", "heatmap"], {"features": raw.numpy()})
    np.testing.assert_allclose(served[0], scores.numpy(), atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(served[1], heatmaps.numpy(), atol=1e-2, rtol=1e-3)


def test_a_part_far_from_all_good_ones_has_the_score_that_was_trained(learn_from):
    """Exponentials of its deviations would overflow."""
    context = learn_from(METHODS["quick"].views)
    scorer, _ = method("quick").learn(context)
    scorer.fusion.scale_P.fill_(0.01)
    far = 1e3 * context.cache.batch([context.files[0].sha256])
    with torch.inference_mode():
        score, heatmap = scorer(far)
    assert score > 200  # beyond which float32 has no exponential
    session = open_session(export_head(scorer).SerializeToString(), device="cpu")
    served = session.run(["score", "heatmap"], {"features": far.numpy()})
    np.testing.assert_allclose(served[0], score.numpy(), rtol=1e-4)
    np.testing.assert_allclose(served[1], heatmap.numpy(), rtol=1e-3)


def test_weights_in_an_earlier_format_are_refused(context):
    data = save({"scale_P": torch.ones(1)}, metadata={"kizu": '{"parts": [{"adtr": {}}]}'})
    with pytest.raises(TrainingError, match="no longer read"):
        load_checkpoint(data)
    scorer, _ = method("rotation").learn(context)
    scorer.branches[1].body[3] = torch.nn.Linear(3, 3)  # as if the network had looked otherwise
    with pytest.raises(TrainingError, match="no longer read"):
        load_checkpoint(dump_checkpoint(scorer))


def test_the_papers_network_sees_features_as_they_come_and_starts_at_random(context):
    scorer, _ = method("paper").learn(context)
    raw = context.cache.batch([context.files[0].sha256])
    torch.testing.assert_close(scorer.seen(raw, 0), context.cache.layout.map(raw, 0))
    assert method("paper").branches[0].learn._schedule(context.view(0)).kind == "step"
    network = scorer.branches[0].network
    assert network.config.strict
    assert (network.config.layers, network.config.dimension) == (4, 256)
    # Xavier's bound; a start at principal components and small branches would show elsewhere.
    narrow = network.encoder[0].feedforward.narrow.weight.detach()
    bound = (6 / sum(narrow.shape)) ** 0.5
    assert 0.9 * bound < float(narrow.abs().max()) < 1.1 * bound


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(TrainingError, match="magic") as raised:
        method("magic")
    assert "patchcore" in str(raised.value.remedy)


def test_a_mask_over_the_whole_grid_is_refused(learn_from):
    coarse = learn_from(("all",), 16)
    with pytest.raises(TrainingError, match="4×4"):
        method("uniad").learn(coarse)


def test_dependent_channels_do_not_drown_the_rest(context):
    """Whitening divides by how much a direction varies: not where that is nothing but rounding."""
    whitening = Whiten(1000, components=True)(context.view(0))
    seen = torch.cat([whitening(features) for features in context.view(0).batches()])
    assert (
        whitening.config.kept < context.view(0).shape[0]
    )  # pooled planes repeat from octave to octave
    assert (seen.var((0, 2, 3)) < 1.05).all()
    shaken = seen - torch.cat(
        [whitening(features * (1 + 1e-6)) for features in context.view(0).batches()]
    )
    assert shaken.abs().max() < 1e-2
