"""A run that is killed, stopped or out of disk space continues as if nothing had happened; no two share a folder."""

import copy
import fcntl
import json
import os
import pickle
import random
import shutil
import signal
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import models
from dataset import open_folder, prepare_celeb, split
from hair import HairSegmenter, UserError, backends
from tests.pictures import write
from tests.scripts import RUN, TINY, run, start
from tests.training.hooks import (
    FILES,
    contents,
    flatten,
    interrupt_in_validation,
    kill_at_rename,
    kill_in_save,
    limit_file_size,
    own_group,
    record_rates,
)
from tests.training.states import build_state, make_plan
from training import checkpoint

# ---------------------------------------------------------------------------------------------------- whole runs


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
    flags = [*TINY, "--data_dir", celeb, "--save_every", 0]  # a save after every step: many kills fall in one
    while kills < 13:
        resume = ["--resume"] if (tmp_path / RUN / "args.json").exists() else []
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
    assert run(tmp_path, "--resume", *([] if (tmp_path / RUN / "args.json").exists() else flags)) == 0
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
        flags = [*TINY, "--data_dir", celeb, "--save_every", 0] if number == 0 else ["--resume"]
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
    assert out.count("stopped") == 1 and "best Dice" in out and "--resume" in out and "Traceback" not in out
    assert run(tmp_path, "--resume", "--save_every", 15, hook=interrupt_in_validation) == 130
    content = torch.load(tmp_path / RUN / "last.pth", weights_only=True)
    assert content["batch"] == 8, "the epoch's training is not done again"
    assert run(tmp_path, "--resume", hook=record_rates) == 0
    assert contents(tmp_path / RUN) == contents(whole / RUN)
    rates = (tmp_path / "rates.txt").read_text()
    assert rates and (whole / "rates.txt").read_text().endswith(rates)


def test_full_disk_keeps_the_older_checkpoint(celeb: Path, tmp_path: Path) -> None:
    flags = [*TINY, "--data_dir", celeb, "--epochs", 1]
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
    assert "last.pth: cannot be read" in out and "resuming from" in out and "previous.pth" in out
    assert (tmp_path / RUN / "broken.pth").stat().st_size == 1000
    assert contents(tmp_path / RUN) == contents(whole / RUN)
    last.write_bytes(b"")
    (tmp_path / RUN / "previous.pth").write_bytes(b"")
    assert run(tmp_path, "--resume") == 1
    last.unlink()
    (tmp_path / RUN / "previous.pth").unlink()
    assert run(tmp_path, "--resume") == 1, "a trained model is not overwritten by a run from the beginning"
    assert "this run cannot be resumed" in (tmp_path / "out.txt").read_text()


def test_other_sizes_and_rates(celeb: Path, tmp_path: Path) -> None:
    flags = ["--epochs", 1, "--patience", 1]
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
    assert "nothing to do (raise --patience to continue)" in (tmp_path / "out.txt").read_text()


def test_finished_and_raised(whole: Path, celeb: Path, tmp_path: Path) -> None:
    assert run(tmp_path, *TINY, "--data_dir", celeb, "--epochs", 2, hook=record_rates) == 0
    assert run(tmp_path, *TINY, "--data_dir", celeb) == 1, "a run is not overwritten"
    assert "already contains a run" in (tmp_path / "out.txt").read_text()
    mine = tmp_path / "weights" / "mine"
    (tmp_path / RUN).rename(mine)  # a run folder may get another name
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*") if path.name != "log.csv"}
    assert run(tmp_path, "--resume", mine) == 0
    assert "nothing to do" in (tmp_path / "out.txt").read_text()
    assert {path: path.stat().st_mtime_ns for path in mine.rglob("*") if path.name != "log.csv"} == before
    assert run(tmp_path, "--resume", mine, "--epochs", 4, hook=record_rates) == 0
    assert "--epochs was 2, now 4" in (tmp_path / "out.txt").read_text()

    short, long = ((folder / "rates.txt").read_text().splitlines() for folder in (tmp_path, whole))
    assert len(long) == 12 and short[6:] == long[6:], "the rates continue as in a run of 4 epochs"
    encoder = [float(line.split()[0]) for line in long]
    assert max(encoder) == pytest.approx(3e-4) and encoder[0] == pytest.approx(3e-5) and min(encoder) == encoder[-1]
    assert encoder[-1] == pytest.approx(1e-6) and float(short[5].split()[0]) == pytest.approx(1e-6)
    log = pd.read_csv(whole / RUN / "log.csv", float_precision="round_trip")
    assert log["lr"].tolist() == encoder[2::3], "the logged rate is the last one used"


