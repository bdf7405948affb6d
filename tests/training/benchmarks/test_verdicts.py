"""`benchmark verdicts`: cases split by seed, each run counted and kept."""

import json

import pytest

from training.benchmarks.verdict_cases import VerdictCase, by_shoot, fewer, redraw
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
    assert sum(run["verdicts"]["defective"].values()) == 6
    assert run["good_parts"] == 24
    assert run["milliseconds"] > 0 and run["megabytes"] > 0.1
    assert json.loads(file.read_text()) == results
    assert benchmark.run(file) == results and drawn == [0]
    assert f"| cap | 1 | 24 | {100 * run['image_auroc']:.1f} |" in table(results)
    other = VerdictBenchmark(benchmark.cases, backbone, 1, tmp_path, Reporter(), "padim")
    with pytest.raises(TrainingError, match="another preset"):
        other.run(file)
