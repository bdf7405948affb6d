import numpy as np
import pytest

from training.data.folders import LabelledFile
from training.evaluation.comparison import compare
from training.evaluation.metrics import PixelCounts
from training.evaluation.scoring import Evaluation


def evaluation(good, defective, seed=0):
    """Image scores as given; heatmaps whose marked half stands out by the image's score."""
    files = [LabelledFile(None, f"g{i}", "ok") for i in range(len(good))]
    files += [LabelledFile(None, f"d{i}", "ng") for i in range(len(defective))]
    pixels = PixelCounts()
    rng = np.random.default_rng(seed)
    for file, score in zip(files, [*good, *defective], strict=True):
        marked = np.zeros((8, 8), bool)
        marked[:4] = file.verdict == "ng"
        pixels.add(rng.random((8, 8), np.float32) + np.float32(score) * marked, marked)
    return Evaluation(tuple(files), np.array([*good, *defective], np.float32), pixels)


RNG = np.random.default_rng(3)
GOOD = RNG.normal(0.5, 0.1, 60).clip(0)


def test_a_clear_fall_is_worse_and_a_clear_rise_better():
    weak = evaluation(GOOD, RNG.normal(0.5, 0.1, 40).clip(0))
    strong = evaluation(GOOD, RNG.normal(0.9, 0.1, 40))
    fall, rise = compare(strong, weak), compare(weak, strong)
    assert [change.metric for change in fall.worse] == ["image_auroc", "pixel_ap"]
    assert not rise.worse
    assert all(change.better for change in rise.changes)
    assert "image AUROC fell from" in str(fall)
    assert "60 good and 40 defective labels" in str(fall)
    assert "cannot tell" not in str(rise)


def test_a_fall_that_few_labels_cannot_tell_from_chance_is_said_and_forgiven():
    defective = RNG.normal(0.7, 0.1, 6)
    other = defective + RNG.normal(-0.02, 0.1, 6)
    change = compare(evaluation(GOOD, defective), evaluation(GOOD, other)).changes[0]
    assert change.low < 0 < change.high
    assert not change.worse
    assert "cannot tell" in str(compare(evaluation(GOOD, defective), evaluation(GOOD, other)))


def test_equals_are_refused_no_more_often_than_the_confidence_says():
    """Forty pairs of alike models; a strict comparison would refuse twenty of them."""
    worse = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        part = rng.normal(0.6, 0.1, 12)
        models = [evaluation(GOOD, part + rng.normal(0, 0.08, 12), seed) for _ in range(2)]
        worse += any(c.worse for c in compare(*models).changes if c.metric == "image_auroc")
    assert worse <= 6


def test_one_defect_is_judged_as_it_stands():
    """There is nothing to draw from: the champion stays where its one defect fared worse."""
    assert compare(evaluation(GOOD, [0.9]), evaluation(GOOD, [0.1])).worse


@pytest.mark.parametrize(("defects", "metrics"), [(2, 1), (3, 2)])
def test_the_pixels_of_one_or_two_defects_forbid_nothing(defects, metrics):
    pair = [evaluation(GOOD, [0.9] * defects, seed) for seed in (0, 1)]
    assert len(compare(*pair).changes) == metrics


def test_the_same_comparison_gives_the_same_interval():
    pair = evaluation(GOOD, [0.6, 0.9]), evaluation(GOOD, [0.7, 0.8])
    assert compare(*pair).changes == compare(*pair).changes


def test_other_files_are_no_comparison():
    with pytest.raises(ValueError, match="different files"):
        compare(evaluation(GOOD, [1.0]), evaluation(GOOD[1:], [1.0]))
