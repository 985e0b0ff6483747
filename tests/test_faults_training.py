"""Broken weights, killed workers, two runs in one folder: one clear line, no trace, and nothing lost."""

import json
import os
import pickle
import shutil
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import (
    FUZZ,
    GOOD,
    one_line,
    write,
)
from hypothesis import given
from hypothesis import strategies as st
from scripts import TINY, run

import backends
import checkpoint
import dataset
import engine
import models
import train_celeb
import utils
from dataset import FolderIndex, HairDataset, PhotoSet
from inference import HairSegmenter
from utils import UserError

# ---------------------------------------------------------------------------------------------------- checkpoints


class Code:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Namespace]:
    """Let train_celeb.py parse flags, and give them instead of training."""

    def parsed(*flags: object) -> Namespace:
        seen = []
        monkeypatch.setattr(sys, "argv", ["train_celeb.py", *TINY, *map(str, flags)])
        monkeypatch.setattr(engine, "train", lambda args, open_indexes: seen.append(args))
        train_celeb.main()
        return seen[0]

    return parsed


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained network of 64 pixels."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    facts = {"img_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3, "threshold": 0.5}
    models.save_model(models.build_model("tu-test_efficientnet", "FPN"), folder, facts)
    return folder


def test_no_weights_file_runs_code(run_folder: Path, tmp_path: Path, parse: Callable[..., Namespace]) -> None:
    marker = tmp_path / "ran"
    state, _ = engine.build_state(parse(), torch.device("cpu"), 16)
    for save in (pickle.dumps, lambda content: encoded_by_torch(content)):
        for name in ("encoder.pth", "encoder.safetensors", "net.torchscript", "net.onnx"):
            (tmp_path / name).write_bytes(save({"version": 2, "model": Code(marker)}))
        for name in ("encoder.pth", "encoder.safetensors"):
            with pytest.raises(UserError, match=rf"{name}: cannot be read as weights"):
                models.read_tensors(tmp_path / name)
        for name in ("net.torchscript", "net.onnx"):
            with pytest.raises(ValueError, match=name):
                backends.open_network(tmp_path / name, "onnx" if name.endswith("onnx") else "auto")
        for name in ("model.safetensors", "pytorch_model.bin"):
            folder = tmp_path / name.partition(".")[0]
            write(folder, {name: (tmp_path / "encoder.pth").read_bytes()})
            shutil.copy(run_folder / "config.json", folder)
            with pytest.raises(ValueError, match=f"{folder}: not a model that can be loaded"):
                HairSegmenter(folder)
        write(tmp_path / "run", {"last.pth": (tmp_path / "encoder.pth").read_bytes()})
        with pytest.raises(UserError, match=r"last\.pth: cannot be read"):
            state.resume(tmp_path / "run")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Code(marker)))
    assert marker.exists(), "the code does run where a pickle is trusted"


def encoded_by_torch(content: object) -> bytes:
    stream = BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def test_checkpoints_of_other_forms(tmp_path: Path, parse: Callable[..., Namespace]) -> None:
    state, _ = engine.build_state(parse(), torch.device("cpu"), 16)
    state.save(tmp_path / "last.pth")
    state.resume(tmp_path)
    content = torch.load(tmp_path / "last.pth", weights_only=True)
    forms = {
        "is damaged .recipe is missing": [{k: v for k, v in content.items() if k != "recipe"}],
        "another version": [content | {"version": 1}, {k: v for k, v in content.items() if k != "version"}],
        "cannot be read as weights": [[content], torch.zeros(3), "text"],
    }
    for message, contents in forms.items():
        for one in contents:
            torch.save(one, tmp_path / "last.pth")
            with pytest.raises(UserError, match=rf"last\.pth: .*{message}"):
                state.resume(tmp_path)
    other, _ = engine.build_state(parse("--decoder_type", "Linknet"), torch.device("cpu"), 16)
    other.save(tmp_path / "last.pth")
    (tmp_path / "previous.pth").unlink()
    with pytest.raises(UserError, match="does not fit these flags") as error:
        state.resume(tmp_path)
    assert "\n" not in str(error.value)
    plain, _ = engine.build_state(parse("--ema", 0), torch.device("cpu"), 16)
    plain.save(tmp_path / "last.pth")
    with pytest.raises(UserError, match="no moving average of its weights; resume with --ema 0"):
        state.resume(tmp_path)


