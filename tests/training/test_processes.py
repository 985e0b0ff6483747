"""Two processes train and validate as one does."""

import json
import socket
from functools import partial
from pathlib import Path

import pytest
import torch

import models
from dataset import HairDataset, build_loader, open_folder, split
from tests.scripts import RUN, TINY, run, start
from tests.training.hooks import contents, kill_at_rename
from training.augment import eval_transform
from training.engine import Compute, evaluate
from training.losses import build_loss
from utils import scores

FLAGS = [*TINY, "--limit", 21, "--epochs", 2, "--ema", 0, "--decoder_lr", 1e-4]


def pair(folder: Path, *flags: object, hook: partial | None = None) -> list[int]:
    """Run train_celeb.py in two processes as torchrun does; if one is killed, so is the other. Gives exit statuses."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    both = [
        start(folder, *flags, hook=hook if number == 0 else None, RANK=number, LOCAL_RANK=number, **common)
        for number in range(2)
    ]
    both[0].join()
    if both[0].exitcode < 0:
        both[1].kill()
    both[1].join()
    return [process.exitcode for process in both]


@pytest.fixture(scope="module")
def two(celeb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    assert pair(folder, *FLAGS, "--data_dir", celeb, "--grad_accum", 2) == [0, 0], (folder / "out.txt").read_text()
    return folder


def test_dice_of_two_processes_is_that_of_one(two: Path, celeb: Path) -> None:
    valid = split([open_folder(celeb)], 0, 5, 21)[1]
    assert len(valid) % 2 == 1, "shares of different sizes"
    model, facts = models.load_model(two / RUN)
    loader = build_loader(HairDataset(valid, eval_transform(64)), 4, 0)
    normalise = models.Normalise(facts["mean"], facts["std"])
    compute = Compute(torch.device("cpu"), normalise, build_loss("dice_bce"))
    one = scores(*evaluate(model, loader, compute)[1])
    found = json.loads((two / RUN / "config.json").read_text())["_hair"]["scores"]
    assert 0 < one["dice"] < 1
    for key in one:
        assert found[key] == one[key]


def test_two_processes_learn_as_one_that_accumulates(two: Path, celeb: Path, tmp_path: Path) -> None:
    assert run(tmp_path, *FLAGS, "--data_dir", celeb, "--grad_accum", 4) == 0
    out = (two / "out.txt").read_text()
    assert out.count("2 process(es) × batch 2 × 2 accumulated = 8 photos a step") == 1, "one process prints"
    one, both = (torch.load(folder / RUN / "last.pth", weights_only=True) for folder in (tmp_path, two))
    assert both["history"][-1]["loss"] == pytest.approx(one["history"][-1]["loss"], rel=1e-4)
    weights = [key for key in one["model"] if key.endswith(("weight", "bias"))]
    for key in weights:
        torch.testing.assert_close(both["model"][key], one["model"][key], rtol=0, atol=1e-5)


def test_a_mistake_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "mine" / "image").mkdir(parents=True)
    (tmp_path / "mine" / "mask").mkdir()
    for number in range(6):
        for folder in ("image", "mask"):
            (tmp_path / "mine" / folder / f"{number}.png").write_text("no picture")
    for data, message in (("/nowhere", "no such folder"), ("mine", "not an image")):
        (tmp_path / "out.txt").unlink(missing_ok=True)
        assert pair(tmp_path, *FLAGS, "--data_dir", data) == [1, 1]
        out = (tmp_path / "out.txt").read_text()
        assert message in out and out.count("error:") == 1 and "Traceback" not in out


def test_two_processes_resume(two: Path, celeb: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--data_dir", celeb, "--grad_accum", 2, "--save_every", 0]
    killed = pair(tmp_path, *flags, hook=partial(kill_at_rename, "last.pth", 2, after=True))
    assert killed[0] == -9 and killed[1] != 0
    assert pair(tmp_path, "--resume") == [0, 0]
    assert "resuming in epoch 1" in (tmp_path / "out.txt").read_text()
    assert contents(tmp_path / RUN) == contents(two / RUN)
    assert run(tmp_path, "--resume", "--epochs", 3) == 0, "the number of processes may change between epochs"
