import csv
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.bundle import Thresholds
from models.session import open_session
from training.backbones.feature_graph import feature_graph
from training.backbones.features import FeatureCache, FeatureSource
from training.backbones.sources import IMAGENET_MEAN, IMAGENET_STD, import_backbone
from training.backbones.views import FeatureView
from training.benchmarks.benchmark import Benchmark
from training.benchmarks.few_labels import halves, labelling, take
from training.benchmarks.page import render
from training.benchmarks.tables import by_seed, cell, comma_separated, markdown
from training.cli.benchmark import USUAL_FEW
from training.cli.main import app
from training.data.demo_product import DEFECTS, write_demo
from training.data.folders import read_mvtec
from training.errors import TrainingError
from training.methods.registry import DEFAULT
from training.networks.layout import FeatureLayout
from training.progress import Reporter

METHODS = ("adtr-small", "knn", "masks-3", "images-2-unseen", "active-12")
TWICE = ("knn",)
# A set whose models are not exported.
UNSERVED = "cifar10"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A drawn product with a dozen defects of each kind."""
    root = tmp_path_factory.mktemp("sets") / "cap"
    write_demo(root, good=12, test_good=4, per_defect=12, size=64)
    return root


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)


def benchmark(small, backbone, out, **changes):
    given = {
        "sets": {"mine": {"cap": read_mvtec(small)}}, "backbone": backbone, "methods": METHODS,
        "seeds": range(2), "out": out, "reporter": Reporter(), "steps": 2,
        "champion": "adtr-small", "size": 64, "grid": 4,
    }  # fmt: skip
    return Benchmark(**{**given, **changes})


@pytest.fixture(scope="module")
def ran(small, backbone, tmp_path_factory):
    """(results, folder, file) of a benchmark, then continued with a second seed of some."""
    out = tmp_path_factory.mktemp("benchmark")
    benchmark(small, backbone, out, seeds=range(1)).run(out / "figures.json")
    twice = benchmark(small, backbone, out, methods=TWICE).run(out / "figures.json")
    return twice, out, out / "figures.json"


def test_every_stage_is_measured_and_written(ran):
    results, _, file = ran
    assert json.loads(file.read_text()) == json.loads(json.dumps(results))
    assert set(results["figures"]) == {
        *(f"mine/cap/{m}/seed0" for m in METHODS),
        *(f"mine/cap/{m}/seed1" for m in TWICE),
    }
    plain = results["figures"]["mine/cap/adtr-small/seed0"]
    assert plain["served_score_gap"] <= 0.05  # cached features are of half precision
    low, high = plain["intervals"]["image_auroc"]
    assert low <= plain["image_auroc"] <= high
    shares = ("good_stopped", "defects_passed", "defects_rejected")
    assert all(0 <= plain[share] <= 1 for share in shares)
    assert "Good stopped | Defects passed | Defects rejected" in markdown(results)
    learned = results["figures"]["mine/cap/masks-3/seed0"]
    assert all(share in learned["before"] for share in shares)
    assert "pixel_ap" in learned["before"]
    assert "models that did not learn" in learned["comparison"]
    assert learned["labels"] == 9
    unseen = results["figures"]["mine/cap/images-2-unseen/seed0"]
    kinds = unseen["kinds"]
    assert {each["labels"] for each in kinds.values()} == {4}
    tested = [each["before"]["image_auroc"] for each in kinds.values()]
    assert unseen["before"]["image_auroc"] == pytest.approx(np.mean(tested))
    assert results["figures"]["mine/cap/active-12/seed0"]["labels"] == 12
    assert results["peak_memory_gib"] > 0


def test_an_interrupted_benchmark_goes_on_with_what_is_missing(ran, small, backbone, tmp_path):
    results, out, file = ran
    kept = json.loads(file.read_text())
    del kept["figures"]["mine/cap/knn/seed1"]
    kept["figures"]["mine/cap/knn/seed0"]["learning_seconds"] = -1
    other = tmp_path / "figures.json"
    other.write_text(json.dumps(kept))
    again = benchmark(small, backbone, out, methods=TWICE).run(other)["figures"]
    assert again["mine/cap/knn/seed0"]["learning_seconds"] == -1
    assert (
        again["mine/cap/knn/seed1"]["image_auroc"]
        == results["figures"]["mine/cap/knn/seed1"]["image_auroc"]
    )
    with pytest.raises(TrainingError, match="another champion"):
        benchmark(small, backbone, out, champion="adtr").run(file)
    fewer = type(read_mvtec(small))(small, read_mvtec(small).train[1:], read_mvtec(small).test)
    with pytest.raises(TrainingError, match="another data"):
        benchmark(small, backbone, out, sets={"mine": {"cap": fewer}}).run(file)
    with pytest.raises(TrainingError, match="other conditions: steps"):
        benchmark(small, backbone, out, steps=3).run(other)


def test_one_model_learns_several_products_and_drawn_anomalies(small, backbone, tmp_path, dataset):
    """It is measured on each, with that product's good parts alone."""
    sets = {UNSERVED: {"cap": read_mvtec(small), "other": dataset}}
    ran = benchmark(
        small, backbone, tmp_path, sets=sets,
        methods=("adtr-small+confetti",), seeds=range(1), unified=True,
    ).run(tmp_path / "f.json")  # fmt: skip
    ((stage, figures),) = ran["figures"].items()
    assert stage == f"{UNSERVED}/unified/adtr-small+confetti/seed0"
    each = figures["categories"]
    assert figures["image_auroc"] == pytest.approx(
        (each["cap"]["image_auroc"] + each["other"]["image_auroc"]) / 2
    )
    assert list((tmp_path / UNSERVED / ".features" / "anomalies").glob("*_mask.png"))
    assert "| adtr-small+confetti |" in markdown(ran)


