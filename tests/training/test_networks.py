import numpy as np
import pytest
import torch

from training.networks.adtr import Adtr, AdtrConfig
from training.networks.knn import NearestNeighbour
from training.networks.scorer import HeatmapScore, Standardise


def test_the_papers_network_has_the_papers_size():
    network = Adtr(AdtrConfig(channels=720, height=16, width=16))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(7.8e6, rel=0.03)


@pytest.mark.parametrize("query", ["each_layer", "target"])
def test_features_are_rebuilt_in_their_own_shape_and_every_weight_learns(query):
    config = AdtrConfig(12, 4, 5, layers=2, dimension=16, heads=4, feedforward=32, query=query)
    network = Adtr(config)
    features = torch.randn(3, 12, 4, 5)
    rebuilt = network(features)
    assert rebuilt.shape == features.shape
    rebuilt.square().mean().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize(("channels", "dimension"), [(6, 16), (24, 8)])
def test_projections_start_at_the_components_that_good_parts_vary_in(channels, dimension):
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(channels, channels))
    tokens = torch.randn(4000, 4) * torch.tensor([3.0, 2.0, 1.0, 0.5]) @ basis[:4]  # of rank 4
    network = Adtr(
        AdtrConfig(channels, 2, 2, layers=1, dimension=dimension, heads=2, feedforward=8)
    )
    network.start_at_components(tokens.T @ tokens / len(tokens))
    inner = network.project_in(tokens)[:, : min(channels, dimension)]
    assert torch.allclose(inner.var(0).sort().values[-4:], torch.ones(4), atol=0.1)
    outer = inner @ network.project_out.weight[:, : inner.shape[1]].T
    assert torch.allclose(outer, tokens, atol=1e-3)


def test_a_tokens_place_matters():
    network = Adtr(AdtrConfig(6, 2, 2, layers=1, dimension=8, heads=2, feedforward=8)).eval()
    features = torch.randn(1, 6, 2, 2)
    swapped = features.flip(3)
    assert not torch.allclose(network(features).flip(3), network(swapped), atol=1e-4)


def test_the_heatmap_keeps_level_and_place():
    score = HeatmapScore(stride=16)
    values, heatmap = score(torch.full((2, 4, 4), 3.0))
    assert heatmap.shape == (2, 64, 64)
    assert torch.allclose(heatmap, torch.full_like(heatmap, 3.0), atol=1e-5)
    assert torch.allclose(values, torch.full((2,), 3.0), atol=1e-5)
    spot = torch.zeros(1, 4, 4)
    spot[0, 1, 2] = 1.0
    value, heatmap = score(spot)
    y, x = np.unravel_index(int(heatmap.argmax()), (64, 64))
    assert (y // 16, x // 16) == (1, 2)
    assert 0 < float(value) <= float(heatmap.max())


def test_standardised_features_have_no_mean_and_unit_deviation():
    features = torch.randn(50, 3, 8, 8) * 4 + 7
    done = Standardise(features.mean((0, 2, 3)), features.std((0, 2, 3)))(features)
    assert done.mean((0, 2, 3)).abs().max() < 1e-5
    assert (done.std((0, 2, 3)) - 1).abs().max() < 1e-4
    constant = Standardise(torch.zeros(1), torch.zeros(1))(torch.zeros(1, 1, 2, 2))
    assert torch.isfinite(constant).all()


def test_a_neighbour_in_the_bank_is_no_distance_away():
    features = torch.randn(1, 5, 3, 3)
    bank = features.flatten(2)[0].T
    plain = Standardise(torch.zeros(5), torch.ones(5))
    scorer = NearestNeighbour(plain, bank, HeatmapScore(16)).eval()
    near, _ = scorer(features)
    far, _ = scorer(features + 3)
    assert float(near) < 1e-2 < float(far)
