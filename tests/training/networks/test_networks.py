import itertools

import numpy as np
import pytest
import torch

from training.networks.adtr import Adtr, AdtrConfig, around
from training.networks.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.networks.coreset import coreset_by_position, greedy_coreset
from training.networks.image_bank import ImageBank, ImageBankConfig
from training.networks.memory_bank import MemoryBank, MemoryBankConfig
from training.networks.orientation import TURNS, Orientation, OrientationConfig
from training.networks.positional_bank import PositionalBank, PositionalBankConfig
from training.networks.positions import by_cell, by_position, positions_of
from training.networks.scorer import HeatmapScore, Length, Standardise
from training.networks.whitening import Moments


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
    score = HeatmapScore(stride=16, grid=(4, 4))
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
    bank = MemoryBank(MemoryBankConfig(channels=5, size=9))
    bank.remember(features.flatten(2)[0].T)
    assert bank(features).max() < 1e-2
    brute = torch.cdist((features + 1).flatten(2)[0].T, bank.vectors).amin(1)
    torch.testing.assert_close(bank(features + 1).flatten(), brute, rtol=1e-3, atol=1e-3)


def test_features_far_from_zero_lose_no_digits():
    torch.manual_seed(0)
    parts = torch.randn(1, 5, 6, 6) + 500
    bank = MemoryBank(MemoryBankConfig(channels=5, size=18))
    bank.remember(parts.flatten(2)[0].T[::2])
    brute = torch.cdist(parts.flatten(2)[0].T.double(), bank.vectors.double()).amin(1)
    torch.testing.assert_close(bank(parts).flatten().double(), brute, rtol=1e-3, atol=1e-2)


