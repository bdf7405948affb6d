"""`benchmark line`: what is reviewed is labelled, a retraining follows, later parts are counted."""

from dataclasses import replace

import pytest

from models.sample import open_snapshot
from training.benchmarks.line import LineBenchmark, LineCase, in_other_light, table
from training.benchmarks.verdict_cases import shuffled
from training.benchmarks.verdict_curves import line_curves
from training.errors import TrainingError
from training.finetuning.retrain import RetrainSettings
from training.progress import Reporter


def benchmark(dataset, backbone, out, **settings):
    def data(seed):
        bad = [file for file in dataset.test if file.verdict == "ng"][:6]
        # Each defective part comes four times, and is labelled once.
        parts = tuple(part for pair in zip(dataset.train, bad * 4, strict=True) for part in pair)
        other = in_other_light(replace(dataset, test=parts), out / "lot")
        return dataset, shuffled(other.test, seed)

    return LineBenchmark(
        [LineCase("cap", data)], backbone, 1, out, Reporter(), every=2, retrainings=1,
        settings=RetrainSettings(steps=20), preset="patch-memory", **settings,
    )  # fmt: skip


def labels(out):
    (path,) = (out / "cap" / "0" / "snapshots").iterdir()
    return [sample.verdict for sample in open_snapshot(path).samples]


def test_each_model_is_counted_on_the_same_later_parts(dataset, backbone, tmp_path):
    file, out = tmp_path / "line.json", tmp_path / "out"
    results = benchmark(dataset, backbone, out).run(file)
    before, after = results["runs"]["cap/0"]
    assert (before["labels"], after["labels"]) == (0, 2) and len(labels(out)) == 2
    for point in (before, after):
        assert sum(sum(found.values()) for found in point["verdicts"].values()) == 15
    assert table(results).count("| cap | 0 |") == 2
    assert sorted(line_curves(results).points["cap"]) == [0, 2]
    # What was measured is not measured again, and no other conditions are mixed with it.
    assert benchmark(dataset, backbone, tmp_path / "gone").run(file) == results
    with pytest.raises(TrainingError, match="other conditions: only_good"):
        benchmark(dataset, backbone, tmp_path, only_good=True).run(file)


def test_defects_are_not_labelled_where_only_good_parts_are(dataset, backbone, tmp_path):
    out = tmp_path / "out"
    benchmark(dataset, backbone, out, only_good=True).run(tmp_path / "line.json")
    assert labels(out) == ["ok"] * 2
