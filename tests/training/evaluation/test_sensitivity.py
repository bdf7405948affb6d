import numpy as np
import pytest

from models.bundle import Thresholds
from training.evaluation.sensitivity import CONTRAST, Sensitivity, find_spots, spot
from training.progress import Reporter


def test_a_spot_is_as_large_and_as_different_as_it_is_said_to_be():
    bright = np.full((64, 64, 3), 200, np.uint8)
    drawn = spot(bright, 12, np.random.default_rng(0))
    away = bright.astype(int) - drawn
    assert away.max() == CONTRAST
    assert (away[..., 0] > CONTRAST / 2).sum() == pytest.approx(np.pi * 6**2, rel=0.05)
    dark = np.full((64, 64, 3), 20, np.uint8)
    assert spot(dark, 12, np.random.default_rng(0)).max() == 20 + CONTRAST


def test_larger_spots_are_found_more_often(trained):
    """By a real model, at a line that some good parts are over."""
    scores = trained.scores
    lines = Thresholds(review=float(np.median(scores)), ng=float(scores.max()) * 1.2)
    found = find_spots(trained.scorer, trained.cache, trained.learned, lines, Reporter())
    assert found.sides[0] == 2 * found.scale
    assert found.scale == pytest.approx(96 / 64)  # drawn at 96 pixels, seen at 64
    assert found.review[-1] >= found.review[0]
    assert all(ng <= review for ng, review in zip(found.ng, found.review, strict=True))
    nothing = Thresholds(review=1e9, ng=1e9)
    blind = find_spots(trained.scorer, trained.cache, trained.learned, nothing, Reporter())
    assert set(blind.review) == {0.0}
    assert "not even those of 24 px" in str(blind)


def test_the_smallest_is_where_all_larger_ones_are_found_too():
    spots = Sensitivity((2.0, 4.0, 8.0, 16.0), (0.95, 0.2, 0.9, 1.0), (0, 0, 0, 0.5), 1.0)
    assert spots.smallest(spots.review) == 8
    assert spots.smallest(spots.ng) is None
    assert str(spots) == (
        "Of drawn spots, 9 of 10 are sent to review from 8 px of the camera's image on, and "
        "not rejected whatever their size."
    )
