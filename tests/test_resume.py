"""A run that is killed, stopped or out of disk space goes on as if nothing had happened."""

import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from scripts import RUN, TINY, run, start

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


def contents(folder: Path) -> dict:
    """A run folder's outcome: bytes of the files and tensors of the checkpoint."""
    files = {name: (folder / name).read_bytes() for name in ("log.csv", "model.safetensors", "config.json")}
    checkpoint = torch.load(folder / "last.pth", weights_only=True)
    tensors = {}

    def collect(key: str, value: object) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                collect(f"{key}/{name}", part)
        elif isinstance(value, torch.Tensor):
            tensors[key] = value.contiguous().numpy().tobytes()
        else:
            tensors[key] = value

    collect("", checkpoint)
    return files | tensors


@pytest.fixture(scope="module")
def whole(celeb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 4 epochs in one go; `out.txt` is in its working folder."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, *TINY, "--data_dir", celeb) == 0
    assert {path.name for path in (folder / RUN).iterdir()} == FILES
    return folder


def test_killed_at_random_moments(whole: Path, celeb: Path, tmp_path: Path) -> None:
    delays, kills = random.Random(0), 0
    flags = (*TINY, "--data_dir", celeb, "--save_every", 0)  # a save after every step: many kills fall in one
    while kills < 13:
        resume = ("--resume",) if (tmp_path / RUN / "args.json").exists() else ()
        process = start(tmp_path, *flags, *resume)
        process.join(delays.uniform(0.2, 1.6))
        if process.is_alive():
            process.kill()
            kills += 1
            process.join()
            continue
        assert process.exitcode == 0
        if kills < 13:  # done before enough kills: the same again from its start
            shutil.rmtree(tmp_path / RUN)
    assert run(tmp_path, "--resume", *(() if (tmp_path / RUN / "args.json").exists() else flags)) == 0
    assert contents(tmp_path / RUN) == contents(whole / RUN)
    assert {path.name for path in (tmp_path / RUN).iterdir()} == FILES


HOOKS = [
    partial(kill_at_rename, "args.json", 1, after=True),  # before any save
    partial(kill_in_save, 1),
    partial(kill_in_save, 3),
    partial(kill_at_rename, "previous.pth", 1, after=True),  # the older one moved, the new one not yet in place
    partial(kill_at_rename, "last.pth", 2, after=True),
    partial(kill_at_rename, "model.safetensors", 1, after=True),  # the best model's two files in part
    partial(kill_at_rename, "config.json", 1, after=True),  # the model saved, the checkpoint not
    partial(kill_at_rename, "log.csv", 2, after=False),  # the checkpoint saved, the log not (1: written on resuming)
    partial(kill_in_save, 4),
    partial(kill_at_rename, "log.csv", 2, after=True),
]


def test_killed_within_saves(whole: Path, celeb: Path, tmp_path: Path) -> None:
    for number, hook in enumerate(HOOKS):
        flags = (*TINY, "--data_dir", celeb, "--save_every", 0) if number == 0 else ("--resume",)
        assert run(tmp_path, *flags, hook=hook) == -signal.SIGKILL, (number, (tmp_path / "out.txt").read_text())
    assert run(tmp_path, "--resume") == 0
    assert contents(tmp_path / RUN) == contents(whole / RUN)
    assert {path.name for path in (tmp_path / RUN).iterdir()} == FILES
