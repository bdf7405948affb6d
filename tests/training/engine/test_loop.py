import math
import os
import signal

import pytest
import torch
from torch import nn

from training.engine.distributed import Worker
from training.engine.loop import Schedule, TrainingState, Validation, epochs, train
from training.errors import TrainingError

CPU = torch.device("cpu")
SCHEDULE = Schedule(steps=12, batch=4, learning_rate=1e-2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 3))


def run(model, device=CPU, **options):
    data = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    indices = epochs(20, 4, seed=5)
    return train(
        model, SCHEDULE, lambda step: data[torch.from_numpy(indices(step))].to(device),
        lambda x: (model(x) - x).square().mean(), seed=5, worker=Worker(device=device), **options,
    )  # fmt: skip


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_seed_gives_the_identical_losses():
    assert run(network()) == run(network())


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    whole = run(network())
    state = TrainingState(tmp_path / "c.pt", "this", resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(network(), state=state, progress=lambda step, loss: step == 5 and interrupt())
    steps = []
    resumed = run(network(), state=state, progress=lambda step, loss: steps.append(step))
    assert resumed == whole
    assert steps[0] == 7  # the step that was under way is kept
    assert signal.getsignal(signal.SIGINT) is handler


def validation(values):
    """The error is the next of the values each time."""
    following = iter(values)
    return Validation(lambda: next(following), every=2, patience=2)


def test_a_training_ends_where_the_held_out_error_falls_no_more():
    held_out = validation([3.0, 2.0, 2.5, 2.1, 1.0])
    assert run(network(), validation=held_out) == run(network())[:8]
    assert held_out.errors == {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.1}
    assert held_out.best == 4


def test_a_validated_training_that_was_interrupted_knows_its_errors(tmp_path):
    state = TrainingState(tmp_path / "c.pt", "this", resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(
            network(), state=state, validation=validation([3.0, 2.0, 2.5]),
            progress=lambda step, loss: step == 5 and interrupt(),
        )  # fmt: skip
    again = validation([2.1])
    assert len(run(network(), state=state, validation=again)) == 8
    assert again.best == 4
    ended = validation([])
    assert len(run(network(), state=state, validation=ended)) == 8  # and learns nothing further


def test_a_training_goes_on_from_a_checkpoint_of_a_gpu(tmp_path):
    """Where steps are recorded, the optimiser keeps its rate and its count on the GPU."""
    whole = run(network())
    stopped = TrainingState(tmp_path / "c.pt", "this", resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(network(), state=stopped, progress=lambda step, loss: step == 5 and interrupt())
    saved = torch.load(tmp_path / "c.pt")
    for group in saved["optimiser"]["param_groups"]:
        group |= {"lr": torch.tensor(0.1), "fused": True, "capturable": True}
    torch.save(saved, tmp_path / "c.pt")
    assert run(network(), state=stopped) == whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_that_repeats_a_recorded_step_learns_as_one_that_does_not(tmp_path):
    cuda = torch.device("cuda")
    plain = run(network(), cuda)
    recorded = run(network(), cuda, repeatable=True)
    assert recorded == pytest.approx(plain, rel=1e-3)
    state = TrainingState(tmp_path / "c.pt", "this", resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(network(), cuda, repeatable=True, state=state,
            progress=lambda step, loss: step == 7 and interrupt())  # fmt: skip
    assert run(network(), cuda, repeatable=True, state=state) == pytest.approx(recorded)


def test_another_trainings_checkpoint_is_refused(tmp_path):
    state = TrainingState(tmp_path / "c.pt", "this", resume=True)
    model = network()
    state.save(model, torch.optim.AdamW(model.parameters()), [])
    with pytest.raises(TrainingError, match="another training"):
        run(network(), state=TrainingState(tmp_path / "c.pt", "that", resume=True))
    fresh = TrainingState(tmp_path / "c.pt", "that", resume=False)
    assert run(network(), state=fresh) == run(network())


def test_a_loss_that_is_no_number_stops_the_training():
    model = network()
    with pytest.raises(TrainingError, match="nan at step 0"):
        train(model, SCHEDULE, lambda step: torch.zeros(1, 3),
              lambda x: model(x).sum() * math.nan, seed=0)  # fmt: skip


def test_a_loss_that_explodes_stops_the_training_with_its_likely_cause():
    model = network()

    def loss(x):
        return (model(x) - x).square().mean() * (1e6 if len(x) == 2 else 1)

    with pytest.raises(TrainingError, match="exploded at step 3") as raised:
        train(model, SCHEDULE, lambda step: torch.ones(2 if step == 3 else 4, 3), loss, seed=0)
    assert "0.01" in raised.value.remedy


def test_each_epoch_shows_every_sample_once():
    indices = epochs(10, 5, seed=0)
    first = sorted([*indices(0), *indices(1)])
    assert first == list(range(10))
    assert list(indices(0)) != list(indices(2))


def test_the_rate_rises_and_falls():
    rates = [Schedule(100, 8, 1.0).rate(step) for step in range(100)]
    assert rates[0] < 0.1 < max(rates) <= 1.0
    assert rates[-1] < 0.01
    steps = Schedule(500, 16, 1e-4, kind="step")
    assert (steps.rate(399), steps.rate(400)) == (1e-4, pytest.approx(1e-5))