def test_a_category_can_have_other_images_of_its_own(small, backbone, tmp_path):
    for folder in ("cap", "bolt"):
        write_image(tmp_path / "others" / folder / "a.png")
    cap = read_mvtec(small)
    figures = benchmark(
        small, backbone, tmp_path, methods=("rotation+external",), seeds=range(1),
        external=tmp_path / "others", sets={UNSERVED: {"cap": cap, "nut": cap}},
    ).run(tmp_path / "f.json")["figures"]  # fmt: skip
    found = [each["external"] for each in figures.values()]
    assert found == [str(tmp_path / folder) for folder in ("others/cap", "others")]


def test_what_cannot_be_run_is_said(small, backbone, tmp_path, dataset):
    with pytest.raises(TrainingError, match="no glitter to learn besides"):
        benchmark(small, backbone, tmp_path, methods=("adtr-small+glitter",)).run(
            tmp_path / "f.json"
        )
    with pytest.raises(TrainingError, match="images of other things"):
        benchmark(small, backbone, tmp_path, methods=("adtr-small+external",)).run(
            tmp_path / "f.json"
        )
    with pytest.raises(TrainingError, match="magic"):
        benchmark(small, backbone, tmp_path, methods=("magic",)).run(tmp_path / "f.json")
    with pytest.raises(TrainingError, match="starts from what adtr-small"):
        benchmark(small, backbone, tmp_path, methods=("masks-1",)).run(tmp_path / "f.json")
    only_good = {"mine": {"cap": read_mvtec(small)}}
    only_good["mine"]["cap"] = type(dataset)(small, dataset.train, ())
    with pytest.raises(TrainingError, match="no test images"):
        benchmark(small, backbone, tmp_path, methods=("knn",), sets=only_good).run(
            tmp_path / "f.json"
        )
    assert not (tmp_path / "f.json").exists()


def test_the_table_the_csv_and_the_page_show_every_method(ran):
    results, out, _ = ran
    table = markdown(results)
    for name in METHODS:
        assert f"| {name} |" in table
    assert "before masks-3" in table
    assert "±" in table
    rows = list(csv.DictReader(io.StringIO(comma_separated(results))))
    assert len(rows) == len(METHODS) + len(TWICE)
    first = results["figures"]["mine/cap/adtr-small/seed0"]
    assert float(rows[0]["image_auroc"]) == first["image_auroc"]
    page = render(results, out)
    assert page.count("data:image/png") > 3 + 2 + 4
    assert "://" not in page  # which no picture in base64 can hold
    assert "these figures say nothing" in page


