"""What good parts use of a camera's range of levels."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.image import PixelContract, decode
from training.cli.main import app
from training.data.folders import LabelledFile
from training.data.levels import used_levels


@pytest.fixture
def parts(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for number in range(12):
        levels = rng.integers(200, 3800, (96, 96)).astype(np.uint16)
        levels[0, 0] = 65535  # a hot pixel
        path = tmp_path / "parts" / "train" / "good" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(path)
        files.append(LabelledFile(path, str(number), "ok"))
    return files


def test_the_window_that_parts_use_is_suggested(parts):
    used = used_levels(parts, 16)
    assert 200 <= used.low < 300 and 3700 < used.high <= 3800
    assert not used.enough
    assert "14 are left" in str(used) and "--window 0:41" in str(used)
    assert used_levels(parts, 12).enough


def test_images_that_cannot_be_read_say_nothing_of_levels(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert used_levels([LabelledFile(broken, "0", "ok")], 16) is None


def test_a_window_spreads_the_levels_within_it(parts):
    data = parts[0].image.read_bytes()
    narrow = decode(data, PixelContract(colour="grey", bit_depth=16, window=(200, 3800)))
    whole = decode(data, PixelContract(colour="grey", bit_depth=16))
    assert whole[1:].max() <= 15
    assert narrow[1:].min() <= 1 and narrow[1:].max() >= 254
    assert narrow[0, 0, 0] == 255


@pytest.mark.parametrize(
    ("window", "depth", "message"),
    [
        ("3500", "16", "3500 is no window"),
        ("3500:200", "16", "black level below its white level"),
        ("200:70000", "16", "both within 0 and 65535"),
        ("20:200", "8", "samples of more than 8 bits"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(tmp_path, window, depth, message):
    result = CliRunner().invoke(
        app,
        ["fit", str(tmp_path), "--recipe", "x", "--bit-depth", depth, "--window", window],
    )
    assert result.exit_code != 0
    assert message in str(result.exception)
