"""A run's state on the disk: saved whole or not at all, and read again by `--resume`."""

import contextlib
import math
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from segmentation_models_pytorch.base import SegmentationModel
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import models
from utils import UserError, atomic, processes, rank, total, wait_for_all

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

CHECKPOINT_VERSION = 2
ORDER = ("batch_size", "grad_accum", "processes", "photos", "seed")  # what decides which photos a batch holds
RATES = ("scheduler", "epochs", "encoder_lr", "decoder_lr", "min_lr", "warmup_epochs", "warmup_factor")


@dataclass
class State:
    """Everything that a resumed run needs to go on as if it had never stopped.

    Order, augmentation and dropout need no stored random states: they follow from the seed, the epoch and the batch.
    """

    model: SegmentationModel
    network: nn.Module  # the model as training calls it: compiled, spread over processes
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau | None
    scaler: torch.amp.GradScaler
    steps_per_epoch: int  # of the optimizer
    recipe: dict  # the flags of ORDER and RATES
    teacher: nn.Module | None = None  # as models.Teacher; comes from its own files
    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch under way
    loss_sum: float = 0.0  # over those batches
    best: float = -1.0  # Dice at the present size
    history: list[dict] = field(default_factory=list)
    trained_on: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # as PhotoSet.digests; grows
    held_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def step(self) -> int:
        """Finished optimizer steps of the whole run."""
        return self.epoch * self.steps_per_epoch + math.ceil(self.batch / self.recipe["grad_accum"])

    def scored_model(self) -> SegmentationModel:
        """The network that is validated and kept: the average of the weights where there is one."""
        return self.ema.module if self.ema else self.model

    def save(self, path: Path) -> None:
        """Write a checkpoint of tensors and plain values, atomically; the one before becomes `previous.pth`."""
        content = {
            "version": CHECKPOINT_VERSION,
            "recipe": self.recipe,
            **{name: part.state_dict() for name, part in self._parts().items()},
            **{name: getattr(self, name) for name in ("epoch", "batch", "loss_sum", "best", "history")},
            "trained_on": torch.from_numpy(self.trained_on.copy()),
        }
        with writing(path), atomic(path) as temporary:
            torch.save(content, temporary)
            if path.exists():
                path.replace(path.with_name("previous.pth"))

    def resume(self, run: Path) -> None:
        """Go on from a run's `last.pth`, or from `previous.pth` where that one is broken. Raises UserError."""
        last, previous = run / "last.pth", run / "previous.pth"
        if last.exists() or previous.exists():
            try:
                content = _read_checkpoint(last)
            except UserError as error:
                if not previous.exists():
                    raise UserError(f"{error}; without a previous.pth the run has to start anew") from error
                content = _read_checkpoint(previous)
                if rank() == 0:
                    print(f"{error}; going on from {previous}", file=sys.stderr)
                    if last.exists():  # out of the way: the next save would put it in the place of the good one
                        last.replace(run / "broken.pth")
            self.load(content, run)
        elif (run / "log.csv").exists():
            raise UserError(f"{last}: no such file, so this run cannot go on; start another in a new --output_dir")
        elif rank() == 0:
            print(f"{run}: stopped before its first save; starting from the beginning")

    def load(self, content: dict, source: Path) -> None:
        """Take over a checkpoint's content; flags of the learning rate may have changed. Raises UserError."""
        changed = [key for key, value in self.recipe.items() if content["recipe"][key] != value]
        if content["batch"] and (wrong := [key for key in changed if key in ORDER]):
            raise UserError(
                f"{source}: stopped within an epoch of a run with {wrong[0]} {content['recipe'][wrong[0]]}, "
                f"but now it is {self.recipe[wrong[0]]}; resume with the same"
            )
        before = content.get("trained_on", torch.empty(0, dtype=torch.int64)).numpy()
        if leaked := np.isin(self.held_out, before).sum():
            raise UserError(
                f"{source}: its data has changed, and {leaked} of the photos to validate on were trained on before; "
                "take back the change, or start another run"
            )
        self.trained_on = np.union1d(before, self.trained_on)
        if self.ema is not None and "ema" not in content:
            raise UserError(f"{source}: the run keeps no moving average of its weights; resume with --ema 0")
        fresh = [{key: group[key] for key in ("lr", "weight_decay")} for group in self.optimizer.param_groups]
        try:
            for name, part in self._parts().items():
                # A scaler that was off, as for bf16, has no state.
                if (name != "scheduler" or not changed) and (name != "scaler" or content[name]):
                    part.load_state_dict(content[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{source}: does not fit these flags ({str(error).splitlines()[0]})") from error
        for name in ("epoch", "batch", "loss_sum", "best", "history"):
            setattr(self, name, content[name])
        for group, values in zip(self.optimizer.param_groups, fresh, strict=True):
            group |= values if changed else {"weight_decay": values["weight_decay"]}
        if changed:
            self._replay_schedule()
            if rank() == 0:
                print(
                    *(f"--{key} was {content['recipe'][key]}, now {self.recipe[key]}" for key in changed),
                    "the learning rate goes on as in a run that had these flags from its start",
                    sep="; ",
                )

    def forget_best(self) -> None:
        """Begin anew with what is the best, since Dice at another size does not compare."""
        self.best = -1.0
        if isinstance(self.scheduler, ReduceLROnPlateau):
            _forget_best(self.scheduler)

    def _replay_schedule(self) -> None:
        """Bring a new schedule to where the run is."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            for before, row in zip([*self.history[:1], *self.history], self.history, strict=False):
                if row["img_size"] != before["img_size"]:
                    _forget_best(self.scheduler)
                self.scheduler.step(row["valid_dice"])
        elif self.scheduler is not None:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that no optimizer step came first
                for _ in range(self.step - 1):
                    self.scheduler.step()

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler
        if self.ema is not None:
            parts["ema"] = self.ema.module
        return parts


def _forget_best(scheduler: ReduceLROnPlateau) -> None:
    scheduler.best, scheduler.num_bad_epochs = -math.inf, 0


def _read_checkpoint(path: Path) -> dict:
    content = models.read_tensors(path)
    if content.get("version") != CHECKPOINT_VERSION:
        raise UserError(f"{path}: a checkpoint of another version of this project; start the run anew")
    needed = {"recipe", "model", "optimizer", "scaler", "epoch", "batch", "loss_sum", "best", "history"}
    if missing := sorted(needed - content.keys()):
        raise UserError(f"{path}: is damaged ({missing[0]} is missing)")
    return content


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full disk raises into one line; torch has a RuntimeError for it and safetensors its own kind."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: could not be written ({reason}); what was saved before is kept") from error


@contextlib.contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Keep other runs on this machine out of a run folder. Raises UserError where one is at work in it."""
    if rank() > 0 or fcntl is None:
        yield
        return
    lock = run / ".lock"
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
            if os.fstat(file.fileno()).st_ino != lock.stat().st_ino:  # its owner left, and another made a new one
                raise BlockingIOError
        except (BlockingIOError, PermissionError, FileNotFoundError) as error:
            raise UserError(f"{run}: another run is at work in it; wait, or choose another --output_dir") from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def remove_leftovers(run: Path) -> None:
    """Remove what a process that was killed within a save left behind."""
    for pattern in (".*.pth.*", ".*.csv.*", ".*.json.*", ".new.*"):
        for folder in run.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


class Keeper:
    """Saves a run's state now and then; Ctrl-C and SIGTERM wait for the end of a step, where the state is whole."""

    def __init__(self, state: State, path: Path, minutes: float, device: torch.device) -> None:
        self.state, self.path, self.seconds = state, path, 60 * minutes
        self.flag = torch.zeros(1, device=device)
        self.pressed, self.saved_at = False, time.monotonic()

    def __enter__(self) -> "Keeper":
        self.handlers = {kind: signal.signal(kind, self._press) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for kind, handler in self.handlers.items():
            signal.signal(kind, handler)
        if self.pressed and error is None:  # too late for a batch to see it, but another fold may come
            raise KeyboardInterrupt

    def _press(self, *_: object) -> None:
        if self.pressed:  # the second time stops at once; the last save is whole all the same
            raise KeyboardInterrupt
        self.pressed = True

    def save(self) -> None:
        """Save now; of several processes the first does it."""
        if rank() == 0:
            self.state.save(self.path)
        self.saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save if it is time to; all processes stop after the same step."""
        self._check(self.pressed if processes() == 1 else bool(total(self.flag.fill_(self.pressed))), wait_for_all)

    def after_validation_batch(self) -> None:
        """The same between batches of the validation, of which processes may have different numbers."""
        self._check(self.pressed, lambda: None)

    def _check(self, stop: bool, wait: Callable[[], None]) -> None:
        if stop or time.monotonic() - self.saved_at > self.seconds:
            self.save()
        if stop:
            wait()
            if rank() == 0:
                best = f"best Dice {max(0.0, self.state.best):.4f}"
                print(f"stopped in epoch {self.state.epoch + 1}; {best}; --resume goes on", flush=True)
            raise KeyboardInterrupt
