import numpy as np
import pytest

from models.errors import ImageError
from models.image import PixelContract, decode
from models.raw import PIXEL_FORMATS, image_file

HEIGHT, WIDTH = 20, 30
SIDES = {"width": WIDTH, "height": HEIGHT}
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def test_mono8_comes_back_as_it_was_sent():
    file, media = image_file(GREY.tobytes(), "Mono8", **SIDES)
    assert media == "image/bmp"
    np.testing.assert_array_equal(decode(file, PixelContract()), np.repeat(GREY[..., None], 3, 2))


def test_bgr8_comes_back_as_rgb():
    file, media = image_file(COLOUR[..., ::-1].tobytes(), "BGR8", **SIDES)
    assert media == "image/bmp"
    np.testing.assert_array_equal(decode(file, PixelContract()), COLOUR)


def test_mono16_is_mapped_by_the_recipes_depth():
    samples = RNG.integers(0, 4096, (HEIGHT, WIDTH)).astype("<u2")
    file, media = image_file(samples.tobytes(), "Mono16", **SIDES)
    assert media == "image/tiff"
    seen = decode(file, PixelContract(bit_depth=12))[..., 0]
    np.testing.assert_array_equal(seen, np.rint(samples * (255 / 4095)))
    with pytest.raises(ImageError, match="bit depth of 8"):
        decode(file, PixelContract())


@pytest.mark.parametrize("channel", range(3))
def test_bayer_rg8_gives_each_filter_its_colour(channel):
    """A red filter at (0, 0), a blue one at (1, 1)."""
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    places = {0: [(0, 0)], 1: [(0, 1), (1, 0)], 2: [(1, 1)]}
    for row, column in places[channel]:
        mosaic[row::2, column::2] = 200
    seen = decode(image_file(mosaic.tobytes(), "BayerRG8", **SIDES)[0], PixelContract())
    only = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    only[..., channel] = 200
    np.testing.assert_array_equal(seen[2:-2, 2:-2], only[2:-2, 2:-2])


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
@pytest.mark.parametrize("change", [-1, 1])
def test_another_length_is_refused(pixel_format, change):
    length = {"Mono8": 1, "Mono16": 2, "BGR8": 3, "BayerRG8": 1}[pixel_format] * HEIGHT * WIDTH
    with pytest.raises(ImageError, match=f"{length + change:,} bytes"):
        image_file(bytes(length + change), pixel_format, **SIDES)


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [(0, 20, "too few"), (4, 400, "too few"), (10**6, 10**6, "more than the limit")],
)
def test_absurd_sides_are_refused_before_anything_is_made_of_them(width, height, says):
    with pytest.raises(ImageError, match=says):
        image_file(b"", "Mono8", width=width, height=height)
