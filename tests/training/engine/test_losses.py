import math

import pytest
import torch

from training.engine import losses


def test_reconstruction_is_the_papers_sum_over_channels():
    features = torch.zeros(2, 3, 4, 4)
    rebuilt = torch.full_like(features, 2.0)
    assert losses.reconstruction(features, rebuilt).item() == pytest.approx(3 * 4)


def test_pseudo_huber_by_hand():
    features = torch.zeros(1, 2, 1, 1)
    rebuilt = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
    assert losses.pseudo_huber(features, rebuilt).item() == pytest.approx(math.sqrt(5) - 1)


def test_push_by_hand_and_finite_at_nothing():
    assert losses.push(torch.tensor(0.7)).item() == pytest.approx(
        -math.log(1 - math.exp(-0.7)), rel=1e-5
    )
    assert torch.isfinite(losses.push(torch.tensor(0.0)))
    assert losses.push(torch.tensor(1e-4)).item() == pytest.approx(-math.log(1e-4), rel=2e-3)


@pytest.mark.parametrize("away", [1e-2, 1e-3, 1e-4, 1e-5])
def test_what_is_rebuilt_nearly_perfectly_is_still_pushed(away):
    """In float32 the square root of 1 and a small square is 1: the distance must not vanish so."""
    features = torch.zeros(1, 4, 2, 2)
    rebuilt = torch.full_like(features, away, requires_grad=True)
    phi = losses.pseudo_huber(features, rebuilt)
    assert phi.detach().flatten()[0] == pytest.approx(away**2 / 2, rel=1e-4)
    marked = torch.ones(1, 2, 2)
    losses.push_pull_pixels(phi, marked, 0.3).sum().backward()
    assert (rebuilt.grad < 0).all()  # a step against it moves what is rebuilt further away
    assert rebuilt.grad.abs().min() > 0.1 * away


def test_pixel_labels_by_hand():
    phi = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    marked = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    expected = (1 + 2 + 3) / 4 - 0.3 * math.log(1 - math.exp(-4 / 4))
    assert losses.push_pull_pixels(phi, marked, 0.3).item() == pytest.approx(expected)
    nothing = losses.push_pull_pixels(phi, torch.zeros_like(marked), 0.3)
    assert nothing.item() == pytest.approx(2.5)


def test_image_labels_by_hand():
    phi = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]])
    good, bad = losses.push_pull_images(phi, torch.tensor([0.0, 1.0]), alpha=0.03, k=2).tolist()
    assert good == pytest.approx(3.5)
    assert bad == pytest.approx(-0.03 * math.log(1 - math.exp(-3.5)))


def test_gradients_push_marked_cells_up_and_pull_good_ones_down():
    phi = torch.full((1, 2, 2), 0.5, requires_grad=True)
    marked = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    losses.push_pull_pixels(phi, marked, 0.3).sum().backward()
    assert phi.grad[0, 0, 0] < 0 < phi.grad[0, 1, 1]


def test_known_cells_weigh_what_is_marked_what_is_not_and_what_is_good():
    logits = torch.tensor([[[2.0, -1.0]], [[0.5, 0.5]]])
    marked = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    surprise = [math.log(1 + math.exp(x)) for x in (-2.0, -1.0, 0.5)]
    expected = 0.25 * surprise[0] + 0.25 * surprise[1] + 0.5 * surprise[2]
    found = losses.known_cells(logits, marked, torch.tensor([1.0, 0.0]))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    only_good = losses.known_cells(logits[1:], marked[1:], torch.tensor([0.0]))
    assert only_good.item() == pytest.approx(0.5 * surprise[2], rel=1e-6)


def test_known_images_are_judged_by_their_loudest_cells():
    logits = torch.tensor([[[3.0, 1.0, -9.0]], [[-2.0, -4.0, -9.0]]])
    expected = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-3.0))) / 2
    found = losses.known_images(logits, torch.tensor([1.0, 0.0]), k=2)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert losses.known_images(logits, torch.tensor([1.0, 0.0]), k=99).isfinite()
