import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.bundle import open_bundle
from training.engine.distributed import Worker, enlisted
from training.errors import TrainingError

# A transformer on random features; dropout is left out, since each process draws its own noise.
SCRIPT = """
import json, sys, torch
from training.engine.losses import reconstruction
from training.engine.loop import Schedule, epochs, train
from training.networks.adtr import Adtr, AdtrConfig
from training.engine.distributed import enlisted, leaving_at_once

torch.manual_seed(0)
data = torch.randn(24, 12, 4, 4)
network = Adtr(AdtrConfig(12, 4, 4, layers=1, dimension=16, feedforward=32, dropout=0.0))
indices = epochs(24, 8, seed=3)
with enlisted("cpu") as worker:
    losses = train(
        network, Schedule(12, 8, 1e-2), lambda step: data[worker.share(indices(step))],
        lambda x: reconstruction(x, network(x)), seed=3, worker=worker,
    )
    worker.leave_to_the_first()
with leaving_at_once():
    print(json.dumps(losses))
"""


def by(processes, *command):
    """What a Python script says when so many processes run it together."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(several if processes > 1 else []), *command],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_processes_have_the_losses_of_one_with_the_whole_batch(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    one, two = (json.loads(by(processes, script)) for processes in (1, 2))
    assert two == pytest.approx(one, rel=1e-4)
    assert one[-1] < 0.9 * one[0]  # and something was learned


def test_two_processes_write_one_bundle(product, tmp_path):
    store = tmp_path / "store"
    command = Path(sys.executable).with_name("kizu-train")
    said = by(
        2, command, "fit", product, "--recipe", "cap", "--device", "cpu",
        "--preset", "adtr-small", "--steps", "4", "--size", "64", "--grid", "8",
        "--store", store, "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert said == str(store / "cap" / "1")
    assert open_bundle(store / "cap" / "1").manifest.calibration.count >= 5
    assert not list(store.glob("cap/.training/checkpoint*"))


def test_a_batch_that_cannot_be_shared_is_refused():
    assert Worker(rank=1, count=2).share([1, 2, 3, 4]) == [2, 4]
    with pytest.raises(TrainingError, match="batch of 4 cannot be shared among 3"):
        Worker(count=3).share([1, 2, 3, 4])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu():
    with pytest.raises(TrainingError, match="finds none"), enlisted("cuda"):
        pass
