import numpy as np
import pytest

from training.calibrate import Rates, calibrate, conformal, statement
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
