"""What strikes a training in a process of its own (hooks for `tests.scripts.run`), and what it leaves behind."""

import os
import resource
import signal
from pathlib import Path

import torch

from training import fit

FILES = {"args.json", "config.json", "last.pth", "log.csv", "model.safetensors", "previous.pth", "tensorboard"}


def kill_in_save(call: int) -> None:
    """Let SIGKILL strike when half of a checkpoint is written."""
    save, calls = torch.save, []

    def half(content: dict, path: Path) -> None:
        calls.append(path)
        save(content, path)
        if len(calls) == call:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


def kill_at_rename(name: str, call: int, after: bool) -> None:
    """Let SIGKILL strike before or after a file named so takes its place."""
    replace, calls = Path.replace, []

    def renamed(self: Path, target: Path) -> None:
        calls.extend([target] if Path(target).name == name else [])
        if Path(target).name == name and len(calls) == call:
            if after:
                replace(self, target)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(self, target)

    Path.replace = renamed


def record_rates() -> None:
    """Add the learning rates of every optimizer step to `rates.txt`."""
    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *args: object) -> None:
        with Path("rates.txt").open("a") as file:
            print(*(group["lr"] for group in self.param_groups), file=file)
        step(self, *args)

    torch.optim.AdamW.step = recorded


def own_group() -> None:
    """Let the process and its workers get signals that pytest does not."""
    os.setsid()


def interrupt_in_validation() -> None:
    """Press Ctrl-C when the validation begins."""
    evaluate = fit.evaluate

    def interrupted(*args: object, **options: object) -> tuple:
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*args, **options)

    fit.evaluate = interrupted


def limit_file_size() -> None:
    """Let every write beyond 100 kB fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def break_after_check(photo: Path) -> None:
    """Let a photo break once all have been checked."""
    check = fit.check_photos

    def check_and_break(*sets: object) -> None:
        check(*sets)
        photo.write_bytes(b"no photo")

    fit.check_photos = check_and_break


def flatten(content: object, key: str = "") -> dict[str, object]:
    """A checkpoint's values by their place; tensors as bytes, so that they compare exactly."""
    if isinstance(content, dict):
        return {
            place: value for name, part in content.items() for place, value in flatten(part, f"{key}/{name}").items()
        }
    return {key: content.contiguous().numpy().tobytes() if isinstance(content, torch.Tensor) else content}


def contents(folder: Path) -> dict[str, object]:
    """A run folder's outcome: bytes of the files and values of the checkpoint."""
    files = {name: (folder / name).read_bytes() for name in ("log.csv", "model.safetensors", "config.json")}
    return files | flatten(torch.load(folder / "last.pth", weights_only=True))
