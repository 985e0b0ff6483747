"""A run that is killed, stopped or out of disk space goes on as if nothing had happened."""

import json
import os
import random
import resource
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pandas as pd
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
    import engine

    count = engine.evaluate

    def interrupted(*args: object, **options: object) -> tuple:
        os.kill(os.getpid(), signal.SIGINT)
        return count(*args, **options)

    engine.evaluate = interrupted


def limit_file_size() -> None:
    """Let every write beyond 100 kB fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


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
    assert run(folder, *TINY, "--data_dir", celeb, hook=record_rates) == 0
    return folder


@pytest.fixture(scope="module")
def seconds(whole: Path) -> float:
    """How long a whole run takes here and now."""
    first, last = (whole / RUN / name for name in ("args.json", "log.csv"))
    return last.stat().st_mtime - first.stat().st_mtime


def test_killed_at_random_moments(whole: Path, seconds: float, celeb: Path, tmp_path: Path) -> None:
    delays, kills = random.Random(0), 0
    flags = (*TINY, "--data_dir", celeb, "--save_every", 0)  # a save after every step: many kills fall in one
    while kills < 13:
        resume = ("--resume",) if (tmp_path / RUN / "args.json").exists() else ()
        process = start(tmp_path, *flags, *resume)
        process.join(seconds * delays.uniform(0.2, 1.2))  # the start takes a part of it
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


def test_interrupted(whole: Path, celeb: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *TINY, "--data_dir", celeb, "--save_every", 0, "--num_workers", 1, hook=own_group)
    while not (tmp_path / RUN / "last.pth").exists():
        assert process.is_alive(), (tmp_path / "out.txt").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the loader's worker gets it as well
    process.join()
    out = (tmp_path / "out.txt").read_text()
    assert process.exitcode == 130
    assert "best Dice" in out and "interrupted" in out and "Traceback" not in out
    assert run(tmp_path, "--resume", "--save_every", 15, hook=interrupt_in_validation) == 130
    checkpoint = torch.load(tmp_path / RUN / "last.pth", weights_only=True)
    assert checkpoint["batch"] == 8, "the epoch's training is not done again"
    assert run(tmp_path, "--resume", hook=record_rates) == 0
    assert contents(tmp_path / RUN) == contents(whole / RUN)
    rates = (tmp_path / "rates.txt").read_text()
    assert rates and (whole / "rates.txt").read_text().endswith(rates)


def test_full_disk_keeps_the_older_checkpoint(celeb: Path, tmp_path: Path) -> None:
    flags = (*TINY, "--data_dir", celeb, "--epochs", 1)
    assert run(tmp_path, *flags, hook=limit_file_size) == 1
    assert f"{RUN}: could not be written" in (tmp_path / "out.txt").read_text(), "the best model"
    assert {path.name for path in (tmp_path / RUN).iterdir()} <= FILES
    assert run(tmp_path, "--resume") == 0
    before = contents(tmp_path / RUN)
    assert run(tmp_path, "--resume", "--epochs", 2, "--save_every", 0, hook=limit_file_size) == 1
    out = (tmp_path / "out.txt").read_text()
    assert "last.pth: could not be written" in out and "kept" in out and "Traceback" not in out
    assert contents(tmp_path / RUN) == before
    assert {path.name for path in (tmp_path / RUN).iterdir()} == FILES - {"previous.pth"}


def test_broken_checkpoint(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "weights", tmp_path / "weights")
    last = tmp_path / RUN / "last.pth"
    os.truncate(last, 1000)
    assert run(tmp_path, "--resume") == 0
    out = (tmp_path / "out.txt").read_text()
    assert "last.pth: cannot be read" in out and "going on from" in out and "previous.pth" in out
    assert (tmp_path / RUN / "broken.pth").stat().st_size == 1000
    assert contents(tmp_path / RUN) == contents(whole / RUN)
    last.write_bytes(b"")
    (tmp_path / RUN / "previous.pth").write_bytes(b"")
    assert run(tmp_path, "--resume") == 1
    last.unlink()
    (tmp_path / RUN / "previous.pth").unlink()
    assert run(tmp_path, "--resume") == 1, "a trained model is not overwritten by a run from the beginning"
    assert "this run cannot go on" in (tmp_path / "out.txt").read_text()


def test_other_sizes_and_rates(celeb: Path, tmp_path: Path) -> None:
    flags = ("--epochs", 1, "--patience", 1)
    assert run(tmp_path, *TINY, "--data_dir", celeb, *flags) == 0
    assert json.loads((tmp_path / RUN / "args.json").read_text())["decoder_lr"] is None
    for epoch, size in ((2, 32), (3, 64)):
        content = torch.load(tmp_path / RUN / "last.pth", weights_only=True)
        content["best"] = content["history"][0]["valid_dice"] = 1.0  # better than what follows at another size
        torch.save(content, tmp_path / RUN / "last.pth")
        assert run(tmp_path, "--resume", "--epochs", epoch, "--img_size", size, "--encoder_lr", 10.0**-epoch) == 0
        out = (tmp_path / "out.txt").read_text()
        assert f"--decoder_lr was {3e-05 if epoch == 2 else 0.01}, now {10.0**-epoch}" in out
        assert f"in epoch {epoch}; the model is in" in out
        config = json.loads((tmp_path / RUN / "config.json").read_text())["_hair"]
        assert (config["epoch"], config["img_size"]) == (epoch, size)
    content = torch.load(tmp_path / RUN / "last.pth", weights_only=True)
    content["history"] += [row | {"epoch": 4, "valid_dice": 0.0} for row in content["history"][-1:]]
    torch.save(content | {"epoch": 4}, tmp_path / RUN / "last.pth")
    assert run(tmp_path, "--resume", "--epochs", 9) == 0
    assert "nothing to do (more --patience would go on)" in (tmp_path / "out.txt").read_text()


def test_finished_and_raised(whole: Path, celeb: Path, tmp_path: Path) -> None:
    assert run(tmp_path, *TINY, "--data_dir", celeb, "--epochs", 2, hook=record_rates) == 0
    assert run(tmp_path, *TINY, "--data_dir", celeb) == 1, "a run is not overwritten"
    assert "there is a run already" in (tmp_path / "out.txt").read_text()
    mine = tmp_path / "weights" / "mine"
    (tmp_path / RUN).rename(mine)  # a run folder may get another name
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*") if path.name != "log.csv"}
    assert run(tmp_path, "--resume", mine) == 0
    assert "nothing to do" in (tmp_path / "out.txt").read_text()
    assert {path: path.stat().st_mtime_ns for path in mine.rglob("*") if path.name != "log.csv"} == before
    assert run(tmp_path, "--resume", mine, "--epochs", 4, hook=record_rates) == 0
    assert "--epochs was 2, now 4" in (tmp_path / "out.txt").read_text()

    short, long = ((folder / "rates.txt").read_text().splitlines() for folder in (tmp_path, whole))
    assert len(long) == 12 and short[6:] == long[6:], "the rates go on as in a run of 4 epochs"
    encoder = [float(line.split()[0]) for line in long]
    assert max(encoder) == pytest.approx(3e-4) and encoder[0] == pytest.approx(3e-5) and min(encoder) == encoder[-1]
    assert encoder[-1] == pytest.approx(1e-6) and float(short[5].split()[0]) == pytest.approx(1e-6)
    log = pd.read_csv(whole / RUN / "log.csv", float_precision="round_trip")
    assert log["lr"].tolist() == encoder[2::3], "the logged rate is the last one used"
