"""JPEG is read faster than by Pillow, and to the same pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.image import PixelContract, decode

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
SCENE = Image.fromarray(NOISE).resize((333, 251), Image.Resampling.BICUBIC)
KINDS = {
    "4:2:0": (SCENE, {"subsampling": 2}),
    "4:2:2": (SCENE, {"subsampling": 1}),
    "4:4:4": (SCENE, {"subsampling": 0}),
    "progressive": (SCENE, {"progressive": True}),
    "coarse": (SCENE, {"quality": 5}),
    "with restarts": (SCENE, {"restart_marker_blocks": 4}),
    "grey": (SCENE.convert("L"), {}),
    "RGB as it is": (SCENE, {"keep_rgb": True}),
}


def encode(name):
    image, options = KINDS[name]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_to_pillows_pixels(name):
    data = encode(name)
    pillow = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(decode(data, PixelContract()), np.asarray(pillow))
    grey = np.asarray(pillow.convert("L").convert("RGB"))
    np.testing.assert_array_equal(decode(data, PixelContract(colour="grey")), grey)


def test_damage_that_pillow_overlooks_is_refused():
    data = bytearray(encode("4:4:4"))
    start = data.index(b"\xff\xda") + 40
    data[start : start + 400] = bytes(400)
    with Image.open(io.BytesIO(bytes(data))) as image:
        image.load()
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data), PixelContract())
