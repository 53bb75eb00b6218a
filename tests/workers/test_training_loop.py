from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from endcap_workers.training.loop import Outcome, Schedule, fit

SCHEDULE = Schedule(epochs=6, patience=0, rate=0.02, warmup=5, cosine=True, average=0.9, seed=4)
_INPUTS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
_WANTED = _INPUTS @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])


def network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def train(model: nn.Module, schedule: Schedule, checkpoint: Path | None = None, after: int = 99) -> Outcome:
    """Regression on 64 rows; dies after ``after`` epochs."""

    def batches(epoch: int) -> list[np.ndarray]:
        if epoch >= after:
            raise KeyboardInterrupt
        return np.array_split(np.random.default_rng([schedule.seed, epoch]).permutation(64), 8)

    def loss(rows: np.ndarray) -> Tensor:
        return (model(_INPUTS[rows]).squeeze(1) - _WANTED[rows]).square().mean()

    def validate() -> float:
        return -float((model(_INPUTS).squeeze(1) - _WANTED).square().mean())

    return fit(model, batches, loss, validate, schedule, checkpoint)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_it_learns_and_the_same_seed_learns_the_same() -> None:
    first, second = network(), network()
    outcome = train(first, replace(SCHEDULE, epochs=40))
    train(second, replace(SCHEDULE, epochs=40))

    assert outcome.best > outcome.values[0] / 5
    assert outcome.best == max(outcome.values)
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path: Path, average: float) -> None:
    schedule = replace(SCHEDULE, average=average)
    whole, cut = network(), network()
    train(whole, schedule)
    with pytest.raises(KeyboardInterrupt):
        train(cut, schedule, tmp_path / "run.pt", after=3)

    again = network(seed=9)
    outcome = train(again, schedule, tmp_path / "run.pt")

    assert len(outcome.values) == 6
    assert torch.equal(weights(again), weights(whole))


def test_kill_9_leaves_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from tests.workers.test_training_loop import SCHEDULE, network, train\n"
        "train(network(), replace(SCHEDULE, epochs=100_000), Path(sys.argv[1]))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run.pt")], cwd=Path(__file__).parents[2])
    try:
        while not (tmp_path / "run.pt").exists():
            assert run.poll() is None
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()

    done = torch.load(tmp_path / "run.pt", weights_only=True)["epoch"]
    with pytest.raises(KeyboardInterrupt):
        train(network(), replace(SCHEDULE, epochs=100_000), tmp_path / "run.pt", after=done + 2)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["epoch"] == done + 2


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    first, second = network(), network(seed=2)
    train(first, SCHEDULE, tmp_path / "run.pt")
    outcome = train(second, SCHEDULE, tmp_path / "run.pt", after=0)

    assert outcome.finished
    assert torch.equal(weights(first), weights(second))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(network(), SCHEDULE, tmp_path / "run.pt")

    with pytest.raises(ValueError, match="another schedule"):
        train(network(), replace(SCHEDULE, rate=0.5), tmp_path / "run.pt")
    with pytest.raises(ValueError, match="another model"):
        train(nn.Linear(5, 1), SCHEDULE, tmp_path / "run.pt")


def test_it_stops_when_nothing_gets_better_and_keeps_the_best() -> None:
    model = network()
    values = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    seen: list[Tensor] = []

    def validate() -> float:
        seen.append(weights(model))
        return next(values)

    outcome = fit(
        model, lambda epoch: [0], lambda _: model(_INPUTS).mean(), validate, Schedule(epochs=9, patience=2, rate=0.1)
    )

    assert outcome.values == [1.0, 3.0, 2.0, 2.5]
    assert outcome.best_epoch == 2
    assert torch.equal(weights(model), seen[1])


def test_without_validation_the_last_epoch_is_kept() -> None:
    model = network()
    outcome = fit(model, lambda epoch: [0], lambda _: model(_INPUTS).mean(), None, Schedule(epochs=4, patience=2))

    assert outcome.best_epoch == 4
    assert len(outcome.losses) == 4


def test_a_loss_that_is_not_a_number_stops_the_run() -> None:
    model = network()
    with pytest.raises(FloatingPointError, match="epoch 1"):
        fit(model, lambda epoch: [0], lambda _: model(_INPUTS).mean() * float("nan"), lambda: 0.0, Schedule(epochs=2))


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    script = (
        "import os, sys, torch, torch.distributed as distributed\n"
        "from dataclasses import replace\n"
        "from tests.workers.test_training_loop import SCHEDULE, network, train, weights\n"
        "meet, rank = f'file://{sys.argv[1]}/meet', int(sys.argv[2])\n"
        "distributed.init_process_group('gloo', init_method=meet, rank=rank, world_size=2)\n"
        "model = network(seed=distributed.get_rank())\n"
        "outcome = train(model, replace(SCHEDULE, epochs=30))\n"
        "torch.save((weights(model), outcome.values), f'{sys.argv[1]}/{distributed.get_rank()}.pt')\n"
        # Both are done: leave at once. Taking gloo's threads down aborts the process now and then, after its work.
        "distributed.barrier()\n"
        "os._exit(0)\n"
    )
    runs = []
    for rank in range(2):
        command = [sys.executable, "-c", script, str(tmp_path), str(rank)]
        runs.append(subprocess.Popen(command, cwd=Path(__file__).parents[2]))
    assert [run.wait(timeout=240) for run in runs] == [0, 0]

    (first, values), (second, _) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first, second)
    assert max(values) > values[0] / 3
