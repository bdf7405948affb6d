import numpy as np
import pytest

from models.bundle import NO_REJECT, Thresholds
from training.evaluation.verdicts import by_label, count_verdicts


def test_verdicts_are_counted_for_good_and_defective_parts():
    scores = np.array([0.1, 0.6, 2.0, 0.2, 0.7, 3.0], np.float32)
    anomalous = np.array([False, False, False, True, True, True])
    found = by_label(scores, anomalous, Thresholds(review=0.5, ng=1.0))
    assert (found["good"].ok, found["good"].review, found["good"].ng) == (1, 1, 1)
    assert found["good"].stopped == pytest.approx(2 / 3)
    assert found["defective"].passed == pytest.approx(1 / 3)
    assert found["defective"].rejected == pytest.approx(1 / 3)


def test_without_an_automatic_reject_suspicious_parts_go_to_review():
    found = count_verdicts([0.1, 50.0], Thresholds(review=0.5, ng=NO_REJECT))
    assert (found.ok, found.review, found.ng) == (1, 1, 0)


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="no number"):
        count_verdicts([float("nan")], Thresholds(review=0.5, ng=1.0))
