"""Golden vectors, replayed through a real session."""

import io

import numpy as np
import pytest

from models.golden import HEATMAP_TOLERANCE, SCORE_TOLERANCE, Golden
from models.session import open_session


@pytest.fixture
def golden(scorer: bytes) -> Golden:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    scores, heatmaps = open_session(scorer, device="cpu").run(
        ["score", "heatmap"], {"image": images}
    )
    return Golden(images, scores, heatmaps)


def test_a_replay_agrees_with_its_own_file(golden: Golden, scorer: bytes) -> None:
    read = Golden.from_bytes(golden.to_bytes())
    assert np.array_equal(read.images, golden.images)
    assert read.images.dtype == np.uint8
    replayed = open_session(scorer, device="cpu").run(["score", "heatmap"], {"image": read.images})
    assert read.disagreement(*replayed) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_it_agrees_up_to_the_tolerance(golden: Golden, sign: int) -> None:
    golden = Golden(golden.images, np.zeros(2, np.float32), np.zeros((2, 4, 5), np.float32))
    near = np.float32(sign * SCORE_TOLERANCE * 0.9), np.float32(sign * HEATMAP_TOLERANCE * 0.9)
    far = np.float32(sign * SCORE_TOLERANCE * 1.1), np.float32(sign * HEATMAP_TOLERANCE * 1.1)
    assert golden.disagreement(golden.scores + near[0], golden.heatmaps + near[1]) is None
    assert "score differs" in str(golden.disagreement(golden.scores + far[0], golden.heatmaps))
    assert "heatmap differs" in str(golden.disagreement(golden.scores, golden.heatmaps + far[1]))


def test_it_agrees_up_to_a_share_of_what_is_expected(golden: Golden) -> None:
    heatmaps = np.zeros((2, 4, 5), np.float32)
    heatmaps[:, 0, 0] = 100, 10
    golden = Golden(golden.images, np.array([100, 10], np.float32), heatmaps)
    near, far = np.array([0.99, 0.099], np.float32), np.array([0, 0.12], np.float32)
    marked = np.zeros_like(heatmaps)
    marked[:, 2, 2] = 1
    close = golden.scores + near, heatmaps + near[:, None, None] * marked
    assert golden.disagreement(*close, precision="fp16") is None
    assert golden.disagreement(*close)
    for what, other in (
        ("score", (golden.scores + far, heatmaps)),
        ("heatmap", (golden.scores, heatmaps + far[:, None, None] * marked)),
    ):
        assert f"{what} differs by 0.12" in str(golden.disagreement(*other, precision="fp16"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["score", "heatmap"])
def test_one_number_that_is_none_disagrees(golden: Golden, what: str, bad: float) -> None:
    got = {"score": golden.scores.copy(), "heatmap": golden.heatmaps.copy()}
    got[what].flat[-1] = bad
    assert f"{what} differs" in str(golden.disagreement(got["score"], got["heatmap"]))
    broken = Golden(golden.images, got["score"], got["heatmap"])  # even when training saw it too
    assert f"{what} differs" in str(broken.disagreement(got["score"], got["heatmap"]))


def test_another_shape_disagrees_even_where_it_would_broadcast(golden: Golden) -> None:
    flat = np.zeros((2, 4, 5), np.float32)
    golden = Golden(golden.images, np.zeros(2, np.float32), flat)
    assert "score has the shape (1,)" in str(golden.disagreement(golden.scores[:1], flat))
    assert "(2, 1)" in str(golden.disagreement(golden.scores[:, None], flat))
    assert "heatmap has the shape (1, 4, 5) instead of (2, 4, 5)" in str(
        golden.disagreement(golden.scores, flat[:1])
    )


def test_pickled_objects_are_not_read() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([{}], object), scores=np.zeros(1), heatmaps=np.zeros(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        Golden.from_bytes(buffer.getvalue())
