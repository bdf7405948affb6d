"""The input's size by what it finds and how long it takes, on a real backbone and drawn parts."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.image import PixelContract, decode
from tests.said import Said
from training.data.demo_product import write_demo
from training.data.folders import read_images, read_mvtec
from training.directories import Directories
from training.errors import TrainingError
from training.evaluation.sensitivity import Sensitivity
from training.fitting import fit as fitting
from training.fitting import input_choice, inputs
from training.fitting.fit import fit
from training.fitting.input_choice import InputChoice, TriedInput, choose_input
from training.fitting.settings import FitSettings


def tried(size, milliseconds, shares):
    """One whose parts (P) found so many of ten spots each."""
    found = np.arange(10) < np.array(shares)[:, None]
    sensitivity = Sensitivity((4.0, 8.0), (0.5, 1.0), (0.0, 0.0), 2.0)
    return TriedInput(FitSettings("cap", size=(size, size)), milliseconds, found, sensitivity)


def test_the_fastest_that_finds_as_much_as_the_best_is_chosen():
    small, middle = tried(448, 20, [4, 5, 4, 5]), tried(640, 35, [7, 8, 7, 8])
    large = tried(896, 60, [8, 7, 8, 7])
    assert InputChoice((small, middle, large), 100).best is middle
    assert InputChoice((small, tried(640, 35, [5, 4, 5, 4])), 100).best is small
    assert InputChoice((small, middle, large), 30).best is small
    none = InputChoice((small, middle), 10)
    assert none.best is small
    assert str(none).endswith("448×448 is the fastest, though none is within 10 ms.")
    assert str(InputChoice((small, middle), 100)) == (
        "Input sizes, by what is found of drawn spots: 448×448 45% (9 of 10 from 8 px on, 20 ms); "
        "640×640 75% (9 of 10 from 8 px on, 35 ms). 640×640 is the fastest of those as good as the "
        "best within 100 ms."
    )


@pytest.fixture(scope="module")
def large_parts(tmp_path_factory):
    """Caps of 640 pixels."""
    folder = tmp_path_factory.mktemp("parts") / "caps"
    write_demo(folder, seed=5, good=12, test_good=1, per_defect=0, size=640)
    return read_mvtec(folder)


def test_a_larger_input_is_taken_where_it_finds_smaller_spots(
    dataset, backbone, tmp_path, monkeypatch
):
    """On parts of 96 pixels, as if 64 were the usual size."""
    monkeypatch.setattr(inputs, "SMALLEST", 64)
    monkeypatch.setattr(inputs, "LARGEST", 64)
    # A bundle that takes longer than its backbone let expect.
    monkeypatch.setattr(fitting, "image_times", lambda graph, size, device: np.array([70_000.0]))
    said = Said()
    settings = FitSettings("cap", budget_ms=60_000)
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    fitted = fit(dataset, backbone, settings, directories, reporter=said)
    (compared,) = [line for line in said.lines if line.startswith("Input sizes")]
    assert "64×64" in compared and "96×96" in compared
    chosen = fitted.trained.cache.source.size
    assert f"{chosen.width}×{chosen.height} is the fastest" in compared
    report = (fitted.path / "report.html").read_text("utf-8")
    assert compared in report and "What inputs of several sizes find" in report
    (too_long,) = [line for line in said.lines if line.startswith("An image takes")]
    assert "70000 ms on this machine, longer than it may (60000 ms, --budget-ms)" in too_long
    assert too_long in report


def test_an_input_shrinks_until_it_keeps_the_budget(large_parts, backbone, tmp_path, monkeypatch):
    """By a clock of its own: an image takes as many milliseconds as its side has pixels."""
    monkeypatch.setattr(input_choice, "image_times", lambda graph, size, device: [size.width])
    directories = Directories(tmp_path / "store", tmp_path / "cache")

    said = Said()

    def chosen(budget_ms):
        settings = FitSettings("cap", budget_ms=budget_ms)
        return choose_input(large_parts, backbone, settings, directories, said)

    usual, choice = chosen(450)
    assert usual.size == (448, 448) and choice.points == ()
    assert "An input of 640×640 pixels is not tried: it would take some 914 ms" in said.lines[-1]
    smaller, choice = chosen(330)
    assert smaller.size == (320, 320) and choice.points == ()
    assert (
        "An input of 448×448 pixels is not tried: the backbone alone takes 448 ms, and an image"
        in (said.lines[-1])
    )
    assert str(choice) == said.lines[-1]
    with pytest.raises(TrainingError, match=r"takes 160 ms .* may take 100 ms"):
        chosen(100)
    given = FitSettings("cap", size=(96, 96), budget_ms=1)
    assert choose_input(large_parts, backbone, given, directories, Said()) == (given, None)


def test_too_few_parts_are_told_before_inputs_are_tried(large_parts, backbone, tmp_path):
    few, said = replace(large_parts, train=large_parts.train[:3]), Said()
    directories = Directories(tmp_path / "store", tmp_path / "cache")
    with pytest.raises(TrainingError, match="3 good parts are too few"):
        fit(few, backbone, FitSettings("cap", budget_ms=60_000), directories, reporter=said)
    assert said.lines == []


def test_large_inputs_are_seen_in_tiles(large_parts, backbone, monkeypatch, tmp_path):
    monkeypatch.setattr(input_choice, "image_times", lambda graph, size, device: [size.width])
    monkeypatch.setattr(input_choice, "typical_size", lambda files: (3000.0, 3000.0))
    settings = FitSettings("cap", budget_ms=1300)
    sizes, _ = input_choice._candidates(large_parts, backbone, settings)
    sides = [448, 640, 896, 1024, 2048, 2560]
    assert [each.size for each in sizes] == [(side, side) for side in sides]
    assert [each.tile for each in sizes] == [None, None, None, 512, 512, 512]
    own = replace(settings, tile=128)
    tiles = {each.tile for each in input_choice._candidates(large_parts, backbone, own)[0]}
    assert tiles == {128}


def test_images_that_lie_on_their_side_are_as_they_are_seen(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a telephone held upright
    for number in range(3):
        image = Image.new("RGB", (120, 80), (number, 0, 0))
        image.save(tmp_path / f"{number}.jpg", exif=exif)
    files = read_images(tmp_path)
    assert inputs.typical_size(files) == (80, 120)
    assert decode(files[0].image.read_bytes(), PixelContract()).shape[:2] == (120, 80)
