import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.calibration.thresholds import Rates, best_f1, calibrate, conformal, statement
from training.errors import TrainingError


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_good_parts_are_refused_at_the_promised_rate(rate):
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(400):
        line = conformal(rng.normal(size=199), rate)
        refused.append((rng.normal(size=200) >= line).mean())
    assert np.mean(refused) == pytest.approx(rate, rel=0.15)
    assert np.mean(refused) <= rate * 1.05


def test_lines_follow_the_rates_that_are_asked_for():
    scores = np.arange(999.0)
    calibration, lines = calibrate(scores, Rates(review=0.02, reject=0.001))
    assert (scores >= lines.review).sum() == 19
    assert lines.ng > 998
    assert "2% false reviews and 0.1% false rejects" in statement(calibration)
    assert "which takes 1999" in statement(calibrate(scores, Rates(reject=0.0005))[0])


@pytest.mark.parametrize("rates", [(0.01, 0.05), (0.05, 0.0), (1.0, 0.01)])
def test_rates_that_make_no_band_are_refused(rates):
    with pytest.raises(TrainingError, match="no review band"):
        Rates(*rates)


def test_labelled_defects_can_move_the_reject_line():
    """To where F1 is highest; never above the line of review."""
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


def test_too_few_parts_resolve_nothing_and_it_is_said():
    assert conformal(np.arange(98.0), 0.01) is None
    assert conformal(np.arange(99.0), 0.01) > 98
    few, lines = calibrate(np.arange(12.0))
    assert few.resolvable_false_reject == pytest.approx(1 / 13)
    assert "which takes 99" in statement(few)
    assert 11 < lines.review < lines.ng
    enough, lines = calibrate(np.arange(100.0))
    assert "Thresholds for 5% false reviews and 1% false rejects" in statement(enough)
    assert lines.verdict(95) == "ok"
    assert lines.verdict(97) == "review"
    assert lines.verdict(99.5) == "ng"