def test_photos_trained_on_are_not_validated_on(tmp_path: Path, parse: Callable[..., Namespace]) -> None:
    state, _ = engine.build_state(parse(), torch.device("cpu"), 16)
    state.trained_on, state.held_out = np.arange(16), np.arange(16, 20)
    state.save(tmp_path / "last.pth")
    state.trained_on, state.held_out = np.arange(8, 24), np.arange(24, 30)  # photos have come, but none changed sides
    state.resume(tmp_path)
    state.save(tmp_path / "last.pth")
    state.held_out = np.array([3, 40])
    with pytest.raises(UserError, match=r"data has changed, and 1 of the photos"):
        state.resume(tmp_path)


def test_adding_photos_does_not_leak_through_resume(celeb: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    dataset.prepare_celeb(celeb, mine)
    assert run(tmp_path, *TINY, "--data_dir", mine, "--epochs", 1) == 0
    for number in range(3):
        for folder, suffix in (("image", "jpg"), ("mask", "png")):
            shutil.copy(mine / folder / f"0.{suffix}", mine / folder / f"{900 + number}.{suffix}")
    assert run(tmp_path, "--resume", "--epochs", 2) == 1
    assert "its data has changed" in (tmp_path / "out.txt").read_text()


def test_a_scaler_that_was_off_is_no_obstacle(tmp_path: Path, parse: Callable[..., Namespace]) -> None:
    state, _ = engine.build_state(parse(), torch.device("cpu"), 16)
    assert state.scaler.state_dict() == {}
    state.save(tmp_path / "last.pth")
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    state.resume(tmp_path)
    assert state.scaler.is_enabled()


def test_a_plateau_is_of_one_size(parse: Callable[..., Namespace]) -> None:
    state, _ = engine.build_state(parse("--scheduler", "ReduceLROnPlateau"), torch.device("cpu"), 16)
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


def test_a_signal_in_an_epoch_s_end_is_not_lost(tmp_path: Path) -> None:
    keeper = checkpoint.Keeper(SimpleNamespace(), tmp_path / "last.pth", 10, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt), keeper:
        signal.raise_signal(signal.SIGTERM)


def test_a_lock_made_anew_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner leaves, and another run makes a new lock, between this one's opening of the lock and its locking."""
    lock, locked = tmp_path / ".lock", checkpoint.fcntl.lockf

    def late(file: object, how: int) -> None:
        lock.unlink()
        lock.touch()
        locked(file, how)

    monkeypatch.setattr(checkpoint.fcntl, "lockf", late)
    with pytest.raises(UserError, match="another run is at work"), checkpoint.alone_in(tmp_path):
        pytest.fail("both are in")


def test_old_gpus_get_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = lambda including_emulation=True: including_emulation  # of a GPU that can only imitate bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)
    assert utils.half_precision(torch.device("cuda")) is torch.float16
    assert utils.half_precision(torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_run_folder_cut_off_anywhere(run_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    whole = (folder / name).read_bytes()
    for length in (0, len(whole) // 2, len(whole) - 3):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(ValueError) as error:
            HairSegmenter(folder)
        assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)


values = st.recursive(st.none() | st.booleans() | st.floats() | st.text("a머", max_size=3), st.lists, max_leaves=4)
facts = values | st.dictionaries(st.sampled_from(["img_size", "mean", "std", "threshold", "머리"]), values)


@FUZZ
@given(facts)
def test_facts_are_whole_or_refused(content: object) -> None:
    try:
        found = backends.parse_facts(Path("net.onnx"), json.dumps(content))
    except ValueError as error:
        assert str(error).startswith("net.onnx: ") and "\n" not in str(error)
    else:
        assert {"img_size", "mean", "std", "threshold"} <= found.keys()


def test_weights_to_start_from_must_have_their_facts(run_folder: Path, tmp_path: Path) -> None:
    """As a model of SMP's own has none."""
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    model, _ = models.load_model(folder)
    make_teacher = lambda: models.Teacher([folder])
    for without in ({}, {"threshold": 0.5}, None, 3):
        (folder / "config.json").write_text(json.dumps(config | {models.FACTS: without}))
        for flag, load in (("weights", lambda: models.load_weights(model, folder)), ("teacher", make_teacher)):
            with pytest.raises(UserError, match=f"--{flag} names a run|not a model that can be loaded"):
                load()


@pytest.mark.parametrize("text", ["", "[]", "3", '"머리"', "{", '{"encoder_name": 1}', "null"])
def test_flags_files_of_other_forms(tmp_path: Path, text: str) -> None:
    for name, read in {"args.json": utils.read_flags, "config.json": utils.read_architecture}.items():
        (tmp_path / name).write_text(text)
        if name == "args.json" and text.startswith('{"'):
            continue
        with pytest.raises(UserError) as error:
            read(tmp_path)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------- machine


def kill(**_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line(celeb: Path) -> None:
    photos = PhotoSet([dataset.open_folder(celeb)], [np.arange(4)])
    data = HairDataset(photos, SimpleNamespace(set_random_seed=lambda seed: None))
    data.transform = kill
    with pytest.raises(SystemExit) as stop:
        utils.run(lambda: list(dataset.build_loader(data, 2, num_workers=1)))
    one_line(stop, "killed", "--num_workers")


def test_a_photo_that_a_worker_cannot_read_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"no photo", "a.png": GOOD["bilevel.png"]})
    photos = PhotoSet([FolderIndex(tmp_path, ["a.jpg"] * 4, ["a.png"] * 4)], [np.arange(4)])
    with pytest.raises(SystemExit) as stop:
        utils.run(lambda: list(dataset.build_loader(HairDataset(photos, kill), 2, num_workers=1)))
    one_line(stop, tmp_path / "a.jpg", "cannot be read")
    assert stop.value.code.startswith(f"error: {tmp_path}")


def test_other_errors_keep_their_trace() -> None:
    def bug() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        utils.run(bug)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_cuda_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--device cuda:0 cannot be used here .*--device cpu") as error:
        utils.choose_device("cuda")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="--device cuda") as error:
        backends.TorchNetwork(torch.nn.Identity(), {}, "cuda")
    assert "\n" not in str(error.value)
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ValueError, match="--device cuda: this ONNX Runtime has no such device"):
        backends.open_network(tmp_path / "net.onnx", "auto", "cuda")


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "weights" / "run"
    heard, ready = os.pipe()
    child = os.fork()
    if child == 0:  # a run that is at work until it is killed
        try:
            with checkpoint.alone_in(run):
                os.write(ready, b"1")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(ready)
    try:
        assert os.read(heard, 1) == b"1"
        with pytest.raises(UserError, match=f"{run}: another run is at work in it"), checkpoint.alone_in(run):
            pytest.fail("both are in")
        assert (run / ".lock").exists(), "the refused one leaves the other's lock"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(heard)
    with checkpoint.alone_in(run):  # the killed one is not in the way
        pass
    assert list(run.iterdir()) == []


