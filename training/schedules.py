"""Learning-rate schedules."""

from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler, ReduceLROnPlateau
from warmup_scheduler import GradualWarmupScheduler

PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.3, 2  # ReduceLROnPlateau: factor of the rate, epochs without a better Dice
RESTART_PARTS = 7  # CosineAnnealingWarmRestarts: three cycles of 1/7, 2/7 and 4/7 of the run


class GradualWarmupSchedulerV2(GradualWarmupScheduler):
    """The linear warm-up of warmup-scheduler, then another schedule. Call `step()` after every optimizer step.

    It fixes three bugs of the parent class: the peak lasts only one step, a multiplier of 1 stays at the base rate
    instead of starting at zero, and `state_dict` contains only numbers, so that a resumed run has the same rates.
    """

    def __init__(
        self, optimizer: Optimizer, multiplier: float, warmup_steps: int, after_scheduler: LRScheduler
    ) -> None:
        after_scheduler.base_lrs = [lr * multiplier for lr in after_scheduler.base_lrs]
        super().__init__(optimizer, multiplier, max(warmup_steps, 0), after_scheduler)

    def get_lr(self) -> list[float]:
        factor = self.multiplier
        if self.last_epoch < self.total_epoch:
            factor = 1 + (self.multiplier - 1) * self.last_epoch / self.total_epoch
        return [lr * factor for lr in self.base_lrs]

    def step(self) -> None:
        if self.last_epoch < self.total_epoch:
            LRScheduler.step(self)
        else:
            self.after_scheduler.step()
            self._last_lr = self.after_scheduler.get_last_lr()

    def state_dict(self) -> dict:
        return {"last_epoch": self.last_epoch, "after_scheduler": self.after_scheduler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.last_epoch = state["last_epoch"]
        self._step_count = self.last_epoch + 1  # otherwise torch warns that there was no optimizer step before
        self.after_scheduler.load_state_dict(state["after_scheduler"])
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


@dataclass(frozen=True)
class Schedule:
    """Settings of a learning-rate schedule.

    Attributes:
        name: one of `flags.SCHEDULERS`.
        epochs: epochs of the whole run.
        steps_per_epoch: optimizer steps per epoch.
        warmup_epochs: epochs of warm-up (GradualWarmupSchedulerV2).
        warmup_factor: rate after the warm-up, divided by the optimizer's initial rate (GradualWarmupSchedulerV2).
        min_lr: rate at the end.
    """

    name: str
    epochs: int
    steps_per_epoch: int
    warmup_epochs: float
    warmup_factor: float
    min_lr: float


def build_scheduler(schedule: Schedule, optimizer: Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
    """Build a scheduler. ReduceLROnPlateau steps after each epoch, with its Dice; all others after each optimizer step.

    Except with GradualWarmupSchedulerV2, the optimizer's initial rates are the peak rates.
    """
    steps = schedule.epochs * schedule.steps_per_epoch
    if schedule.name == "GradualWarmupSchedulerV2":
        # The last rate is used by the last optimizer step, which is step number `steps - 1` counted from zero.
        warmup = min(round(schedule.warmup_epochs * schedule.steps_per_epoch), steps - 1)
        cosine = CosineAnnealingLR(optimizer, T_max=max(steps - 1 - warmup, 1), eta_min=schedule.min_lr)
        return GradualWarmupSchedulerV2(optimizer, schedule.warmup_factor, warmup, cosine)
    if schedule.name == "CosineAnnealingLR":
        return CosineAnnealingLR(optimizer, T_max=max(steps - 1, 1), eta_min=schedule.min_lr)
    if schedule.name == "CosineAnnealingWarmRestarts":
        part = max(-(-steps // RESTART_PARTS), 1)  # rounded up: a step after the last part would jump to the peak
        return CosineAnnealingWarmRestarts(optimizer, T_0=part, T_mult=2, eta_min=schedule.min_lr)
    if schedule.name == "ReduceLROnPlateau":
        return ReduceLROnPlateau(
            optimizer, mode="max", factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE, min_lr=schedule.min_lr
        )
    return None
