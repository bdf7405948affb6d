import numpy as np
import pytest

from models.bundle import Thresholds
from training.evaluation.sensitivity import CONTRAST, Sensitivity, spot


def test_a_spot_is_as_large_and_as_different_as_it_is_said_to_be():
    bright = np.full((64, 64, 3), 200, np.uint8)
    drawn = spot(bright, 12, np.random.default_rng(0))
    away = bright.astype(int) - drawn
    assert away.max() == CONTRAST
    assert (away[..., 0] > CONTRAST / 2).sum() == pytest.approx(np.pi * 6**2, rel=0.05)
    dark = np.full((64, 64, 3), 20, np.uint8)
    assert spot(dark, 12, np.random.default_rng(0)).max() == 20 + CONTRAST


def test_a_spot_is_drawn_within_the_region_of_interest_and_the_image():
    image = np.full((60, 80, 3), 100, np.uint8)
    roi = np.zeros((6, 8), np.bool_)
    roi[5, 7] = True  # the corner: the spot is cut off by the border
    for seed in range(20):
        drawn = spot(image, 9, np.random.default_rng(seed), roi)
        rows, columns = np.nonzero((drawn != image).any(2))
        assert rows.min() >= 50 - 5 and columns.min() >= 70 - 5
        assert len(rows) >= np.pi * 4**2 / 4  # at least the quarter of a spot at the very corner


def test_larger_spots_are_found_more_often(trained):
    """By models that did not learn the part, at a line that some good parts are over."""
    scores, spots = trained.scores, trained.spots
    lines = Thresholds(review=float(np.median(scores)), ng=float(scores.max()) * 1.2)
    found = spots.sensitivity(trained.spot_scores, lines)
    assert found.scale == pytest.approx(96 / 64)  # drawn at 96 pixels, seen at 64
    assert 2 <= found.sides[0] < 3 and found.sides[-1] == pytest.approx(96 / 8.84, abs=0.1)
    assert found.review[-1] > found.review[0]
    assert all(ng <= review for ng, review in zip(found.ng, found.review, strict=True))
    nothing = Thresholds(review=1e9, ng=1e9)
    blind = spots.sensitivity(trained.spot_scores, nothing)
    assert set(blind.review) == {0.0}
    assert "not even those of 11 px" in str(blind)


def test_parts_with_spots_are_measured_by_models_that_did_not_learn_the_part(trained):
    """A spot too small to see leaves the part the score that it has by others."""
    of_part = dict(zip((f.image for f in trained.calibrated), trained.scores, strict=True))
    smallest = trained.spots.files[:: len(trained.spots.sides)]
    given = trained.spot_scores[:: len(trained.spots.sides)]
    by_others = np.array([of_part[file.image] for file in smallest])
    assert np.corrcoef(given, by_others)[0, 1] > 0.5
    assert np.median(np.abs(np.log(given / by_others))) < 0.3


def test_the_smallest_is_where_all_larger_ones_are_found_too():
    spots = Sensitivity((2.0, 4.0, 8.0, 16.0), (0.95, 0.2, 0.9, 1.0), (0, 0, 0, 0.5), 1.0)
    assert spots.smallest(spots.review) == 8
    assert spots.smallest(spots.ng) is None
    assert str(spots) == (
        "Of drawn spots, 9 of 10 are sent to review from 8 px of the camera's image on, and "
        "not rejected whatever their size."
    )
