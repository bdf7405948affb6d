"""Batches in sizes that a device was warmed for give what they give in any size."""

import numpy as np
import pytest

from models.bundle import GOLDEN
from models.golden import Golden
from service.onnx_engine import OnnxEngine, powers_of_two


@pytest.fixture(scope="module")
def images(bundle):
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    rng = np.random.default_rng(0)
    return np.stack([np.roll(golden.images[i % 2], rng.integers(64), 1) for i in range(9)])


@pytest.mark.parametrize("count", range(1, 10))
def test_buckets_change_no_result(bundle, images, count):
    given = {"device": "cpu", "threads": 1, "max_batch": 4}
    plain = OnnxEngine(bundle, **given).run(images[:count])
    engine = OnnxEngine(bundle, **given, buckets=(1, 2, 4))
    engine.run(images[::-1])  # what is left there must not be seen
    outputs = engine.run(images[:count])
    assert outputs.scores.shape == (count,)
    np.testing.assert_allclose(outputs.scores, plain.scores, atol=1e-4)
    np.testing.assert_allclose(outputs.heatmaps, plain.heatmaps, atol=1e-3)


def test_results_are_not_overwritten_by_the_next_run(bundle, images):
    engine = OnnxEngine(bundle, device="cpu", threads=1, max_batch=2, buckets=(2,))
    first = engine.run(images[:2])
    kept = first.scores.copy(), first.heatmaps.copy()
    engine.run(images[2:4])
    np.testing.assert_array_equal(first.scores, kept[0])
    np.testing.assert_array_equal(first.heatmaps, kept[1])


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6])])
def test_sizes_double_up_to_the_largest(most, sizes):
    assert powers_of_two(most) == sizes