def test_the_second_run_changes_nothing(
    celeb: Path, tmp_path: Path, parse: Callable[..., Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are started on the same new folder, and the other one is faster while this one builds its network."""
    args = parse("--data_dir", celeb, "--output_dir", tmp_path)
    photos = dataset.split([dataset.open_folder(celeb)], 0, 5, 20)
    build = engine.build_state

    def slow(*given: object) -> tuple:
        write(engine.run_folder(args, args.name, check=False), {"args.json": b"the other's"})
        return build(*given)

    monkeypatch.setattr(engine, "build_state", slow)
    with pytest.raises(UserError, match="there is a run already"):
        engine.fit(args, args.name, *photos)
    (run,) = tmp_path.iterdir()
    assert [(path.name, path.read_bytes()) for path in run.iterdir()] == [("args.json", b"the other's")]


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saves = [10_000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    state = SimpleNamespace(save=lambda path: saves.append(clock[0]))
    keeper = checkpoint.Keeper(state, tmp_path / "last.pth", 10, torch.device("cpu"))
    for jump, count in [(300, 0), (400, 1), (0, 1), (599, 1), (2, 2)]:
        clock[0] += jump
        monkeypatch.setattr(time, "time", lambda jump=jump: -1e6 * jump)  # the clock on the wall does not matter
        keeper.after_step()
        assert len(saves) == count, jump
