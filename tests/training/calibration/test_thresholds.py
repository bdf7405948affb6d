import numpy as np
import pytest
from sklearn.metrics import f1_score

from models.bundle import NO_REJECT
from training.calibration.tail import fit_tail, rate_interval
from training.calibration.thresholds import (
    Rates,
    best_f1,
    calibrate,
    exceeded,
    statement,
    threshold,
)
from training.errors import TrainingError


def gumbel(count, seed):
    """Scores like those of good parts: the largest of many distances, skewed to the right."""
    return np.random.default_rng(seed).gumbel(3.0, 0.5, count)


@pytest.mark.parametrize("count", [50, 200, 600])
@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_mean_rate_over_draws_of_parts_is_the_nominal_one(count, rate):
    beyond = []
    for seed in range(60):
        score = exceeded(gumbel(count, seed), rate)
        beyond.append((gumbel(4000, 1000 + seed) >= score).mean())
    assert 0.5 * rate <= np.mean(beyond) <= 1.5 * rate


@pytest.mark.parametrize(("count", "rate", "counted"), [(200, 0.05, True), (50, 0.01, False)])
def test_interval_holds_the_true_rate_as_often_as_it_says(count, rate, counted):
    held = []
    for seed in range(60):
        found = threshold(gumbel(count, seed), rate, count)
        assert found.counted == counted
        true = (gumbel(20_000, 1000 + seed) >= found.score).mean()
        held.append(found.interval[0] <= true <= found.interval[1])
    assert np.mean(held) >= 0.75  # a bootstrap's of few parts is somewhat narrow


def test_parts_of_a_group_widen_the_interval():
    scores = gumbel(200, 0)
    alone, grouped = (threshold(scores, 0.05, groups).interval for groups in (200, 20))
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_a_defective_part_among_good_ones_hardly_moves_the_tail():
    scores = gumbel(31, 3)
    clean = fit_tail(scores).quantile(0.05)
    spoiled = fit_tail(np.append(scores, scores.max() + 50)).quantile(0.05)
    spread = np.quantile(scores, 0.9) - np.median(scores)
    assert spoiled - clean < spread


def test_parts_that_all_score_the_same_have_a_threshold():
    scores = np.full(30, 2.0)
    assert 2.0 <= fit_tail(scores).quantile(0.05) < 2.001
    low, high = rate_interval(scores, 0.05, 0.9)
    assert 0 <= low <= high <= 1


def test_too_few_parts_reject_nothing_and_say_how_many_are_missing():
    calibration, lines = calibrate(gumbel(12, 0))
    assert not calibration.automatic_reject
    assert lines.ng == NO_REJECT
    assert lines.verdict(100.0) == "review"
    assert "Nothing is rejected automatically" in statement(calibration)
    assert "487 more" in statement(calibration)


def test_enough_parts_reject_and_state_both_ranges():
    calibration, lines = calibrate(gumbel(999, 0), Rates(review=0.02, reject=0.005))
    assert calibration.automatic_reject
    assert calibration.counted
    assert calibration.review_interval[0] < 0.02 < calibration.review_interval[1]
    assert lines.review < lines.ng < NO_REJECT
    assert statement(calibration).startswith("Review: between 1.3 and 2.8 % of good parts")


@pytest.mark.parametrize("rates", [(0.01, 0.05), (0.05, 0.0), (1.0, 0.01)])
def test_rates_that_make_no_band_are_refused(rates):
    with pytest.raises(TrainingError, match="no review band"):
        Rates(*rates)


def test_labelled_defects_can_move_the_reject_threshold():
    """To where F1 is highest; never above the review threshold."""
    good, bad = np.array([1.0, 2, 3, 4, 5, 6]), np.array([4.5, 7, 8, 9])
    line, f1 = best_f1(good, bad)
    assert line == 6.5
    assert f1 == pytest.approx(2 * 3 / (3 + 4))
    rng = np.random.default_rng(1)
    good, bad = rng.normal(0, 1, 300), rng.normal(2, 1, 40)
    by_hand = max(f1_score(np.r_[np.zeros(300), np.ones(40)], np.r_[good, bad] >= cut)
                  for cut in np.r_[good, bad])  # fmt: skip
    assert best_f1(good, bad)[1] == pytest.approx(by_hand)
    calibration, lines = calibrate(good, Rates(review=0.2, reject=0.1), bad)
    assert calibration.f1 == pytest.approx(by_hand)
    assert lines.review <= lines.ng
    assert "promises no false-reject rate" in statement(calibration)
