"""Flags and their defaults, errors, metrics, atomic files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import utils
from utils import UserError

ROOT = Path(__file__).parents[1]
DEFAULTS = {
    "img_size": 512,
    "num_workers": 0,
    "encoder_type": "timm-efficientnet-b0",
    "decoder_type": "Unet",
    "scheduler": "GradualWarmupSchedulerV2",
    "min_lr": 1e-6,
    "batch_size": 4,
    "weight_decay": 1e-6,
    "apex": False,
    "encoder_lr": 3e-5,
    "decoder_lr": None,
    "data_dir": ["data/CelebAMask-HQ"],
    "output_dir": Path("weights"),
    "name": "celeb",
    "epochs": 20,
    "warmup_epochs": 1,
    "warmup_factor": 10,
    "encoder_weights": "imagenet",
    "loss": "dice_bce",
    "fold": 0,
    "n_folds": 5,
    "grad_accum": 1,
    "max_grad_norm": 5,
    "resume": None,
    "device": "auto",
    "limit": None,
    "size_epochs": None,
    "augment": "light",
    "backgrounds": [],
    "decoder_channels": None,
    "weights": None,
    "teacher": [],
    "freeze_encoder_epochs": 0,
    "patience": 0,
    "ema": 0,
    "compile": False,
    "seed": 42,
    "save_every": 15,
}


def parser():
    return utils.training_parser("usage", "data/CelebAMask-HQ", "celeb")


def test_default_of_every_flag() -> None:
    assert vars(parser().parse_args([])) == DEFAULTS


def test_apex_is_a_switch() -> None:
    assert parser().parse_args(["--apex"]).apex is True
    assert parser().parse_args(["--no-apex"]).apex is False


def parse(monkeypatch: pytest.MonkeyPatch, *flags: str):
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    return utils.parse_training(parser())


def test_what_follows_from_other_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    args = parse(monkeypatch, "--epochs", "7")
    assert (args.img_size, args.size_epochs) == ([512], [7])
    args = parse(monkeypatch, "--img_size", "256", "512", "--size_epochs", "15", "3")
    assert args.epochs == 18


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--img_size 256 512", "--size_epochs needs as many numbers"),
        ("--img_size 250", "--img_size 250 is not a multiple of 32"),
        ("--img_size 64 --size_epochs 2", "--size_epochs goes with several --img_size"),
        ("--fold 5", "--fold 5 is out of range"),
        ("--teacher a --loss lovasz", "--loss lovasz takes no half-hair"),
        ("--resume nowhere", r"no args\.json there"),
        ("--name a/b", "--name a/b: ends a folder's name"),
    ],
)
def test_flags_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch, flags: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(monkeypatch, *flags.split())


def test_a_resumed_run_keeps_its_fold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    utils.write_json(tmp_path / "args.json", vars(parse(monkeypatch, "--fold", "2", "--encoder_lr", "1e-3")))
    args = parse(monkeypatch, "--resume", str(tmp_path), "--encoder_lr", "1e-5", "--data_dir", "moved")
    assert (args.fold, args.n_folds, args.decoder_lr) == (2, 5, None), "the decoder's rate follows the encoder's"
    assert parse(monkeypatch, "--resume", str(tmp_path), "--fold", "2", "--epochs", "30").size_epochs == [30]
    for flag, value, was in (("--fold", "1", 2), ("--fold", "all", 2), ("--n_folds", "4", 5)):
        with pytest.raises(UserError, match=rf"{tmp_path}: was started with {flag} {was}; go on with that"):
            parse(monkeypatch, "--resume", str(tmp_path), flag, value)


def test_resume_alone_takes_the_newest_run_of_just_this_name(tmp_path: Path) -> None:
    for number, (folder, name) in enumerate([("a_celeb", "celeb"), ("b_my_celeb", "my_celeb"), ("c", "x[1]")]):
        utils.write_json(tmp_path / folder / "args.json", {"name": name})
        os.utime(tmp_path / folder / "args.json", (number, number))
    (tmp_path / "d_celeb").mkdir()
    (tmp_path / "d_celeb" / "args.json").write_text("{")
    assert [utils.newest_run(tmp_path, name).name for name in ("celeb", "x[1]")] == ["a_celeb", "c"]
    with pytest.raises(UserError, match="no run named mine"):
        utils.newest_run(tmp_path, "mine")


@pytest.mark.parametrize(
    "flags", ["--seed 4294967296", "--epochs 0", "--batch_size 1", "--encoder_lr -1", "--fold x", "--loss cosine"]
)
def test_flags_out_of_range(flags: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(flags.split())
    assert stop.value.code == 2
    assert flags.split()[0] in capsys.readouterr().err


def test_every_flag_says_what_it_does() -> None:
    actions = parser()._actions
    assert len(actions) > 25
    assert all(action.help for action in actions)


def test_an_unknown_device_is_refused() -> None:
    assert utils.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="try --device cpu"):
        utils.choose_device("abacus")


# ---------------------------------------------------------------------------------------------------- metrics


def test_dice_is_of_the_whole_set_and_empty_photos_count_as_right() -> None:
    counts = [torch.tensor(column)[:, None] for column in ([90, 0, 0], [10, 0, 5], [10, 0, 0], [0, 100, 95])]
    result = utils.scores(*counts)
    assert result["dice"] == pytest.approx(2 * 90 / (2 * 90 + 15 + 10))
    assert result["iou"] == pytest.approx(90 / 115)
    assert result["dice_per_photo"] == pytest.approx((0.9 + 1 + 0) / 3)
    assert (result["precision"], result["recall"]) == (pytest.approx(90 / 105), pytest.approx(0.9))


def test_boundary_f1() -> None:
    square = np.zeros((300, 400), bool)  # diagonal 500: the tolerance is 4 pixels
    square[100:200, 100:200] = True
    assert utils.boundary_f1(square, square) == 1
    assert utils.boundary_f1(np.roll(square, 3, axis=1), square) == 1
    assert utils.boundary_f1(np.roll(square, 20, axis=1), square) == pytest.approx(0.45, abs=0.1)
    assert utils.boundary_f1(~square & False, square) == 0
    assert utils.boundary_f1(~square & False, ~square & False) == 1
    assert utils.boundary_f1(~square | True, ~square & False) == 0, "neither has an outline, but they differ"


@pytest.mark.parametrize("steps", [20, 100, 601])
def test_restarts_end_at_a_low_rate(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = utils.build_scheduler("CosineAnnealingWarmRestarts", optimizer, 1, steps, 0, 1, min_lr=0)
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] < 0.1


# ---------------------------------------------------------------------------------------------------- files


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "log.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), utils.atomic(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    with utils.atomic(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_of_the_user_is_one_line_on_standard_error(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise UserError("data: no such folder")

    with pytest.raises(SystemExit) as stop:
        utils.run(main)
    assert stop.value.code == "error: data: no such folder"


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of Linux's C libraries")
def test_freed_memory_is_kept() -> None:
    program = """
import resource, sys, numpy, utils
if sys.argv[1] == "keep":
    utils.keep_freed_memory()
fill = lambda: [numpy.full(3 << 20, 1, numpy.uint8) for _ in range(20)]  # smaller than what NumPy wants huge pages for
fill(), fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(subprocess.run([sys.executable, "-c", program, how], cwd=ROOT, capture_output=True, text=True).stdout)
        for how in ("", "keep")
    ]
    if faults[0] < 1000:
        pytest.skip("this C library keeps it anyway")
    assert faults[1] < faults[0] / 10