def test_adding_photos_does_not_leak_through_resume(celeb: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    prepare_celeb(celeb, mine)
    assert run(tmp_path, *TINY, "--data_dir", mine, "--epochs", 1) == 0
    for number in range(3):
        for folder, suffix in (("image", "jpg"), ("mask", "png")):
            shutil.copy(mine / folder / f"0.{suffix}", mine / folder / f"{900 + number}.{suffix}")
    assert run(tmp_path, "--resume", "--epochs", 2) == 1
    assert "the data has changed" in (tmp_path / "out.txt").read_text()


# ---------------------------------------------------------------------------------------------------- earlier versions

# What a run of `train_celeb.py --data_dir … --epochs 2` and TINY's other flags left in its folder before the packages
# `hair` and `training` were made.
OLD_FLAGS = {
    "fold": 0,
    "n_folds": 5,
    "limit": 20,
    "img_size": [64],
    "size_epochs": [2],
    "augment": "light",
    "backgrounds": [],
    "num_workers": 0,
    "encoder_type": "tu-test_efficientnet",
    "decoder_type": "FPN",
    "decoder_channels": None,
    "encoder_weights": "none",
    "weights": None,
    "epochs": 2,
    "batch_size": 2,
    "loss": "dice_bce",
    "teacher": [],
    "encoder_lr": 3e-05,
    "decoder_lr": None,
    "weight_decay": 1e-06,
    "scheduler": "GradualWarmupSchedulerV2",
    "min_lr": 1e-06,
    "warmup_epochs": 1,
    "warmup_factor": 10,
    "grad_accum": 3,
    "max_grad_norm": 5,
    "freeze_encoder_epochs": 0,
    "patience": 0,
    "ema": 0.9,
    "apex": False,
    "compile": False,
    "device": "auto",
    "seed": 42,
    "output_dir": "weights",
    "name": "celeb",
    "resume": None,
    "save_every": 15,
}
OLD_RECIPE = {
    "batch_size": 2,
    "grad_accum": 3,
    "processes": 1,
    "photos": 16,
    "seed": 42,
    "scheduler": "GradualWarmupSchedulerV2",
    "epochs": 2,
    "encoder_lr": 3e-05,
    "decoder_lr": 3e-05,
    "min_lr": 1e-06,
    "warmup_epochs": 1,
    "warmup_factor": 10,
}
OLD_SCHEDULER = {  # after the third of six steps; the rate of the next is the peak
    "last_epoch": 2,
    "after_scheduler": {
        "T_max": 2,
        "eta_min": 1e-06,
        "base_lrs": [3e-4, 3e-4],
        "last_epoch": 0,
        "_step_count": 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [3e-05, 3e-05],
    },
}
OLD_ROW = {
    "epoch": 1,
    "img_size": 64,
    "lr": 0.00021,
    "loss": 3.88,
    "valid_loss": 2.53,
    "valid_dice": 0.41,
    "valid_iou": 0.258,
    "valid_dice_per_photo": 0.41,
    "valid_precision": 0.258,
    "valid_recall": 1.0,
}


def old_checkpoint(digests: np.ndarray) -> dict:
    """What `last.pth` held after the first epoch of a run with OLD_FLAGS, trained on photos with these digests."""
    torch.manual_seed(0)
    model = models.build_model("tu-test_efficientnet", "FPN")
    average = copy.deepcopy(model)
    encoder = list(model.encoder.parameters())
    rest = [*model.decoder.parameters(), *model.segmentation_head.parameters()]
    groups = [{"params": part, "lr": 3e-05, "initial_lr": 3e-05} for part in (encoder, rest)]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-06)
    model(torch.rand(2, 3, 64, 64)).mean().backward()
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] = 0.00021
    return {
        "version": 2,
        "recipe": OLD_RECIPE,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "scheduler": OLD_SCHEDULER,
        "ema": average.state_dict(),
        "epoch": 1,
        "batch": 0,
        "loss_sum": 0.0,
        "best": 0.41,
        "history": [OLD_ROW],
        "trained_on": torch.from_numpy(digests),
    }


