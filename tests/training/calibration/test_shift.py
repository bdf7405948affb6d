"""Good parts of another day: whether they look like the others, and which parts set thresholds."""

import numpy as np
import pytest

from training.calibration.shift import compare


@pytest.fixture
def others():
    return np.random.default_rng(0).gamma(9.0, 1.0, 200).astype(np.float32)


def test_parts_of_the_same_kind_are_no_shift(others):
    found = [compare(others, np.random.default_rng(seed).gamma(9.0, 1.0, 20).astype(np.float32))
             for seed in range(1, 40)]  # fmt: skip
    assert sum(each.higher for each in found) <= 2
    assert "score like the others" in str(next(each for each in found if not each.higher))


def test_parts_of_another_day_that_score_higher_set_the_thresholds(others):
    later = np.random.default_rng(1).gamma(9.0, 1.5, 20).astype(np.float32)
    shift = compare(others, later)
    assert shift.higher and shift.sets_thresholds
    assert shift.beyond > 0.2
    assert "they alone set the thresholds" in str(shift)


def test_too_few_of_them_do_not_and_it_is_said(others):
    shift = compare(others, np.full(5, 40.0, np.float32))
    assert shift.higher and not shift.sets_thresholds
    assert "too few to set the thresholds" in str(shift)


def test_parts_that_score_lower_are_no_shift(others):
    assert not compare(others, others[:30] / 2).higher
