import numpy as np
import pytest

from service.areas import areas, filled
from service.regions import MOST, find_regions


def drawn(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


RING = drawn(
    "......",
    ".####.",
    ".#..#.",
    ".####.",
    "......",
)
SLANT = drawn(
    "#...",
    ".#..",
    "..##",
)


def test_pixels_that_touch_by_a_corner_are_one_area():
    (area,) = areas(SLANT)
    assert (area.rows, area.columns) == (slice(0, 3), slice(0, 4))
    assert np.array_equal(area.inside, SLANT)


def test_an_area_within_another_one_s_hole_is_its_own():
    island = np.kron(RING, np.ones((3, 3), bool))
    island[7, 8] = True
    assert sorted(int(area.inside.sum()) for area in areas(island)) == [1, 90]
    assert list(areas(np.zeros((4, 4), bool))) == []


def test_an_outline_goes_around_and_turns_where_the_area_does():
    (area,) = areas(drawn("....", ".##.", ".##.", "...."))
    corners = {tuple(corner) for corner in area.outline().tolist()}
    assert corners == {
        (1, 1.5), (1.5, 1), (2.5, 1), (3, 1.5), (3, 2.5), (2.5, 3), (1.5, 3), (1, 2.5),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_what_is_outlined_is_filled_again_with_its_holes(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((30, 41)) < rng.uniform(0.02, 0.6)
    again = np.zeros_like(mask)
    for area in areas(mask):
        again |= filled(area.outline(), *mask.shape)
    assert np.array_equal(again, without_holes(mask))


def without_holes(mask):
    """All that cannot be reached from the edge by steps sideways, up and down."""
    outside = np.zeros(np.add(mask.shape, 2), bool)
    free = np.pad(~mask, 1, constant_values=True)
    outside[0, 0] = True
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= free
        if np.array_equal(grown, outside):
            return ~outside[1:-1, 1:-1]
        outside = grown


def test_a_polygon_has_the_pixels_whose_centres_it_has():
    assert filled(np.array([(0, 0), (4, 0), (4, 3), (0, 3)]), 3, 4).all()
    half = filled(np.array([(1.0, 0.0), (3.0, 0.0), (3.0, 2.0), (1.0, 2.0)]), 3, 4)
    assert np.array_equal(half, drawn(".##.", ".##.", "...."))
    # As far as it lies outside of the image it is left out.
    assert filled(np.array([(-5, -5), (9, -5), (9, 1), (-5, 1)]), 3, 4).sum() == 4


def test_regions_are_in_pixels_of_the_image_the_highest_first():
    heatmap = np.zeros((10, 20), np.float32)
    heatmap[1:3, 2:6] = 2
    heatmap[6:9, 10:11] = 3
    first, second = find_regions(heatmap, 1.5, width=40, height=30)
    assert (first.peak, second.peak) == (3, 2)
    assert first.box.model_dump() == {"x": 20, "y": 18, "width": 2, "height": 9}
    assert (first.area, second.area) == (18, 48)
    xs, ys = zip(*second.contour, strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == (4, 12, 3, 9)


def test_of_many_regions_those_with_the_highest_peaks_are_given():
    heatmap = np.zeros((60, 60), np.float32)
    peaks = np.random.default_rng(0).permutation(900).astype(np.float32) + 1
    heatmap[::2, ::2] = peaks.reshape(30, 30)
    found = find_regions(heatmap, 1, width=60, height=60)
    assert [region.peak for region in found] == list(range(900, 900 - MOST, -1))