def test_a_run_folder_of_before_the_packages_is_resumed(celeb: Path, tmp_path: Path) -> None:
    train, _ = split([open_folder(celeb)], 0, 5, 20)
    folder = tmp_path / RUN
    folder.mkdir(parents=True)
    torch.save(old_checkpoint(train.digests()), folder / "last.pth")
    (folder / "args.json").write_text(json.dumps({"data_dir": [str(celeb)], **OLD_FLAGS}, indent=2) + "\n")
    pd.DataFrame([OLD_ROW]).to_csv(folder / "log.csv", index=False)
    assert run(tmp_path, "--resume", hook=record_rates) == 0, (tmp_path / "out.txt").read_text()
    out = (tmp_path / "out.txt").read_text()
    assert "resuming in epoch 2 after batch 0" in out and " was " not in out, "no flag has changed"
    log = pd.read_csv(folder / "log.csv")
    assert log["epoch"].tolist() == [1, 2] and log.iloc[0].to_dict() == OLD_ROW
    rates = [float(line.split()[0]) for line in (tmp_path / "rates.txt").read_text().splitlines()]
    assert rates == pytest.approx([3e-4, (3e-4 + 1e-6) / 2, 1e-6])
    assert json.loads((folder / "args.json").read_text()).keys() >= {"data_dir", *OLD_FLAGS}
    content = torch.load(folder / "last.pth", weights_only=True)
    assert content.keys() >= old_checkpoint(train.digests()).keys(), "and earlier versions read what this one writes"


def test_every_value_of_an_earlier_checkpoint_is_taken_over(tmp_path: Path) -> None:
    content = old_checkpoint(np.arange(16))
    torch.save(content, tmp_path / "last.pth")
    state = build_state(make_plan(*TINY, "--epochs", 2))
    state.resume(tmp_path)
    parts = {"model": state.model, "ema": state.ema.module, "optimizer": state.optimizer, "scheduler": state.scheduler}
    for name, part in parts.items():
        assert flatten(part.state_dict()) == flatten(content[name]), name
    for name in ("epoch", "batch", "loss_sum", "best", "history", "recipe"):
        assert getattr(state, name) == content[name]
    assert state.trained_on.tolist() == list(range(16)) and state.step == 3
    state.save(tmp_path / "again.pth")
    assert flatten(torch.load(tmp_path / "again.pth", weights_only=True)) == flatten(content | {"order": ""})


# ---------------------------------------------------------------------------------------------------- the state


class Code:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def saved_by_torch(content: object) -> bytes:
    stream = BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained network of 64 pixels."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    facts = {"img_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3, "threshold": 0.5}
    models.save_model(models.build_model("tu-test_efficientnet", "FPN"), folder, facts)
    return folder


def test_no_weights_file_runs_code(run_folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    state = build_state(make_plan(*TINY))
    for save in (pickle.dumps, saved_by_torch):
        for name in ("encoder.pth", "encoder.safetensors", "net.torchscript", "net.onnx"):
            (tmp_path / name).write_bytes(save({"version": 2, "model": Code(marker)}))
        for name in ("encoder.pth", "encoder.safetensors"):
            with pytest.raises(UserError, match=rf"{name}: cannot be read as weights"):
                models.read_tensors(tmp_path / name)
        for name in ("net.torchscript", "net.onnx"):
            with pytest.raises(UserError, match=name):
                backends.open_network(tmp_path / name, "onnx" if name.endswith("onnx") else "auto")
        for name in ("model.safetensors", "pytorch_model.bin"):
            folder = tmp_path / name.partition(".")[0]
            write(folder, {name: (tmp_path / "encoder.pth").read_bytes()})
            shutil.copy(run_folder / "config.json", folder)
            with pytest.raises(UserError, match=f"{folder}: not a model that can be loaded"):
                HairSegmenter(folder)
        write(tmp_path / "run", {"last.pth": (tmp_path / "encoder.pth").read_bytes()})
        with pytest.raises(UserError, match=r"last\.pth: cannot be read"):
            state.resume(tmp_path / "run")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Code(marker)))
    assert marker.exists(), "the code does run where a pickle is trusted"


def test_checkpoints_of_other_forms(tmp_path: Path) -> None:
    state = build_state(make_plan(*TINY))
    state.save(tmp_path / "last.pth")
    state.resume(tmp_path)
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    forms = {
        "is damaged .recipe is missing": [{k: v for k, v in content.items() if k != "recipe"}],
        "another version": [content | {"version": 1}, {k: v for k, v in content.items() if k != "version"}],
        "cannot be read as weights": [[content], torch.zeros(3), "text"],
    }
    for message, wrong in forms.items():
        for one in wrong:
            torch.save(one, tmp_path / "last.pth")
            with pytest.raises(UserError, match=rf"last\.pth: .*{message}"):
                state.resume(tmp_path)
    other = build_state(make_plan(*TINY, "--decoder_type", "Linknet"))
    other.save(tmp_path / "last.pth")
    (tmp_path / "previous.pth").unlink()
    with pytest.raises(UserError, match="does not match these flags") as error:
        state.resume(tmp_path)
    assert "\n" not in str(error.value)
    plain = build_state(make_plan(*TINY, "--ema", 0))
    plain.save(tmp_path / "last.pth")
    with pytest.raises(UserError, match="no moving average of its weights; resume with --ema 0"):
        state.resume(tmp_path)


