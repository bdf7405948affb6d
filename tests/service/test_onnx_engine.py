"""Batches in sizes that a device was warmed for give what they give in any size."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from models.bundle import GOLDEN
from models.errors import BundleError
from models.golden import Golden
from service import onnx_engine
from service.engine import Outputs
from service.onnx_engine import OnnxDevice, OnnxEngine, powers_of_two
from service.settings import Settings

ON_A_GPU = pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="no CUDA here"
)


@pytest.fixture(scope="module")
def images(bundle):
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    rng = np.random.default_rng(0)
    return np.stack([np.roll(golden.images[i % 2], rng.integers(64), 1) for i in range(9)])


@pytest.mark.parametrize("count", range(1, 10))
def test_buckets_change_no_result(bundle, images, count):
    device = OnnxDevice(Settings(device="cpu", threads=1))
    plain = device.open(bundle).run(images[:count])
    engine = OnnxEngine(bundle, device, buckets=(1, 2, 4))
    engine.run(images[::-1])  # what is left there must not be seen
    outputs = engine.run(images[:count])
    assert outputs.scores.shape == (count,)
    np.testing.assert_allclose(outputs.scores, plain.scores, atol=1e-4)
    np.testing.assert_allclose(outputs.heatmaps, plain.heatmaps, atol=1e-3)


def test_results_are_not_overwritten_by_the_next_run(bundle, images):
    engine = OnnxEngine(bundle, OnnxDevice(Settings(device="cpu", threads=1)), buckets=(2,))
    first = engine.run(images[:2])
    kept = first.scores.copy(), first.heatmaps.copy()
    engine.run(images[2:4])
    np.testing.assert_array_equal(first.scores, kept[0])
    np.testing.assert_array_equal(first.heatmaps, kept[1])


def test_runs_beside_each_other_give_what_each_gives_alone(bundle, images):
    device = OnnxDevice(Settings(device="cpu", threads=4))
    assert (device.lanes, device.max_batch) == (4, 1)
    engine = device.open(bundle)
    alone = [engine.run(images[i : i + 1]) for i in range(8)]
    with ThreadPoolExecutor(4) as lanes:
        beside = list(lanes.map(lambda i: engine.run(images[i : i + 1]), range(8)))
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
        np.testing.assert_allclose(one.heatmaps, other.heatmaps, atol=1e-3)


def test_a_size_that_gives_other_results_is_found_at_the_start(bundle, monkeypatch):
    """As a recording would that was made of another size."""
    right = onnx_engine._Bucket.run

    def wrong_of_two(bucket, images):
        outputs = right(bucket, images)
        return Outputs(outputs.scores + (bucket.size == 2), outputs.heatmaps)

    monkeypatch.setattr(onnx_engine._Bucket, "run", wrong_of_two)
    device = OnnxDevice(Settings(device="cpu", threads=1))
    OnnxEngine(bundle, device, buckets=(1, 4))
    with pytest.raises(BundleError, match="its score differs by 1"):
        OnnxEngine(bundle, device, buckets=(1, 2, 4))


def test_a_gpu_has_a_session_for_each_size_and_none_sees_two(bundle, images):
    device = OnnxDevice(Settings(device="cpu", threads=1))
    device.on_cores = False  # as a GPU that records nothing
    opened = []
    session = device.session
    device.session = lambda model, threads, **how: opened.append(how) or session(model, threads)
    engine = OnnxEngine(bundle, device, buckets=(1, 2, 4))
    assert len(opened) == 3
    assert len({id(bucket._session) for bucket in engine._buckets}) == 3
    plain = OnnxDevice(Settings(device="cpu", threads=1)).open(bundle).run(images)
    np.testing.assert_allclose(engine.run(images).scores, plain.scores, atol=1e-4)


@ON_A_GPU
def test_a_recorded_run_gives_what_a_plain_one_does(bundle, images):
    plain = OnnxDevice(Settings(device="cuda", cuda_graphs=False)).open(bundle).run(images)
    recorded = OnnxDevice(Settings(device="cuda", cuda_graphs=True)).open(bundle)
    for _ in range(3):
        outputs = recorded.run(images)
        np.testing.assert_allclose(outputs.scores, plain.scores, atol=1e-4)
        np.testing.assert_allclose(outputs.heatmaps, plain.heatmaps, atol=1e-3)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6])])
def test_sizes_double_up_to_the_largest(most, sizes):
    assert powers_of_two(most) == sizes
