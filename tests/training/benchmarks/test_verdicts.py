"""`benchmark verdicts`: cases split by seed, each run counted and kept."""

import json

import pytest

from training.benchmarks.calibration_rates import CalibrationBenchmark
from training.benchmarks.calibration_rates import table as calibration_table
from training.benchmarks.verdict_cases import VerdictCase, by_shoot, curve_cases, fewer, redraw
from training.benchmarks.verdict_curves import learning_curves, page
from training.benchmarks.verdicts import VerdictBenchmark, table
from training.data.folders import Dataset, LabelledFile
from training.errors import TrainingError
from training.progress import Reporter


def hashes(files):
    return [file.sha256 for file in files]


def test_a_seed_splits_good_parts_anew_and_leaves_their_numbers(dataset):
    assert redraw(dataset, 0) == dataset
    other, again = redraw(dataset, 1), redraw(dataset, 1)
    assert other == again
    assert len(other.train) == len(dataset.train) and len(other.test) == len(dataset.test)
    assert set(hashes(other.train)) != set(hashes(dataset.train))
    assert not set(hashes(other.train)) & set(hashes(other.test))
    assert set(hashes((*other.train, *other.test))) == set(hashes((*dataset.train, *dataset.test)))
    few = fewer(dataset, 12, 1)
    assert len(few.train) == 12 and few.test == dataset.test


def test_tiles_split_by_shoot_share_no_shoot(tmp_path):
    def file(shoot, number, verdict):
        name = f"exp{shoot}_num_{number}"
        return LabelledFile(tmp_path / f"{name}.jpg", name + verdict, verdict)

    good = tuple(file(shoot, n, "ok") for shoot in range(5) for n in range(4))
    bad = tuple(file(shoot, n, "ng") for shoot in range(5) for n in range(4))
    data = by_shoot(Dataset(tmp_path, good[::2], (*good[1::2], *bad)), 3, seed=1)
    assert {file.image.name[:4] for file in data.train} == {"exp0", "exp1", "exp2"}
    assert len(data.train) == 12 and len(data.validation) == 3
    tested = (*data.validation, *data.test)
    assert {file.image.name[:4] for file in tested} == {"exp3", "exp4"}
    assert sum(file.verdict == "ng" for file in tested) == 8


def test_runs_are_counted_kept_and_not_done_twice(dataset, backbone, tmp_path):
    drawn = []

    def data(seed):
        drawn.append(seed)
        return redraw(dataset, seed)

    benchmark = VerdictBenchmark(
        [VerdictCase("cap", data, served=True)], backbone, 1, tmp_path, Reporter(), "gaussian"
    )
    file = tmp_path / "verdicts.json"
    results = benchmark.run(file)
    (run,) = results["runs"].values()
    assert sum(run["verdicts"]["good"].values()) == 4
    assert sum(run["verdicts"]["defective"].values()) == 9
    assert run["good_parts"] == 24
    assert run["milliseconds"] > 0 and run["megabytes"] > 0.1
    assert json.loads(file.read_text()) == results
    assert benchmark.run(file) == results and drawn == [0]
    assert f"| cap | 1 | 24 | {100 * run['image_auroc']:.1f} |" in table(results)
    other = VerdictBenchmark(benchmark.cases, backbone, 1, tmp_path, Reporter(), "padim")
    with pytest.raises(TrainingError, match="other conditions: preset"):
        other.run(file)


def test_realised_rates_are_counted_on_parts_that_were_not_learned(backbone, tmp_path):
    benchmark = CalibrationBenchmark(
        backbone, 1, tmp_path, Reporter(), counts=(12,), preset="gaussian", pool=14, others=20
    )
    file = tmp_path / "rates.json"
    results = benchmark.run(file)
    run = results["runs"]["12/0"]
    assert 0 <= run["reject"] <= run["review"] <= 1
    assert run["review"] * 20 == pytest.approx(round(run["review"] * 20))
    assert benchmark.run(file) == results
    assert f"| 12 | 1 | {100 * run['review']:.1f} (0.0) |" in calibration_table(results)


def test_a_curve_has_a_plot_for_each_set_and_a_point_for_each_count(tmp_path):
    cases = curve_cases(tmp_path, tmp_path)
    assert list(cases)[:2] == ["demo-10", "demo-20"] and list(cases)[-1] == "tile-668"

    def run(count, stopped):
        good = {"ok": 100 - stopped, "review": stopped, "ng": 0}
        bad = {"ok": 2, "review": 3, "ng": 5}
        return {"good_parts": count, "verdicts": {"good": good, "defective": bad}}

    runs = {f"cap-{count}/{seed}": run(count, 10 + seed) for count in (10, 50) for seed in (0, 1)}
    shown = page(learning_curves({"runs": runs}))
    assert shown.count("<img") == 1 and "data:image/png;base64," in shown