def test_a_cell_is_the_mean_with_its_interval_over_seeds():
    figures = {
        f"s/{category}/m/seed{seed}": {"image_auroc": value, "learning_seconds": 1.0}
        for seed, both in enumerate(((0.8, 0.9), (0.9, 1.0), (0.9, 0.9)))
        for category, value in zip("ab", both, strict=True)
    }
    runs = by_seed(figures, "s", "m")
    assert [run["image_auroc"] for run in runs] == pytest.approx([0.85, 0.95, 0.9])
    # Student's t with two degrees of freedom: 4.303 · 0.05 / √3.
    assert cell(runs, "image_auroc") == "90.0 ± 12.4"
    alone = {"image_auroc": 0.9, "intervals": {"image_auroc": (0.85, 0.93)}}
    assert cell([alone], "image_auroc") == "90.0 (85.0–93.0)"
    assert cell([{"refused": True}], "image_auroc") == "refused"


def test_the_command_runs_on_a_folder(small, backbone, tmp_path):
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "own.onnx").write_bytes(backbone.model)
    done = CliRunner().invoke(
        app,
        ["benchmark", "methods", str(small), "--methods", "knn", "--seeds", "1", "--json",
         str(tmp_path / "f.json"), "--out", str(tmp_path / "out"), "--shared", str(tmp_path),
         "--backbone", "own"],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0
    assert "| knn |" in done.output
    assert (tmp_path / "out" / "benchmark.csv").exists()
    assert "Benchmark" in (tmp_path / "out" / "benchmark.html").read_text()


def test_labels_come_from_one_half_and_the_other_measures(small):
    test = read_mvtec(small).test
    pool, tested = halves(test)
    assert sorted(f.sha256 for f in (*pool, *tested)) == sorted(f.sha256 for f in test)
    assert halves(test[::-1])[0] == pool[::-1]

    def taken(name, seed=0):
        return take(pool, labelling(name), seed)

    three = taken("masks-3")
    assert Counter(f.defect_class for f in three) == dict.fromkeys(DEFECTS, 3)
    assert all(f.mask and f in pool for f in three)
    assert {f.sha256 for f in taken("masks-3", seed=1)} != {f.sha256 for f in three}
    one = taken("images-1")
    assert {f.sha256 for f in one} <= {f.sha256 for f in three}  # of the same order
    assert not any(f.mask for f in one)
    lines = Thresholds(review=0.5, ng=0.6)
    nearness = [lines.nearness(index / len(pool)) for index in range(len(pool))]
    near = take(pool, labelling("active-3"), 0, nearness)
    assert all(0.4 < pool.index(f) / len(pool) < 0.7 for f in near)
    assert len(taken("random-5")) == 5


def test_what_fewshot_measures_where_nobody_says_otherwise_can_be_measured():
    champion, *few = USUAL_FEW.split(",")
    assert champion == DEFAULT
    assert len(few) == len(set(few)) == 20
    assert all(labelling(name) for name in few)


@pytest.mark.parametrize("name", ["masks-0", "active-5-unseen", "labels-masks", "masks"])
def test_what_is_no_labelling_is_taken_for_a_method_and_refused(small, backbone, tmp_path, name):
    with pytest.raises(TrainingError, match="There is no method"):
        benchmark(small, backbone, tmp_path, methods=(name,)).run(tmp_path / "f.json")


def test_the_shared_backbone_and_tiles_work(shared, tmp_path):
    from models.backbone import open_backbone
    from models.image import InputSize, PixelContract

    path = import_backbone(
        shared / "backbones" / "mobilenet_v2.onnx", tmp_path / "b", name="mobilenet_v2",
        mean=IMAGENET_MEAN, std=IMAGENET_STD, licence="Apache-2.0",
    )  # fmt: skip
    opened = open_backbone(path)
    assert [(s.stride, s.channels) for s in opened.manifest.stages] == [
        (2, 16), (4, 24), (8, 32), (16, 96), (32, 320),
    ]  # fmt: skip
    files = read_mvtec(shared / "data" / "magnetic_tile").test[:8]
    view = FeatureView("all", opened.manifest.stages, 16)
    source = FeatureSource(
        feature_graph(opened, [view]),
        InputSize(height=256, width=256),
        PixelContract(colour="grey"),
        FeatureLayout(((view.channels, 16, 16),)),
    )
    cache = FeatureCache(tmp_path / "c", source)
    cache.add(files)
    assert cache.maps([files[0].sha256], 0).shape == (1, 488, 16, 16)
    image = source.read(files[0].image)
    alone = open_session(source.graph).run(None, {"image": image[None]})[0][0]
    assert np.allclose(alone, cache[files[0].sha256], rtol=1e-3, atol=1e-3)
