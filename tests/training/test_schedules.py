"""Learning rates over a run, without a network; test_checkpoint.py has those that a run really used."""

import pytest
import torch

from training.flags import SCHEDULERS
from training.schedules import Schedule, build_scheduler


def optimizer_of(rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def rates_of(schedule: Schedule, rate: float = 1.0) -> list[float]:
    """The rate of each optimizer step of a run."""
    optimizer = optimizer_of(rate)
    scheduler = build_scheduler(schedule, optimizer)
    rates = []
    for _ in range(schedule.epochs * schedule.steps_per_epoch):
        if rates and scheduler is not None:
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates


@pytest.mark.parametrize("steps", [20, 100, 601])
def test_restarts_end_at_a_low_rate(steps: int) -> None:
    schedule = Schedule(
        "CosineAnnealingWarmRestarts", epochs=1, steps_per_epoch=steps, warmup_epochs=0, warmup_factor=1, min_lr=0
    )
    rates = rates_of(schedule)
    assert rates[0] == 1 and rates[-1] < 0.1


def test_the_warm_up_rises_to_its_peak_once_and_the_rest_falls_to_the_lowest_rate() -> None:
    schedule = Schedule(
        "GradualWarmupSchedulerV2", epochs=4, steps_per_epoch=5, warmup_epochs=1, warmup_factor=10, min_lr=0.01
    )
    rates = rates_of(schedule)
    assert rates[:6] == pytest.approx([1, 2.8, 4.6, 6.4, 8.2, 10])
    assert rates[5:] == sorted(set(rates[5:]), reverse=True) and rates[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_name_of_the_flag_is_a_schedule(name: str) -> None:
    """Also in a run of a single step."""
    for epochs, steps in ((1, 1), (3, 4)):
        schedule = Schedule(name, epochs=epochs, steps_per_epoch=steps, warmup_epochs=1, warmup_factor=10, min_lr=1e-6)
        scheduler = build_scheduler(schedule, optimizer_of(1e-3))
        assert (scheduler is None) == (name == "none")
        if name not in ("none", "ReduceLROnPlateau"):
            assert all(1e-6 <= rate <= 1.001e-2 for rate in rates_of(schedule, 1e-3))