def test_photos_trained_on_are_not_validated_on(tmp_path: Path) -> None:
    state = build_state(make_plan(*TINY))
    state.trained_on, state.held_out = np.arange(16), np.arange(16, 20)
    state.save(tmp_path / "last.pth")
    state.trained_on, state.held_out = np.arange(8, 24), np.arange(24, 30)  # photos have come, but none changed sides
    state.resume(tmp_path)
    state.save(tmp_path / "last.pth")
    state.held_out = np.array([3, 40])
    with pytest.raises(UserError, match=r"data has changed: 1 of the photos"):
        state.resume(tmp_path)


def test_other_photos_within_an_epoch_are_refused(tmp_path: Path) -> None:
    """As many as before: another order of the data sets, or another --exclude."""
    state = build_state(make_plan(*TINY))
    state.order, state.batch = "a", 0
    state.save(tmp_path / "last.pth")
    state.order = "b"
    state.resume(tmp_path)  # between epochs, this is no problem
    state.batch = 3
    state.save(tmp_path / "last.pth")
    state.resume(tmp_path)
    state.order = "c"
    with pytest.raises(UserError, match=r"within an epoch with other photos.*resume with the same --data_dir"):
        state.resume(tmp_path)


def test_a_scaler_that_was_off_is_no_obstacle(tmp_path: Path) -> None:
    state = build_state(make_plan(*TINY))
    assert state.scaler.state_dict() == {}
    state.save(tmp_path / "last.pth")
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    state.resume(tmp_path)
    assert state.scaler.is_enabled()


def test_a_plateau_is_of_one_size() -> None:
    state = build_state(make_plan(*TINY, "--scheduler", "ReduceLROnPlateau"))
    rate = state.optimizer.param_groups[0]["lr"]
    state.history = [{"img_size": 96, "valid_dice": 0.9}]
    state.history += [{"img_size": 32, "valid_dice": 0.7 + 0.01 * epoch} for epoch in range(6)]
    state._replay_schedule()
    assert state.optimizer.param_groups[0]["lr"] == rate, "Dice rose in every epoch at 32 pixels"
    state.scheduler.step(0.1)
    state.forget_best()
    assert state.best == -1 and state.scheduler.num_bad_epochs == 0
    state.scheduler.step(0.1)
    assert state.scheduler.num_bad_epochs == 0


# ---------------------------------------------------------------------------------------------------- locks and timer


def test_a_lock_made_anew_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner leaves, and another run makes a new lock, between this one's opening of the lock and its locking."""
    lock, flock = tmp_path / ".lock", fcntl.flock

    def late(file: object, how: int) -> None:
        lock.unlink()
        lock.touch()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="another run is using this folder"), checkpoint.alone_in(tmp_path):
        pytest.fail("both are in")


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "run"
    heard, ready = os.pipe()
    child = os.fork()
    if child == 0:  # a run that is at work until it is killed
        try:
            with checkpoint.alone_in(folder):
                os.write(ready, b"1")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(ready)
    try:
        assert os.read(heard, 1) == b"1"
        message = f"{folder}: another run is using this folder"
        with pytest.raises(UserError, match=message), checkpoint.alone_in(folder):
            pytest.fail("both are in")
        assert (folder / ".lock").exists(), "the refused one leaves the other's lock"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(heard)
    with checkpoint.alone_in(folder):  # the killed one is not in the way
        pass
    assert list(folder.iterdir()) == []


def test_a_signal_in_an_epoch_s_end_is_not_lost(tmp_path: Path) -> None:
    timer = checkpoint.CheckpointTimer(
        SimpleNamespace(epoch=2, batch=0, best=0.5), tmp_path / "last.pth", 10, torch.device("cpu")
    )
    with (
        pytest.raises(KeyboardInterrupt, match=r"stopped after epoch 2; best Dice 0\.5000; .*--resume"),
        timer,
    ):
        signal.raise_signal(signal.SIGTERM)


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saves = [10_000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    state = SimpleNamespace(save=lambda path: saves.append(clock[0]))
    timer = checkpoint.CheckpointTimer(state, tmp_path / "last.pth", 10, torch.device("cpu"))
    for jump, count in [(300, 0), (400, 1), (0, 1), (599, 1), (2, 2)]:
        clock[0] += jump
        monkeypatch.setattr(time, "time", lambda jump=jump: -1e6 * jump)  # the clock on the wall does not matter
        timer.after_step()
        assert len(saves) == count, jump
