"""Save the state of a run atomically, and load it again for `--resume`."""

import contextlib
import errno
import math
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from segmentation_models_pytorch.base import SegmentationModel
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import models
from hair.errors import UserError
from hair.files import atomic
from training.processes import rank, total, wait_for_all, world_size
from training.stops import STOP_SIGNALS, handle_stops

CHECKPOINT_VERSION = 2
LAST, PREVIOUS, BROKEN = "last.pth", "previous.pth", "broken.pth"
# The settings that a checkpoint stores: those that decide which photos are in a batch, and those for learning rates.
ORDER = ("batch_size", "grad_accum", "processes", "photos", "sampling", "seed")
RATES = ("scheduler", "epochs", "encoder_lr", "decoder_lr", "min_lr", "warmup_epochs", "warmup_factor")
COUNTERS = ("epoch", "batch", "loss_sum", "best", "history")  # fields of TrainingState
# Values that are not flags. "sampling" is missing if all weights are 1, as in runs of versions without such weights.
NAMES = {"processes": "the number of processes", "photos": "the number of photos", "sampling": "weights of --data_dir"}
IMPATIENCE = 2.0  # seconds; a second Ctrl-C that comes later is the user's (torchrun repeats the first one)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # on file systems without locks


@dataclass
class TrainingState:
    """Everything that a resumed run needs to continue as if it had never stopped.

    No random states are stored: order, augmentation and dropout follow from the seed, the epoch and the batch.
    """

    model: SegmentationModel
    network: nn.Module  # the model as training calls it: compiled, distributed over processes
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau | None
    scaler: torch.amp.GradScaler
    steps_per_epoch: int  # optimizer steps
    recipe: dict  # the values of ORDER and RATES
    teacher: nn.Module | None = None  # a models.Teacher; not saved here
    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    loss_sum: float = 0.0  # over these batches
    best: float = -1.0  # Dice at the current size
    history: list[dict] = field(default_factory=list)  # rows of log.csv
    trained_on: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # as PhotoSet.digests; it grows
    held_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    order: str = ""  # a hash of the photos to train on and of their order

    @property
    def step(self) -> int:
        """Finished optimizer steps of the whole run."""
        return self.epoch * self.steps_per_epoch + math.ceil(self.batch / self.recipe["grad_accum"])

    def scored_model(self) -> SegmentationModel:
        """The network that is validated and saved: the moving average of the weights, if there is one."""
        return self.ema.module if self.ema else self.model

    def save(self, path: Path) -> None:
        """Write a checkpoint of tensors and plain values, atomically; the previous one becomes `previous.pth`."""
        content = {
            "version": CHECKPOINT_VERSION,
            "recipe": self.recipe,
            **{name: part.state_dict() for name, part in self._parts().items()},
            **{name: getattr(self, name) for name in COUNTERS},
            "trained_on": torch.from_numpy(self.trained_on.copy()),
            "order": self.order,
        }
        with writing(path), atomic(path) as temporary:
            torch.save(content, temporary)
            if path.exists():
                path.replace(path.with_name(PREVIOUS))

    def resume(self, run: Path) -> None:
        """Continue from a run's `last.pth`, or from `previous.pth` if that is broken. Raises UserError."""
        last, previous = run / LAST, run / PREVIOUS
        if last.exists() or previous.exists():
            try:
                content = _read_checkpoint(last)
            except UserError as error:
                if not previous.exists():
                    raise UserError(f"{error}; without a previous.pth the run cannot be resumed") from error
                content = _read_checkpoint(previous)
                if rank() == 0:
                    print(f"{error}; resuming from {previous}", file=sys.stderr)
                    if last.exists():  # otherwise the next save would replace the good checkpoint with this one
                        last.replace(run / BROKEN)
            self.load(content, run)
        elif (run / "log.csv").exists():
            raise UserError(
                f"{last}: no such file, so this run cannot be resumed; start a new run in a new --output_dir"
            )
        elif rank() == 0:
            print(f"{run}: stopped before its first save; starting from the beginning")

    def load(self, content: dict, source: Path) -> None:
        """Load the content of a checkpoint; the learning-rate flags may have changed.

        Args:
            content: content of a checkpoint.
            source: its name, for error messages.

        Raises:
            UserError: the checkpoint is of other photos, another order within an epoch, or another network.
        """
        changed = [key for key in ORDER + RATES if content["recipe"].get(key) != self.recipe.get(key)]
        self._check_order(content, changed, source)
        self._check_split(content, source)
        if self.ema is not None and "ema" not in content:
            raise UserError(f"{source}: the run has no moving average of its weights; resume with --ema 0")
        new_rates = [{key: group[key] for key in ("lr", "weight_decay")} for group in self.optimizer.param_groups]
        self._load_parts(content, bool(changed), source)
        for name in COUNTERS:
            setattr(self, name, content[name])
        for group, rates in zip(self.optimizer.param_groups, new_rates, strict=True):
            group |= rates if changed else {"weight_decay": rates["weight_decay"]}
        if changed:
            self._replay_schedule()
            if rank() == 0:
                before, now = content["recipe"], self.recipe
                changes = [f"{_name(key)} was {before.get(key, 1)}, now {now.get(key, 1)}" for key in changed]
                print("; ".join([*changes, "the learning rate continues as if the run had started with these flags"]))

    def _check_order(self, content: dict, changed: list[str], source: Path) -> None:
        """Raise UserError if the run would continue within an epoch but with other photos in its batches."""
        wrong = [key for key in changed if key in ORDER]
        if content["batch"] and wrong:
            raise UserError(
                f"{source}: stopped within an epoch with {_name(wrong[0])} {content['recipe'].get(wrong[0], 1)}, "
                f"but now it is {self.recipe.get(wrong[0], 1)}; resume with the same value"
            )
        if content["batch"] and content.get("order", self.order) != self.order:  # earlier versions did not save it
            raise UserError(
                f"{source}: stopped within an epoch with other photos, or in another order; resume with the same "
                "--data_dir and --exclude"
            )

    def _check_split(self, content: dict, source: Path) -> None:
        """Raise UserError if the run would be validated on photos that it has been trained on."""
        before = content.get("trained_on", torch.empty(0, dtype=torch.int64)).numpy()
        if leaked := np.isin(self.held_out, before).sum():
            raise UserError(
                f"{source}: the data has changed: {leaked} of the photos to validate on have already been trained on; "
                "undo the change, or start a new run"
            )
        self.trained_on = np.union1d(before, self.trained_on)

    def _load_parts(self, content: dict, has_new_schedule: bool, source: Path) -> None:
        """Load model, optimizer and the other parts. Raises UserError if they do not match."""
        try:
            for name, part in self._parts().items():
                if name == "scheduler" and has_new_schedule:
                    continue
                if name == "scaler" and not content[name]:  # one that was off, as for bf16, has no state
                    continue
                part.load_state_dict(content[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{source}: does not match these flags ({str(error).splitlines()[0]})") from error

    def forget_best(self) -> None:
        """Forget the best Dice, because it cannot be compared with the Dice at another image size."""
        self.best = -1.0
        if isinstance(self.scheduler, ReduceLROnPlateau):
            _forget_best(self.scheduler)

    def _replay_schedule(self) -> None:
        """Advance a new schedule to the current step of the run."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            for before, row in zip([*self.history[:1], *self.history], self.history, strict=False):
                if row["img_size"] != before["img_size"]:
                    _forget_best(self.scheduler)
                self.scheduler.step(row["valid_dice"])
        elif self.scheduler is not None:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # about missing optimizer steps
                for _ in range(self.step - 1):
                    self.scheduler.step()

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler
        if self.ema is not None:
            parts["ema"] = self.ema.module
        return parts


def _name(key: str) -> str:
    """The name of a value of ORDER or RATES for the user."""
    return NAMES.get(key, f"--{key}")


def _forget_best(scheduler: ReduceLROnPlateau) -> None:
    scheduler.best, scheduler.num_bad_epochs = -math.inf, 0


def _read_checkpoint(path: Path) -> dict:
    content = models.read_tensors(path)
    if content.get("version") != CHECKPOINT_VERSION:
        raise UserError(f"{path}: was saved by another version of this project; start a new run")
    needed = {"recipe", "model", "optimizer", "scaler", *COUNTERS}
    if missing := sorted(needed - content.keys()):
        raise UserError(f"{path}: is damaged ({missing[0]} is missing)")
    return content


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of a full disk into a UserError; torch raises RuntimeError, and safetensors its own error."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: could not be written ({reason}); what was saved before is kept") from error


@contextlib.contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Lock a run folder. Raises UserError if another run is using it.

    The operating system releases the lock when the process ends. On file systems without locks, nothing is locked.
    """
    if rank() > 0:
        yield
        return
    path = run / ".lock"
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a process killed on another machine
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(f"{run}: another run is using this folder; wait, or choose another --output_dir") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
    try:
        yield
    finally:
        # Removed while it is locked: filelock does not accept a lock on a removed file, so no other run can get it.
        with contextlib.suppress(OSError):  # Windows cannot remove an open file; there, filelock removes it on release
            path.unlink()
        lock.release()


def remove_leftovers(run: Path) -> None:
    """Remove temporary files of a process that was killed while it was saving."""
    for pattern in (".*.pth.*", ".*.csv.*", ".*.json.*", ".*.safetensors.*", ".new.*"):  # the last by earlier versions
        for folder in run.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


class CheckpointTimer:
    """Saves the state of a run every few minutes.

    As a context manager, it delays requests to stop (see `training.stops`) until the end of a step, when the state is
    complete. A second Ctrl-C, a few seconds later, stops at once.
    """

    def __init__(self, state: TrainingState, path: Path, minutes: float, device: torch.device) -> None:
        """Save `state` to `path` every `minutes`; `device` is where the training runs."""
        self.state, self.path, self.seconds = state, path, 60 * minutes
        self.stop_flag = torch.zeros(1, device=device)  # summed over the processes
        self.stopped_by, self.stopped_at = 0, 0.0  # the signal, and the time at which it came
        self.saved_at = time.monotonic()

    def __enter__(self) -> "CheckpointTimer":
        self.handlers = {kind: signal.getsignal(kind) for kind in STOP_SIGNALS}
        handle_stops(self._request_stop)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and self._is_stop_requested():  # after the last batch, but another fold may follow
            self._stop()
        for kind, handler in self.handlers.items():
            signal.signal(kind, signal.SIG_IGN if self.stopped_by else handler)

    def _request_stop(self, number: int, _: object) -> None:
        if not self.stopped_by:
            self.stopped_by, self.stopped_at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.stopped_at > IMPATIENCE:
            handle_stops(signal.SIG_IGN)
            raise KeyboardInterrupt(number, "stopped within a step; continue from the last save with --resume")

    def _is_stop_requested(self) -> bool:
        """Whether any process has received a request to stop; all processes call this together."""
        if world_size() == 1:
            return bool(self.stopped_by)
        return bool(total(self.stop_flag.fill_(bool(self.stopped_by))))

    def restart(self) -> None:
        """Restart the timer, because the state has just been saved."""
        self.saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save if it is time. If one process has received a request to stop, all stop after the same step.

        It is also called between batches of the validation. All processes call it equally often.
        """
        stop = self._is_stop_requested()
        if stop or time.monotonic() - self.saved_at > self.seconds:
            if rank() == 0:
                self.state.save(self.path)
            self.restart()
        if stop:
            wait_for_all()
            self._stop()

    def _stop(self) -> None:
        handle_stops(signal.SIG_IGN)  # the state is saved; timeout(1), torchrun and users may send several signals
        line = ""
        if rank() == 0:
            where = f"in epoch {self.state.epoch + 1}" if self.state.batch else f"after epoch {self.state.epoch}"
            line = f"stopped {where}; best Dice {max(0.0, self.state.best):.4f}; continue with --resume"
        raise KeyboardInterrupt(self.stopped_by or signal.SIGTERM, line)