def test_images_are_as_far_as_their_directions_are_from_the_nearest():
    torch.manual_seed(0)
    images = torch.rand(12, 5, 3, 4)
    bank = ImageBank(ImageBankConfig(channels=5, size=12, neighbours=3))
    bank.remember(images.mean((2, 3)))
    pooled = (0.1 * images[:2] + 1).mean((2, 3))
    cosines = torch.cosine_similarity(pooled[:, None], images.mean((2, 3))[None], dim=2)
    brute = 1 - cosines.topk(3, dim=1).values.mean(1)
    found = bank(0.1 * images[:2] + 1)
    assert found.shape == (2, 1, 1)
    torch.testing.assert_close(found.flatten(), brute, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(bank(7 * images), bank(images))  # contrast says nothing


def test_a_place_remembers_only_what_was_there():
    parts = torch.randn(7, 5, 3, 4)
    bank = PositionalBank(PositionalBankConfig(channels=5, positions=(3, 4), size=7))
    bank.remember(by_position(parts, (3, 4)))
    assert bank(parts[2:3]).max() < 1e-2
    moved = parts.roll(1, 3)
    brute = (moved[:, None] - parts[None]).norm(dim=2).amin(1)
    torch.testing.assert_close(bank(moved), brute, rtol=1e-3, atol=1e-3)


def test_a_fine_grid_is_cut_into_places():
    """Of several cells each; and put together again."""
    assert positions_of(16, 16) == (16, 16)
    assert positions_of(32, 48) == (16, 16)
    assert positions_of(18, 17) == (9, 17)
    features = torch.randn(2, 3, 8, 12)
    places = by_position(features, (4, 3))
    assert places.shape == (12, 2 * 2 * 4, 3)
    torch.testing.assert_close(by_cell(places, (4, 3), (8, 12)), features)
    corner = features[:, :, :2, :4].permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(places[0], corner)


def test_a_coreset_covers_what_random_vectors_miss():
    torch.manual_seed(0)
    crowd, outlier = torch.randn(500, 4) * 0.1, torch.tensor([[9.0, 0, 0, 0]])
    vectors = torch.cat([crowd, outlier])
    chosen = greedy_coreset(vectors, 5, seed=0)
    assert len(set(chosen.tolist())) == 5
    assert 500 in chosen


def test_each_vector_of_a_coreset_is_the_farthest_from_those_before():
    torch.manual_seed(0)
    # Whole numbers: distances are exact, and none depends on the order of sums.
    vectors = torch.randperm(2**20)[: 2000 * 4].view(2000, 4).double()
    chosen = greedy_coreset(vectors, 600, seed=0)
    nearest = torch.full((2000,), torch.inf, dtype=torch.float64)
    for last, following in itertools.pairwise(chosen):
        nearest = torch.minimum(nearest, (vectors - vectors[last]).square().sum(1))
        assert nearest[following] == nearest.max()


def test_vectors_that_are_all_alike_are_chosen_once_each():
    assert len(set(greedy_coreset(torch.zeros(40, 4), 20, seed=0).tolist())) == 20


def test_each_position_keeps_vectors_that_cover_its_own():
    torch.manual_seed(0)
    vectors = torch.randn(3, 60, 4) * 0.1
    vectors[0, 41], vectors[2, 7] = 9.0, -9.0
    kept = coreset_by_position(vectors, 5)
    assert kept.shape == (3, 5, 4)
    assert (kept[0] == 9.0).all(1).any() and (kept[2] == -9.0).all(1).any()
    assert kept[1].abs().max() < 1
    farthest = torch.cdist(vectors, kept).amin(2).amax(1)
    random = torch.cdist(vectors, vectors[:, 10:15]).amin(2).amax(1)
    assert (farthest < random).all()
    assert coreset_by_position(vectors, 60) is vectors


@pytest.mark.parametrize("kind", ["each place", "all places", "pooled"])
def test_a_gaussians_distance_is_mahalanobis(kind):
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((3, 3)) @ rng.standard_normal((3, 3000))
    features = torch.from_numpy(mixed.astype(np.float32)).T.reshape(-1, 2, 2, 3).permute(0, 3, 1, 2)
    places = (2, 2) if kind == "each place" else (1, 1)
    moments = Moments(torch.eye(3), places, pooled=kind == "pooled")
    for batch in features.split(100):
        moments.add(batch)
    places = {
        "each place": list(features.flatten(2).permute(2, 0, 1)),
        "all places": [features.permute(0, 2, 3, 1).reshape(-1, 3)],
        "pooled": [features.mean((2, 3))],
    }[kind]
    covariances = [np.cov(place.numpy().T, bias=True) for place in places]
    ridge = 0.01 * np.mean([np.diag(covariance) for covariance in covariances], 0)
    probe = np.array([2.0, -1.0, 0.5])
    expected = []
    for place, covariance in zip(places, covariances, strict=True):
        away = probe - place.numpy().mean(0)
        expected.append(np.sqrt(away @ np.linalg.inv(covariance + np.diag(ridge)) @ away))
    image = torch.from_numpy(probe.astype(np.float32)).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    found = Length()(moments.whitening()(image)).flatten().tolist()
    assert found == pytest.approx(expected * (4 // len(places)), rel=1e-3)


def test_a_channel_that_good_parts_never_raise_is_no_trouble():
    features = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 0
    moments = Moments(torch.eye(5), (1, 1))
    moments.add(features)
    whitening = moments.whitening()
    assert whitening(features).square().mean() == pytest.approx(4 / 5, rel=0.05)
    features[:, 2] = 0.5
    assert whitening(features)[:, 2].abs().min() > 10


def test_windows_are_rebuilt_apart_and_each_at_its_own_place():
    torch.manual_seed(0)
    small = {"layers": 1, "dimension": 16, "feedforward": 32, "heads": 2}
    network = Adtr(AdtrConfig(5, 8, 8, window=4, **small)).eval()
    features = torch.randn(3, 5, 8, 8)
    rebuilt = network(features)
    changed = features.clone()
    changed[:, :, :4, :4] += 1
    difference = (network(changed) - rebuilt).abs().amax((0, 1))
    assert (difference[:4, :4] > 1e-4).all()
    assert difference[4:].max() < 1e-6
    assert difference[:, 4:].max() < 1e-6
    # A window is what a network of that size would make of it.
    alone = Adtr(AdtrConfig(5, 4, 4, **small)).eval()
    weights = network.state_dict()
    for name in ("position_LD", "query_LD"):
        weights[name] = weights[name].view(8, 8, -1)[4:, :4].reshape(16, -1)
    alone.load_state_dict(weights)
    torch.testing.assert_close(alone(features[:, :, 4:, :4]), rebuilt[:, :, 4:, :4])


def test_a_masked_token_is_not_rebuilt_from_itself_or_its_neighbours():
    hidden = around(5, 5, 3).view(5, 5, 5, 5)
    assert hidden[2, 2, 1:4, 1:4].all()
    assert hidden[2, 2].sum() == 9
    assert hidden[0, 0].sum() == 4


@pytest.mark.parametrize(
    "settings", [{"query": "none"}, {"attention": False, "query": "target"}, {"masked": 3}]
)
def test_every_ablation_learns_with_every_weight(settings):
    config = AdtrConfig(12, 4, 5, layers=2, dimension=16, heads=4, feedforward=32, **settings)
    network = Adtr(config)
    network(torch.randn(3, 12, 4, 5)).square().mean().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None}
    # Without attention a token's place is nowhere looked at.
    assert idle <= {"position_LD"}


def test_without_attention_a_token_sees_itself_alone():
    config = AdtrConfig(6, 2, 2, layers=1, dimension=8, heads=2, feedforward=8, attention=False)
    network = Adtr(config).eval()
    features = torch.randn(1, 6, 2, 2)
    changed = features.clone()
    changed[0, :, 1, 1] += 1
    same = network(features) == network(changed)
    assert same[0, :, 0].all() and same[0, :, 1, 0].all()
    assert not same[0, :, 1, 1].all()


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (5, 3)])
def test_an_orientation_is_the_surprise_at_an_upright_part(height, width):
    network = Orientation(OrientationConfig(6, height, width, hidden=8)).eval()
    features = torch.randn(3, 6, height, width)
    chances = network.outcomes(features).softmax(1)
    assert chances.shape == (3, TURNS + 1)
    surprise = network(features)
    assert surprise.shape == (3, height, width)
    torch.testing.assert_close(surprise[:, -1, -1].neg().exp(), chances[:, 0])


def test_a_convolutional_autoencoder_rebuilds_in_shape():
    network = ConvolutionalAutoencoder(ConvolutionalConfig(6, (8, 4)))
    assert network(torch.randn(2, 6, 8, 12)).shape == (2, 6, 8, 12)
